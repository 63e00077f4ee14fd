package snapshot

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"headgate/conf/resource"
)

// TLSOptions are what certificates are served with. The zero value is usable.
type TLSOptions struct {
	// MinVersion is the lowest version of TLS for names whose document does not list its versions, as crypto/tls numbers them; 0 = 1.2.
	MinVersion uint16
	// Protocols are what can be spoken over TLS (RFC 7301), preferred first.
	Protocols []string
	// Tickets lets clients resume sessions. A ticket is worth nothing for another document, or for another version of the certificates in
	// its own.
	Tickets bool
	// Default is shown to clients that ask for no name, or for one that no document has; nil refuses them.
	Default *tls.Certificate
}

// Certificate is a compiled ssl document: what clients see that ask for one of its names. It is immutable.
type Certificate struct {
	// Client says which certificates clients must show, nil when they need none.
	Client *ClientAuth

	key    string
	names  []string    // in lower case; none when it is not served
	config *tls.Config // nil when nothing above TLS 1.1 is allowed
	old    *tls.Config // for TLS 1.1, nil when that is not allowed
}

const sslFolder = "ssls/"

// Config returns how the client of hello is served. It must not be changed.
func (c *Certificate) Config(hello *tls.ClientHelloInfo) *tls.Config {
	if c.old == nil {
		return c.config
	}
	for _, v := range hello.SupportedVersions {
		if v > tls.VersionTLS11 && c.config != nil {
			return c.config
		}
	}
	return c.old
}

// compileCertificate compiles the ssl document key.
func (st *Stage) compileCertificate(key string, raw []byte) (*Certificate, error) {
	doc, err := resource.DecodeSSL(raw)
	if err != nil {
		return nil, err
	}
	if err = st.resolveSSL(doc); err != nil {
		return nil, err
	}
	c := &Certificate{key: key}
	pairs, err := keyPairs(doc)
	if errors.Is(err, errMismatch) && !st.lenient {
		// Judged already, by somebody who is told to let it pass (compat switch ssl_key_mismatch). No handshake could succeed.
		st.Warnings = append(st.Warnings, fmt.Sprintf("%s is not served: %v", key, err))
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if doc.Client != nil {
		if c.Client, err = newClientAuth(doc.Client); err != nil {
			return nil, err
		}
	}
	if doc.Type != "server" || doc.Status != 1 {
		return c, nil
	}
	for _, name := range doc.SNIs {
		if strings.HasPrefix(name, "*") && name != "*" && !strings.HasPrefix(name, "*.") {
			st.Warnings = append(st.Warnings, fmt.Sprintf("%s: no client asks for the name %q: a wildcard is a whole label", key, name))
			continue
		}
		c.names = append(c.names, strings.ToLower(name))
	}
	slices.Sort(c.names)
	c.names = slices.Compact(c.names)
	c.configure(st.c.opt.TLS, st.c.tickets, pairs, doc.Protocols)
	return c, nil
}

// resolveSSL puts what references stand for into their places.
func (st *Stage) resolveSSL(doc *resource.SSL) error {
	text := func(s *string) error {
		v, err := resolvedText(*s, st.c.opt.LookupEnv)
		if err != nil {
			return err
		}
		*s, _ = v.(string)
		return nil
	}
	for i := range doc.Pairs {
		if err := text(&doc.Pairs[i].Cert); err != nil {
			return fmt.Errorf("cert: %w", err)
		}
		if err := text(&doc.Pairs[i].Key); err != nil {
			return fmt.Errorf("key: %w", err)
		}
	}
	if doc.Client != nil {
		if err := text(&doc.Client.CA); err != nil {
			return fmt.Errorf("client.ca: %w", err)
		}
	}
	return nil
}

var errMismatch = errors.New("a key does not belong to its certificate")

// keyPairs parses the certificates of doc, those with short signatures first: a client gets the first that it understands. Errors show
// no byte of a key.
func keyPairs(doc *resource.SSL) ([]tls.Certificate, error) {
	pairs := make([]tls.Certificate, 0, len(doc.Pairs))
	for i, p := range doc.Pairs {
		pair, err := tls.X509KeyPair([]byte(p.Cert), []byte(p.Key))
		switch {
		case err == nil:
			pairs = append(pairs, pair)
		case strings.Contains(err.Error(), "does not match"): // crypto/tls has no type for it
			return nil, errMismatch
		default:
			return nil, fmt.Errorf("pair %d of certificate and key: %w", i+1, err)
		}
	}
	slices.SortStableFunc(pairs, func(p, q tls.Certificate) int { return expense(&p) - expense(&q) })
	return pairs, nil
}

func expense(c *tls.Certificate) int {
	switch c.PrivateKey.(type) {
	case *ecdsa.PrivateKey, ed25519.PrivateKey:
		return 0
	}
	return 1
}

// configure makes the configurations under which the names of c are served.
func (c *Certificate) configure(o TLSOptions, tickets *Tickets, pairs []tls.Certificate, versions []string) {
	base := &tls.Config{
		MinVersion:             max(o.MinVersion, tls.VersionTLS12),
		NextProtos:             o.Protocols,
		SessionTicketsDisabled: !o.Tickets,
		Certificates:           pairs,
	}
	if len(pairs) > 1 {
		base.Certificates = nil
		base.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return choose(hello, pairs), nil }
	}
	if a := c.Client; a != nil {
		base.ClientAuth, base.ClientCAs = tls.RequireAnyClientCert, a.roots
		if len(a.skip) > 0 {
			base.ClientAuth = tls.RequestClientCert
		}
		base.VerifyConnection = a.verifyShown
	}
	if o.Tickets {
		limitTickets(base, tickets, c.identity(pairs))
	}
	c.config = base
	if len(versions) == 0 {
		return
	}
	has := func(v string) bool { return slices.Contains(versions, v) }
	if has("TLSv1.1") {
		c.old = base.Clone()
		c.old.MinVersion, c.old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
		c.old.NextProtos = slices.DeleteFunc(slices.Clone(o.Protocols), func(p string) bool { return p == "h2" }) // RFC 9113 section 9.2
	}
	switch {
	case has("TLSv1.2") && has("TLSv1.3"):
		base.MinVersion = tls.VersionTLS12
	case has("TLSv1.3"):
		base.MinVersion = tls.VersionTLS13
	case has("TLSv1.2"):
		base.MinVersion, base.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	default:
		c.config = nil
	}
}

