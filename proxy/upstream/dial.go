package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
)

// dialer opens connections to one endpoint.
type dialer struct {
	host     string
	port     string
	tls      *tls.Config // nil = plain
	resolver *Resolver
	failed   func(endpoint string, f *fault.Fault, err error)
}

// connect resolves, dials and shakes hands, all before ctx ends; the handshake takes no longer than handshake, when that is not 0.
func (d *dialer) connect(ctx context.Context, handshake time.Duration) (*conn, *fault.Fault) {
	addrs, err := d.resolver.lookup(ctx, d.host)
	if err != nil {
		return nil, d.report(fault.UnknownNode, err)
	}
	nc, err := d.dialOne(ctx, addrs)
	if err != nil {
		switch {
		case isTimeout(err) || ctx.Err() != nil:
			return nil, d.report(fault.ConnectTimeout, err)
		case isSocketShortage(err):
			return nil, d.report(fault.NoUpstreamSocket, err)
		}
		return nil, d.report(fault.ConnectFailed, err)
	}
	c := &conn{socket: netpoll.NewConn(nc)}
	c.Conn = c.socket
	if c.fd, err = descriptor(nc); err != nil {
		_ = nc.Close()
		return nil, d.report(fault.ConnectFailed, err)
	}
	if d.tls == nil {
		return c, nil
	}
	c.records = newRecordReader(c.socket)
	tc := tls.Client(c.records, d.tls)
	if handshake > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshake)
		defer cancel()
	}
	if err = tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			return nil, d.report(fault.TLSTimeout, err)
		}
		return nil, d.report(fault.TLSFailed, err)
	}
	c.Conn = tc
	return c, nil
}

// minShare is the least time that one address of several gets before the next one is tried.
const minShare = 250 * time.Millisecond

// dialOne tries the addresses one after another until one answers. An address that does not answer takes its share of the time, no
// more, so that the others get their turn.
func (d *dialer) dialOne(ctx context.Context, addrs []netip.Addr) (nc net.Conn, err error) {
	end, bounded := ctx.Deadline()
	for i, a := range addrs {
		var nd net.Dialer
		if others := len(addrs) - i; bounded && others > 1 {
			now := time.Now()
			nd.Deadline = now.Add(max(end.Sub(now)/time.Duration(others), minShare))
		}
		nc, err = nd.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), d.port))
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return nc, err
}

func (d *dialer) report(f *fault.Fault, err error) *fault.Fault {
	if d.failed != nil {
		d.failed(net.JoinHostPort(d.host, d.port), f, err)
	}
	return f
}

func isSocketShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// TLSOptions are what a TLS connection to an upstream is verified and identified with.
type TLSOptions struct {
	// ServerName is sent as SNI, unless it is an address, and must be in the certificate.
	ServerName string
	// Verify checks the certificate chain and name; the default is to do so.
	Verify bool
	// Roots replaces the system's certificate authorities, nil = the system's.
	Roots *x509.CertPool
	// Certificates are presented when the upstream asks for one.
	Certificates []tls.Certificate
}

func (o TLSOptions) config() *tls.Config {
	return &tls.Config{
		ServerName:         o.ServerName,
		RootCAs:            o.Roots,
		InsecureSkipVerify: !o.Verify, // #nosec G402 -- an explicit setting of the operator
		Certificates:       o.Certificates,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // one endpoint, one name
	}
}

func portText(port int) string { return strconv.Itoa(port) }
