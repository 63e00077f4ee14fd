// Package etcd keeps documents in etcd under APISIX's keys (contract section 8), so that several gateways, and APISIX itself, share
// one configuration. etcd 3.4 and newer.
//
// A document "routes/1" stands under "<prefix>/routes/1". Below the prefix, "headgate/fence/" is this package's own: keys there exist for
// minutes after a write whose outcome was unclear, and are no documents.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	defaultPrefix       = "/apisix"
	defaultTimeout      = 5 * time.Second
	defaultProgress     = 3 * time.Second
	defaultStartupRetry = 2
)

// Options of Open. Only Endpoints is required.
type Options struct {
	// Endpoints are the members' client URLs, all http or all https.
	Endpoints []string
	// Prefix is put before "/routes/1" and the like; "" = /apisix.
	Prefix string
	// Timeout bounds every exchange with etcd; 0 = 5 s. A write whose answer did not come in that time is looked for as long again.
	Timeout time.Duration
	// StartupRetry is the number of further tries that Open makes when etcd does not answer; 0 = 2, negative = none.
	StartupRetry int
	// Progress is how often a watch asks etcd to show that it is alive and current; 0 = 3 s. After three times of silence the watch
	// is set up anew.
	Progress time.Duration
	// User and Password are those of etcd's own authentication; "" = none.
	User, Password string
	// TLS refines how https endpoints are spoken to; nil = verified with the system's certificates.
	TLS *TLS
	// Keep decides what is a document; value is nil for a deletion. nil = Document.
	Keep func(key string, value []byte) bool

	pageSize int64 // of List; 0 = 1000
}

// TLS names PEM files. A client certificate is read again for every connection, so it can be renewed in place.
type TLS struct {
	CA         string // certificates to verify the server with; "" = the system's
	Cert, Key  string // client certificate; "" = none
	ServerName string // expected in the server's certificate; "" = the endpoint's host
	SkipVerify bool   // accept any server: whoever is in between reads and writes everything
}

// complete checks o and fills in the defaults.
func (o *Options) complete() error {
	if len(o.Endpoints) == 0 {
		return errors.New("no endpoints")
	}
	schemes := map[string]bool{}
	for _, endpoint := range o.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
			return fmt.Errorf("invalid endpoint %q, want http://host:port or https://host:port", redact(endpoint))
		}
		schemes[u.Scheme] = true
	}
	if len(schemes) > 1 {
		return errors.New("endpoints are partly http and partly https")
	}
	if o.TLS != nil && schemes["http"] {
		return errors.New("TLS is configured, but the endpoints are http")
	}
	if (o.User == "") != (o.Password == "") {
		return errors.New("user and password belong together")
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	o.Prefix = "/" + strings.Trim(o.Prefix, "/")
	if o.Prefix == "/" {
		return errors.New("the prefix is empty")
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Progress <= 0 {
		o.Progress = defaultProgress
	}
	switch {
	case o.StartupRetry == 0:
		o.StartupRetry = defaultStartupRetry
	case o.StartupRetry < 0:
		o.StartupRetry = 0
	}
	if o.Keep == nil {
		o.Keep = Document
	}
	if o.pageSize == 0 {
		o.pageSize = 1000
	}
	return nil
}

// redact keeps a password that stands in an endpoint out of the message.
func redact(endpoint string) string {
	if i := strings.LastIndexByte(endpoint, '@'); i >= 0 {
		return "..." + endpoint[i:]
	}
	return endpoint
}

// credentials returns what connections are secured with. gRPC would verify the endpoint's host whatever the configuration says.
func (t *TLS) credentials() (credentials.TransportCredentials, error) {
	c, err := t.config()
	if err != nil {
		return nil, err
	}
	if t.ServerName == "" {
		return credentials.NewTLS(c), nil
	}
	return named{credentials.NewTLS(c), t.ServerName}, nil
}

// named are credentials that expect the server to be name.
type named struct {
	credentials.TransportCredentials
	name string
}

func (n named) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return n.TransportCredentials.ClientHandshake(ctx, n.name, conn)
}

func (n named) Clone() credentials.TransportCredentials {
	return named{n.TransportCredentials.Clone(), n.name}
}

func (t *TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.SkipVerify}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("cert and key belong together")
	}
	if t.Cert != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
			return &pair, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}