// choose returns the first pair that the client understands. Whether the certificate has the name is for the client to judge.
func choose(hello *tls.ClientHelloInfo, pairs []tls.Certificate) *tls.Certificate {
	unnamed := *hello
	unnamed.ServerName = ""
	for i := range pairs {
		if unnamed.SupportsCertificate(&pairs[i]) == nil {
			return &pairs[i]
		}
	}
	return &pairs[0]
}

// identity tells documents apart by what a session that was begun with one of them proves.
func (c *Certificate) identity(pairs []tls.Certificate) []byte {
	h := sha256.New()
	h.Write([]byte(c.key))
	for _, p := range pairs {
		for _, der := range p.Certificate {
			sum := sha256.Sum256(der)
			h.Write(sum[:])
		}
	}
	if c.Client != nil {
		h.Write(c.Client.identity[:])
	}
	return h.Sum(nil)
}

// limitTickets makes sessions of cfg resumable under an equal identity only. The keys of tickets
// are the same for all: with them alone, a client that has proved itself for one name could resume its session under another.
func limitTickets(cfg *tls.Config, tickets *Tickets, identity []byte) {
	cfg.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, identity)
		return tickets.encrypt(cs, s)
	}
	cfg.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := tickets.decrypt(ticket, cs)
		if s == nil || err != nil {
			return nil, err
		}
		for i, extra := range s.Extra {
			if bytes.Equal(extra, identity) {
				s.Extra = slices.Delete(s.Extra, i, i+1) // the next ticket of this client is marked anew
				return s, nil
			}
		}
		return nil, nil
	}
}

