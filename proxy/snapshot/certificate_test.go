package snapshot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// issued is a certificate with its key.
type issued struct {
	cert, key string // PEM
	leaf      *x509.Certificate
	signer    crypto.Signer
}

// issue makes a certificate. Without a parent it signs itself; names are those of servers, none make a client's or an authority's.
func issue(t testing.TB, parent *issued, useRSA bool, names ...string) *issued {
	t.Helper()
	var signer crypto.Signer
	var err error
	if useRSA {
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	tpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: strings.Join(names, " ") + serial.String()}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: len(names) == 0, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	above, by := tpl, signer
	if parent != nil {
		above, by = parent.leaf, parent.signer
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, above, signer.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{
		cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})),
		leaf: leaf, signer: signer,
	}
}

// ssl is a document with the pair and whatever more says, such as `"status":0`.
func ssl(i *issued, snis string, more ...string) string {
	raw, _ := json.Marshal(map[string]string{"cert": i.cert, "key": i.key})
	doc := strings.TrimSuffix(string(raw), "}")
	if snis != "" {
		names, _ := json.Marshal(strings.Fields(snis))
		doc += `,"snis":` + string(names)
	}
	return strings.Join(append([]string{doc}, more...), ",") + "}"
}

func quoted(s string) string {
	raw, _ := json.Marshal(s)
	return string(raw)
}

// served returns the key of the document whose certificate a client gets that asks for name.
func (r *rig) served(name string) string {
	c := r.live.Current().Certificate([]byte(name))
	switch {
	case c == nil:
		return "none"
	case c.key == "":
		return "default"
	}
	return strings.TrimPrefix(c.key, sslFolder)
}

func TestServerNames(t *testing.T) {
	r, pair := newRig(t), issue(t, nil, false, "any.test")
	table := func(want map[string]string) {
		t.Helper()
		for name, key := range want {
			if got := r.served(name); got != key {
				t.Errorf("%q is served by %s, want %s", name, got, key)
			}
		}
	}
	r.put(
		"ssls/a", ssl(pair, "A.test b.test"),
		"ssls/w", ssl(pair, "*.Test"),
		"ssls/deep", ssl(pair, "*.x.test"),
		"ssls/off", ssl(pair, "off.test", `"status":0`),
		"ssls/client", ssl(pair, "client.test", `"type":"client"`),
		"ssls/odd", ssl(pair, "*odd.test"),
	)
	before := map[string]string{
		"a.test": "a", "b.test": "a", "c.test": "w", "off.test": "w", "client.test": "w", "test": "none", "x.test": "w", "y.x.test": "deep",
		"z.y.x.test": "none", "xodd.test": "w", "": "none", ".test": "none", "*.test": "w", "other": "none",
	}
	table(before)

	t.Run("one of several with the same name", func(t *testing.T) {
		r.put("ssls/0", ssl(pair, "a.test"))
		table(map[string]string{"a.test": "0", "b.test": "a"})
		r.put("ssls/zz", ssl(pair, "a.test"))
		table(map[string]string{"a.test": "0"})
		r.put("ssls/0", "")
		table(map[string]string{"a.test": "a"})
		r.put("ssls/a", "", "ssls/zz", ssl(pair, "*"))
		table(map[string]string{"a.test": "w", "other": "zz", "p.q.r": "zz", "": "zz"})
		r.put("ssls/a", ssl(pair, "a.test b.test"), "ssls/zz", "")
		table(before)
	})
	t.Run("everything goes", func(t *testing.T) {
		r.put("ssls/a", "", "ssls/w", "", "ssls/deep", "", "ssls/off", "", "ssls/client", "", "ssls/odd", "")
		for name := range before {
			table(map[string]string{name: "none"})
		}
		cs := r.live.Current().certificates
		if cs.exact.size+cs.wild.size+cs.clients != 0 || len(r.c.certs) != 0 {
			t.Errorf("something is left: %+v, %d", cs, len(r.c.certs))
		}
	})
}

// One edit makes one certificate; snapshots that were there before do not see it.
func TestOneEditOneCertificate(t *testing.T) {
	r, pair := newRig(t), issue(t, nil, false, "any.test")
	r.put("ssls/1", ssl(pair, "one.test"), "ssls/2", ssl(pair, "two.test"))
	old := r.live.Current()
	one, two := old.Certificate([]byte("one.test")), old.Certificate([]byte("two.test"))
	r.put("ssls/1", ssl(pair, "one.test", `"desc":"d"`))
	now := r.live.Current()
	if old.Certificate([]byte("one.test")) != one || now.Certificate([]byte("one.test")) == one {
		t.Error("the edited certificate changed in the wrong snapshot")
	}
	if now.Certificate([]byte("two.test")) != two {
		t.Error("a certificate was compiled that nobody has edited")
	}
	r.put("routes/1", `{"uri":"/a","upstream":`+up("1", "")+`}`)
	if r.live.Current().Certificate([]byte("one.test")) != now.Certificate([]byte("one.test")) {
		t.Error("a route's edit has compiled a certificate")
	}
}

