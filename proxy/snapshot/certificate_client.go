package snapshot

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/expr"
	"headgate/proxy/phase"
)

// ClientAuth says which certificates the clients of a name must show. It is immutable.
type ClientAuth struct {
	roots    *x509.CertPool
	depth    int
	skip     expr.Patterns // of the paths that need no certificate
	identity [sha256.Size]byte
}

var (
	errNoCA  = errors.New("client.ca: no PEM certificate found")
	errDepth = errors.New("the chain of the client's certificate is longer than client.depth allows")
	errBare  = errors.New("no certificate was shown")
)

func newClientAuth(doc *resource.SSLClient) (*ClientAuth, error) {
	a := &ClientAuth{roots: x509.NewCertPool(), depth: doc.Depth}
	if !a.roots.AppendCertsFromPEM([]byte(doc.CA)) {
		return nil, errNoCA
	}
	var err error
	if a.skip, err = expr.CompilePatterns(doc.SkipURIs, false); err != nil {
		return nil, fmt.Errorf("client.skip_mtls_uri_regex: %w", err)
	}
	h := sha256.New()
	h.Write([]byte(doc.CA))
	_ = binary.Write(h, binary.BigEndian, int64(doc.Depth)) // to a hash: it never fails
	h.Sum(a.identity[:0])
	return a, nil
}

// Skips says whether the path of x needs no certificate.
func (a *ClientAuth) Skips(x *phase.Exchange) bool {
	skips, err := a.skip.Match(x.Request.Path)
	return skips && err == nil
}

// Verify judges the chain that a client has shown, its own certificate first. At most depth certificates may stand between that one and
// an authority (contract section 1.7).
func (a *ClientAuth) Verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errBare
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	for _, path := range paths {
		if len(path)-2 <= a.depth {
			return nil
		}
	}
	return errDepth
}

// verifyShown judges the client of a handshake, also of one that resumes a session. That there is a certificate at all is for crypto/tls to
// demand.
func (a *ClientAuth) verifyShown(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	return a.Verify(cs.PeerCertificates)
}

// clientCertificate puts the pair that tls.client_cert_id names into the place of the upstream's own. Without such a document the
// connections are made without one, which the upstream may refuse: users says which unit is compiled anew when it comes.
func (st *Stage) clientCertificate(doc *resource.Upstream, user string) {
	t := doc.TLS
	if t == nil || t.ClientCertID == "" {
		return
	}
	key := sslFolder + t.ClientCertID
	st.depend(user, key)
	t.ClientCert, t.ClientKey = "", ""
	var ssl *resource.SSL
	err := errors.New("it does not exist")
	if raw := st.get(key); raw != nil {
		if ssl, err = resource.DecodeSSL(raw); err == nil {
			err = st.resolveSSL(ssl)
		}
		if err == nil && ssl.Type != "client" {
			err = errors.New("wrong ssl type")
		}
		if err == nil {
			_, err = keyPairs(ssl)
		}
	}
	if err != nil {
		st.warn("%s shows upstreams no client certificate: %s: %v", user, key, err)
		return
	}
	t.ClientCert, t.ClientKey = ssl.Pairs[0].Cert, ssl.Pairs[0].Key
}

// stageShown compiles the shared upstreams in force anew whose connections show a certificate that is edited.
func (st *Stage) stageShown() error {
	for key := range st.edits {
		if !strings.HasPrefix(key, sslFolder) {
			continue
		}
		for user := range st.c.users[key] {
			if _, edited := st.edits[user]; !edited && st.c.upstreams[user] != nil {
				st.shown = append(st.shown, user)
			}
		}
	}
	slices.Sort(st.shown)
	st.shown = slices.Compact(st.shown)
	for _, key := range st.shown {
		if err := st.compileShared(key, st.docs(key)); err != nil {
			if !st.lenient {
				return &Problem{key, err}
			}
			st.Warnings = append(st.Warnings, fmt.Sprintf("%s goes on with the client certificate that it had: %v", key, err))
		}
	}
	return nil
}
