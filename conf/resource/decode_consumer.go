package resource

import "strings"

// DecodeConsumer does for consumers what DecodeRoute does for routes.
func DecodeConsumer(raw []byte) (*Consumer, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return consumerFrom(doc)
}

// DecodeCredential does for credentials what DecodeRoute does for routes.
func DecodeCredential(raw []byte) (*Credential, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return credentialFrom(doc)
}

// DecodePluginSet does for consumer groups, plugin configs and global rules what DecodeRoute does for routes.
func DecodePluginSet(raw []byte) (*PluginSet, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return pluginSetFrom(doc)
}

// DecodeSSL does for certificates what DecodeRoute does for routes. The PEM is not parsed.
func DecodeSSL(raw []byte) (*SSL, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return sslFrom(doc)
}

// DecodeProto does for protocol buffer definitions what DecodeRoute does for routes. The content is not parsed.
func DecodeProto(raw []byte) (*Proto, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return protoFrom(doc)
}

func consumerFrom(doc map[string]any) (*Consumer, error) {
	f := fields{doc: doc}
	c := &Consumer{
		Username: f.text("username"), Desc: f.text("desc"), Labels: f.labels(),
		GroupID: f.id("group_id"),
		Plugins: f.plugins(),
	}
	return c, f.err
}

func credentialFrom(doc map[string]any) (*Credential, error) {
	f := fields{doc: doc}
	id := f.id("id")
	c := &Credential{
		ID:   id[strings.LastIndexByte(id, '/')+1:],
		Name: f.text("name"), Desc: f.text("desc"), Labels: f.labels(),
		Plugins: f.plugins(),
	}
	return c, f.err
}

func pluginSetFrom(doc map[string]any) (*PluginSet, error) {
	f := fields{doc: doc}
	s := &PluginSet{ID: f.id("id"), Name: f.text("name"), Desc: f.text("desc"), Labels: f.labels(), Plugins: f.plugins()}
	return s, f.err
}

func protoFrom(doc map[string]any) (*Proto, error) {
	f := fields{doc: doc}
	p := &Proto{ID: f.id("id"), Name: f.text("name"), Desc: f.text("desc"), Labels: f.labels(), Content: f.text("content")}
	return p, f.err
}

func sslFrom(doc map[string]any) (*SSL, error) {
	f := fields{doc: doc}
	s := &SSL{
		ID: f.id("id"), Desc: f.text("desc"), Labels: f.labels(),
		Type:      f.textOr("type", "server"),
		SNIs:      f.oneOrMany("sni", "snis"),
		Status:    f.integer("status", 1),
		Protocols: f.texts("ssl_protocols"),
	}
	certs := append([]string{f.text("cert")}, f.texts("certs")...)
	keys := append([]string{f.text("key")}, f.texts("keys")...)
	if len(certs) != len(keys) {
		f.fail("keys", "as many as certs")
	} else {
		for i, cert := range certs {
			s.Pairs = append(s.Pairs, KeyPair{Cert: cert, Key: keys[i]})
		}
	}
	if sub := f.object("client"); sub != nil {
		s.Client = &SSLClient{CA: sub.text("ca"), Depth: sub.integer("depth", 1), SkipURIs: sub.texts("skip_mtls_uri_regex")}
		f.adopt(sub)
	}
	return s, f.err
}