func TestBrokenCertificates(t *testing.T) {
	r, pair, other := newRig(t), issue(t, nil, false, "any.test"), issue(t, nil, false, "other.test")
	garbage := *pair
	garbage.cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	mixed := *pair
	mixed.key = other.key
	r.put("ssls/1", ssl(pair, "a.test"))
	for want, doc := range map[string]string{
		"pair 1":                       ssl(&garbage, "a.test"),
		"client.ca":                    ssl(pair, "a.test", `"client":{"ca":"nothing"}`),
		"skip_mtls_uri_regex":          ssl(pair, "a.test", `"client":{"ca":`+quoted(pair.cert)+`,"skip_mtls_uri_regex":["("]}`),
		"the environment variable NO_": ssl(&issued{cert: pair.cert, key: "$env://NO_SUCH_KEY"}, "a.test"),
	} {
		r.refuse(want, "ssls/1", doc)
		if left := r.offer("ssls/1", doc); !slices.Equal(left, []string{"ssls/1"}) || r.served("a.test") != "1" {
			t.Errorf("%s: left out %v, a.test is served by %s", want, left, r.served("a.test"))
		}
	}
	// Who may refuse such a pair has let it pass. There is nothing to serve it with.
	st, err := r.c.Stage(r.lookup, edits([]string{"ssls/2", ssl(&mixed, "b.test")}), false)
	if err != nil || len(st.Warnings) != 1 {
		t.Fatalf("%v, warnings %q", err, st.Warnings)
	}
	r.commit(st, nil)
	if got := r.served("b.test"); got != "none" {
		t.Errorf("b.test is served by %s", got)
	}
	if left := r.offer("ssls/3", ssl(&mixed, "c.test")); len(left) != 1 {
		t.Errorf("left out %v", left)
	}
	if r.offer("ssls/3", ssl(pair, "c.test")); r.served("c.test") != "3" {
		t.Error("a mended document is not in force")
	}
	if _, err := r.c.Stage(r.lookup, edits([]string{"ssls/2", ssl(&issued{cert: pair.cert, key: pair.key[:80] + pair.key[90:]}, "b.test")}), false); err == nil {
		t.Error("a broken key was taken")
	} else if strings.Contains(err.Error(), pair.key[40:70]) {
		t.Errorf("the error shows the key: %v", err)
	}
}

func TestReferencesInCertificates(t *testing.T) {
	pair := issue(t, nil, false, "any.test")
	t.Setenv("TEST_TLS_KEY", pair.key)
	r := newRig(t)
	r.put("ssls/1", ssl(&issued{cert: pair.cert, key: "$env://TEST_TLS_KEY"}, "a.test"))
	if r.served("a.test") != "1" {
		t.Error("the key was not found in the environment")
	}
}

// handshake connects a client with what is served for its name, and returns both ends' view.
func handshake(t testing.TB, c *Certificate, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	base := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return c.Config(hello), nil }}
	result := make(chan error, 1)
	go func() {
		err := tls.Server(there, base).Handshake()
		if err != nil {
			_ = there.Close()
		}
		result <- err
	}()
	client.InsecureSkipVerify = true
	tc := tls.Client(here, client)
	err := tc.Handshake()
	if err != nil {
		_ = here.Close()
	}
	if server := <-result; err == nil {
		err = server
	}
	return tc.ConnectionState(), err
}

func TestVersions(t *testing.T) {
	pair := issue(t, nil, false, "any.test")
	const v11, v12, v13 = tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13
	for _, tt := range []struct {
		protocols string
		min, max  uint16 // of the client
		want      uint16 // 0: no handshake
	}{
		{``, v12, v13, v13}, {``, v12, v12, v12}, {``, v11, v11, 0},
		{`"TLSv1.2"`, v11, v13, v12}, {`"TLSv1.2"`, v13, v13, 0},
		{`"TLSv1.3"`, v12, v13, v13}, {`"TLSv1.3"`, v12, v12, 0},
		{`"TLSv1.2","TLSv1.3"`, v11, v12, v12}, {`"TLSv1.2","TLSv1.3"`, v11, v11, 0},
		{`"TLSv1.1","TLSv1.3"`, v11, v13, v13}, {`"TLSv1.1","TLSv1.3"`, v11, v11, v11}, {`"TLSv1.1","TLSv1.3"`, v12, v12, 0},
		{`"TLSv1.1"`, v11, v13, v11}, {`"TLSv1.1"`, v12, v13, 0},
	} {
		r := newRig(t)
		r.put("ssls/1", ssl(pair, "a.test", `"ssl_protocols":[`+tt.protocols+`]`))
		state, err := handshake(t, r.live.Current().Certificate([]byte("a.test")), &tls.Config{MinVersion: tt.min, MaxVersion: tt.max, ServerName: "a.test"})
		if (err == nil) != (tt.want != 0) || err == nil && state.Version != tt.want {
			t.Errorf("[%s] for %x to %x: version %x, %v; want %x", tt.protocols, tt.min, tt.max, state.Version, err, tt.want)
		}
	}
}

