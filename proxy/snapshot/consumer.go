package snapshot

import (
	"errors"
	"fmt"
	"strings"

	"headgate/conf/resource"
	"headgate/proxy/phase"
)

// registry is who may show what, and what applies to whom: the consumers of one snapshot. It is persistent, like the route table.
type registry struct {
	credentials trie[*credential]      // by the kind's number and the identity
	principals  trie[*phase.Principal] // by name
	groups      trie[*group]           // by id
}

func newRegistry() registry {
	return registry{newTrie[*credential](), newTrie[*phase.Principal](), newTrie[*group]()}
}

// draft and final are those of the tries.
func (r registry) draft() registry {
	return registry{r.credentials.draft(), r.principals.draft(), r.groups.draft()}
}

func (r registry) final() registry {
	return registry{r.credentials.final(), r.principals.final(), r.groups.final()}
}

// with returns a registry that has c.
func (r registry) with(c *consumer) registry {
	r.principals = r.principals.with(c.name, c.principal)
	for _, got := range c.credentials {
		r.credentials = r.credentials.with(got.key, got)
	}
	return r
}

// without returns a registry that does not have c. What others have is not touched.
func (r registry) without(c *consumer) registry {
	if p, _ := r.principals.getString(c.name); p == c.principal {
		r.principals = r.principals.without(c.name)
	}
	for _, got := range c.credentials {
		if now, _ := r.credentials.getString(got.key); now == got {
			r.credentials = r.credentials.without(got.key)
		}
	}
	return r
}

// consumer is a compiled consumer with its credentials.
type consumer struct {
	part
	name        string
	principal   *phase.Principal
	credentials []*credential
}

// credential is what one document says about one authentication plugin.
type credential struct {
	phase.Credential
	owner string // key of the document
	key   string // in registry.credentials
}

// group is a compiled consumer group.
type group struct {
	part
	id string
}

// credentialKey is where the credential of the kind is registered.
func credentialKey(kind uint8, identity string) string { return string([]byte{kind}) + identity }

// Credential implements phase.Registry.
func (s *Snapshot) Credential(kind uint8, id []byte) *phase.Credential {
	var buf [256]byte
	key := append(append(buf[:0], kind), id...) // identities longer than that cost an allocation
	c, ok := s.registry.credentials.get(key)
	if !ok {
		return nil
	}
	return &c.Credential
}

// Principal implements phase.Registry.
func (s *Snapshot) Principal(name string) *phase.Principal {
	p, _ := s.registry.principals.getString(name)
	return p
}

// Group returns the plugins of the consumer group, nil without any. ok is false when there is no such group.
func (s *Snapshot) Group(id string) (c *phase.Chain, ok bool) {
	g, ok := s.registry.groups.getString(id)
	if !ok {
		return nil, false
	}
	return g.Chain, true
}

// compileConsumer compiles the consumer under key, whose document is raw, and all its credentials. A credential that does not compile
// is left out when the stage is lenient.
func (st *Stage) compileConsumer(key string, raw []byte) (*consumer, error) {
	doc, err := resource.DecodeConsumer(raw)
	if err != nil {
		return nil, err
	}
	_, name, _ := strings.Cut(key, "/")
	c := &consumer{name: name, principal: &phase.Principal{Consumer: phase.Consumer{
		Name: name, Group: doc.GroupID, CustomID: doc.Labels["custom_id"], Labels: doc.Labels,
	}}}
	c.slots.Class = phase.ConsumerSlots
	b := &builder{st: st, unit: key, p: &c.part}
	if prev := st.c.consumers[key]; prev != nil {
		b.prev = &prev.part
	}
	if err := b.consumer(c, key, doc); err != nil {
		b.fail()
		return nil, err
	}
	for _, k := range st.credentialKeys(key) {
		got, keep, err := settle(st, k, true, func(raw []byte) (*credential, error) {
			doc, err := resource.DecodeCredential(raw)
			if err != nil {
				return nil, err
			}
			for _, p := range doc.Plugins {
				return b.credential(c, k, p)
			}
			return nil, nil // without a plugin it shows nothing
		})
		switch {
		case err != nil:
			b.fail()
			return nil, err
		case keep: // no version of it compiles with the consumer as it is
		case got != nil:
			c.credentials = append(c.credentials, got)
		}
	}
	return c, nil
}