// certificates are the names that one snapshot has certificates for. Like the route table, they are persistent.
type certificates struct {
	exact, wild trie[[]*Certificate] // wild: by what stands behind the first label, "" for every name
	clients     int                  // how many of them ask clients for certificates
	fallback    *Certificate
}

func newCertificates(o TLSOptions, tickets *Tickets) certificates {
	cs := certificates{exact: newTrie[[]*Certificate](), wild: newTrie[[]*Certificate]()}
	if o.Default != nil {
		cs.fallback = &Certificate{}
		cs.fallback.configure(o, tickets, []tls.Certificate{*o.Default}, nil)
	}
	return cs
}

// slot returns where the certificates for a name of a document are listed.
func (cs *certificates) slot(name string) (t *trie[[]*Certificate], key string) {
	if rest, wild := strings.CutPrefix(name, "*"); wild {
		return &cs.wild, rest
	}
	return &cs.exact, name
}

// with returns the certificates together with c. Of several documents with the same name, the one whose key comes first is served.
func (cs certificates) with(c *Certificate) certificates {
	for _, name := range c.names {
		t, key := cs.slot(name)
		list, _ := t.getString(key)
		i, _ := slices.BinarySearchFunc(list, c, func(a, b *Certificate) int { return strings.Compare(a.key, b.key) })
		*t = t.with(key, slices.Insert(slices.Clone(list), i, c))
	}
	if c.Client != nil && len(c.names) > 0 {
		cs.clients++
	}
	return cs
}

// without returns the certificates except for c, which is among them.
func (cs certificates) without(c *Certificate) certificates {
	for _, name := range c.names {
		t, key := cs.slot(name)
		list, _ := t.getString(key)
		list = slices.DeleteFunc(slices.Clone(list), func(other *Certificate) bool { return other == c })
		if len(list) == 0 {
			*t = t.without(key)
			continue
		}
		*t = t.with(key, list)
	}
	if c.Client != nil && len(c.names) > 0 {
		cs.clients--
	}
	return cs
}

// Certificate returns what a client is shown that asks for name, which is in lower case: the certificate of exactly that name, else of
// the wildcard in the place of its first label, else of "*", else the default one. Nil means that the name is unknown here.
func (s *Snapshot) Certificate(name []byte) *Certificate {
	cs := &s.certificates
	if list, ok := cs.exact.get(name); ok {
		return list[0]
	}
	if i := bytes.IndexByte(name, '.'); i > 0 {
		if list, ok := cs.wild.get(name[i:]); ok {
			return list[0]
		}
	}
	if list, ok := cs.wild.get(nil); ok {
		return list[0]
	}
	return cs.fallback
}

// AsksClients says whether any name asks clients for certificates.
func (s *Snapshot) AsksClients() bool { return s.certificates.clients > 0 }

// stageCertificates puts the next versions of the edited ssl documents into the place of those in force.
func (st *Stage) stageCertificates() error {
	for _, key := range slices.Sorted(maps.Keys(st.edits)) {
		if !strings.HasPrefix(key, sslFolder) {
			continue
		}
		got, keep, err := settle(st, key, false, func(raw []byte) (*Certificate, error) { return st.compileCertificate(key, raw) })
		if err != nil {
			return err
		}
		if keep {
			delete(st.edits, key) // upstreams that show it go on with the version in force
			continue
		}
		if old := st.c.certs[key]; old != nil {
			st.certificates = st.certificates.without(old)
		}
		if got != nil {
			st.certificates = st.certificates.with(got)
		}
		st.certs[key] = got
	}
	return nil
}

// commitCertificates puts them in force.
func (st *Stage) commitCertificates() {
	c := st.c
	for key, got := range st.certs {
		if got == nil {
			delete(c.certs, key)
		} else {
			c.certs[key] = got
		}
		c.commitUnit(key, nil, nil, nil)
	}
	c.certificates = st.certificates
}