// Every client gets a certificate whose signature it understands, the cheaper one where there is a choice, whatever its names.
func TestPairByClient(t *testing.T) {
	short, long := issue(t, nil, false, "not-the-name.test"), issue(t, nil, true, "not-the-name.test")
	r := newRig(t)
	r.put("ssls/1", ssl(long, "a.test", `"certs":[`+quoted(short.cert)+`],"keys":[`+quoted(short.key)+`]`))
	for want, suites := range map[*issued][]uint16{
		long:  {tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		short: {tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	} {
		state, err := handshake(t, r.live.Current().Certificate([]byte("a.test")), &tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12, CipherSuites: suites})
		if err != nil || !state.PeerCertificates[0].Equal(want.leaf) {
			t.Errorf("%v: %v, %v", suites, err, state.PeerCertificates)
		}
	}
}

func TestClientChains(t *testing.T) {
	root := issue(t, nil, false)
	first := issue(t, root, false)
	second := issue(t, first, false)
	chain := func(list ...*issued) (certs []*x509.Certificate) {
		for _, i := range list {
			certs = append(certs, i.leaf)
		}
		return certs
	}
	direct, one, two, foreign := issue(t, root, false, "c"), issue(t, first, false, "c"), issue(t, second, false, "c"), issue(t, nil, false, "c")
	r, server := newRig(t), issue(t, nil, false, "a.test")
	for depth, want := range map[string][]bool{"0": {true, false, false}, "1": {true, true, false}, "2": {true, true, true}} {
		r.put("ssls/1", ssl(server, "a.test", `"client":{"ca":`+quoted(root.cert)+`,"depth":`+depth+`}`))
		a := r.live.Current().Certificate([]byte("a.test")).Client
		for i, c := range [][]*x509.Certificate{chain(direct), chain(one, first), chain(two, second, first)} {
			if err := a.Verify(c); (err == nil) != want[i] {
				t.Errorf("depth %s, %d certificates between: %v", depth, i, err)
			}
		}
		for name, c := range map[string][]*x509.Certificate{"none": nil, "foreign": chain(foreign), "incomplete": chain(two, second)} {
			if a.Verify(c) == nil {
				t.Errorf("depth %s: %s passed", depth, name)
			}
		}
	}
	if !r.live.Current().AsksClients() {
		t.Error("nobody asks clients")
	}
	if r.put("ssls/1", ssl(server, "a.test")); r.live.Current().AsksClients() {
		t.Error("somebody still asks clients")
	}
}

// cert returns what connections to the node show.
func (r *rig) shows(pair *issued) bool {
	for key := range r.refs() {
		if strings.Contains(key, strings.TrimSpace(pair.cert)) {
			return true
		}
	}
	return false
}

// A change of the certificate reaches the upstreams that show it, whoever holds them, and nobody else's state blinks.
func TestClientCertificateByID(t *testing.T) {
	r := newRig(t)
	a, b := issue(t, nil, false, "a"), issue(t, nil, false, "b")
	const byID = `,"scheme":"https","tls":{"client_cert_id":"c"}`
	client := func(i *issued) string { return ssl(i, "", `"type":"client"`) }
	uses := map[string][]string{
		"inline":  {"routes/1", `{"uri":"/x","upstream":` + up("1", byID) + `}`},
		"shared":  {"upstreams/u", up("1", byID), "routes/1", `{"uri":"/x","upstream_id":"u"}`},
		"service": {"services/s", `{"plugins":{"mid":{"state":"s"}},"upstream":` + up("1", byID) + `}`, "routes/1", `{"uri":"/x","service_id":"s"}`},
		"plugin":  {"routes/1", `{"uri":"/x","plugins":{"mid":{"upstream":` + up("1", byID) + `}}}`},
	}
	for name, docs := range uses {
		t.Run(name, func(t *testing.T) {
			r.put(append([]string{"ssls/c", client(a)}, docs...)...)
			if !r.shows(a) {
				t.Fatal("the certificate is not shown")
			}
			var state any
			if name == "service" {
				state = r.plugin("/x", "mid").state
			}
			r.put("ssls/c", client(b))
			r.collect()
			if r.shows(a) || !r.shows(b) {
				t.Error("the new certificate is not shown")
			}
			if name == "service" && r.plugin("/x", "mid").state != state {
				t.Error("a plugin has lost its state")
			}
			if left := r.offer("ssls/c", ssl(&issued{cert: "x", key: "y"}, "", `"type":"client"`)); len(left) != 1 || !r.shows(b) {
				t.Errorf("left out %v; the version in force is not shown any more", left)
			}
			r.put("ssls/c", "")
			if r.shows(b) {
				t.Error("a certificate is shown that is gone")
			}
			if r.put("ssls/c", client(a)); !r.shows(a) {
				t.Error("a certificate that came back is not shown")
			}
			var gone []string
			for i := 0; i < len(docs); i += 2 {
				gone = append(gone, docs[i], "")
			}
			r.put(append(gone, "ssls/c", "")...)
			if len(r.c.users) != 0 || len(r.refs()) != 0 {
				t.Errorf("left behind: %v %v", r.c.users, r.refs())
			}
		})
	}
}