// consumer compiles what the consumer's own document says.
func (b *builder) consumer(c *consumer, key string, doc *resource.Consumer) error {
	var own []resource.Plugin
	for _, p := range doc.Plugins {
		if k := b.st.c.kinds[p.Name]; k == nil || k.Consumer == nil {
			own = append(own, p)
			continue
		}
		got, err := b.credential(c, key, p)
		if err != nil {
			return err
		}
		if got != nil {
			c.credentials = append(c.credentials, got)
		}
	}
	list, err := b.configure(nil, own, key)
	if err != nil {
		return err
	}
	_, err = b.chain(list, false)
	c.principal.Chain = c.Chain
	return err
}

// credential compiles what the document owner says about the authentication plugin p; nil when p is switched off there.
func (b *builder) credential(c *consumer, owner string, p resource.Plugin) (*credential, error) {
	k := b.st.c.kinds[p.Name]
	if k == nil || k.Consumer == nil {
		return nil, errors.New("only supports auth type plugins in consumer credential")
	}
	list, err := b.configure(nil, []resource.Plugin{p}, owner)
	if err != nil || len(list) == 0 || list[0].disabled {
		return nil, err
	}
	conf, err := resource.Encode(list[0].conf)
	if err != nil {
		return nil, pluginError(p.Name, err)
	}
	identity := identityOf(k, list[0].conf)
	if identity == "" {
		return nil, pluginError(p.Name, fmt.Errorf("%s: expected a string", k.Consumer.Identity))
	}
	data, err := k.Consumer.Build(conf)
	if err != nil {
		return nil, pluginError(p.Name, err)
	}
	got := &credential{Credential: phase.Credential{Principal: c.principal, Data: data}, owner: owner, key: credentialKey(k.number, identity)}
	if _, id, below := strings.Cut(owner, "/credentials/"); below {
		got.ID = id
	}
	return got, nil
}

// identityOf returns what a request shows to be found, "" when conf has nothing of the kind.
func identityOf(k *kind, conf any) string {
	doc, _ := conf.(map[string]any)
	s, _ := doc[k.Consumer.Identity].(string)
	return s
}

// compileGroup compiles the consumer group under key.
func (st *Stage) compileGroup(key string, raw []byte) (*group, error) {
	doc, err := resource.DecodePluginSet(raw)
	if err != nil {
		return nil, err
	}
	_, id, _ := strings.Cut(key, "/")
	g := &group{id: id}
	g.slots.Class = phase.GroupSlots
	b := &builder{st: st, unit: key, p: &g.part}
	if prev := st.c.groups[key]; prev != nil {
		b.prev = &prev.part
	}
	list, err := b.configure(nil, doc.Plugins, key)
	if err == nil {
		_, err = b.chain(list, false)
	}
	if err != nil {
		b.fail()
		return nil, err
	}
	return g, nil
}

// CredentialOwner returns the key of the document other than except that shows the same identity for the plugin as conf does, with the
// name of the member that is the identity (contract section 1.6); "" when there is none.
func (c *Compiler) CredentialOwner(plugin string, conf map[string]any, except string) (attr, owner string) {
	k := c.kinds[plugin]
	if k == nil || k.Consumer == nil {
		return "", ""
	}
	identity := identityOf(k, conf)
	if got, taken := c.registry.credentials.getString(credentialKey(k.number, identity)); taken && got.owner != except {
		return k.Consumer.Identity, got.owner
	}
	return "", ""
}
