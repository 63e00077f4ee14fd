package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
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

// connect resolves, dials and shakes hands, all before ctx ends. Addresses are tried one after another.
func (d *dialer) connect(ctx context.Context) (*conn, *fault.Fault) {
	addrs, err := d.resolver.lookup(ctx, d.host)
	if err != nil || len(addrs) == 0 {
		return nil, d.report(fault.UnknownNode, err)
	}
	var nc net.Conn
	for _, a := range addrs {
		var nd net.Dialer
		if nc, err = nd.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), d.port)); err == nil {
			break
		}
	}
	if err != nil {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil:
			return nil, d.report(fault.ConnectTimeout, err)
		case isSocketShortage(err):
			return nil, d.report(fault.NoUpstreamSocket, err)
		}
		return nil, d.report(fault.ConnectFailed, err)
	}
	c := &conn{Conn: netpoll.NewConn(nc)}
	if c.fd, err = descriptor(nc); err != nil {
		_ = nc.Close()
		return nil, d.report(fault.ConnectFailed, err)
	}
	if d.tls == nil {
		return c, nil
	}
	c.tls = newRecordReader(c.Conn)
	tc := tls.Client(c.tls, d.tls)
	if err = tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			return nil, d.report(fault.ConnectTimeout, err)
		}
		return nil, d.report(fault.TLSFailed, err)
	}
	c.Conn = tc
	return c, nil
}

func (d *dialer) report(f *fault.Fault, err error) *fault.Fault {
	if d.failed != nil {
		d.failed(net.JoinHostPort(d.host, d.port), f, err)
	}
	return f
}

// Resolver turns names into addresses and remembers them. A name that cannot be refreshed keeps its last good addresses for an hour.
type Resolver struct {
	// Refresh is how long an answer is fresh; the next dial after it asks again.
	Refresh time.Duration
	// Lookup asks the system; tests replace it.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	mu    sync.Mutex
	names map[string]*resolved
}

type resolved struct {
	mu    sync.Mutex // held while one caller asks; the others wait for the answer
	addrs []netip.Addr
	at    time.Time
	turn  atomic.Uint32
}

const staleFor = time.Hour

// NewResolver returns a resolver that asks the operating system.
func NewResolver(refresh time.Duration) *Resolver {
	return &Resolver{Refresh: refresh, names: map[string]*resolved{}, Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
}

// lookup returns the addresses of host, starting with another one each time.
func (r *Resolver) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	r.mu.Lock()
	e := r.names[host]
	if e == nil {
		e = &resolved{}
		r.names[host] = e
	}
	r.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.addrs) == 0 || time.Since(e.at) > r.Refresh {
		addrs, err := r.Lookup(ctx, host)
		switch {
		case err == nil && len(addrs) > 0:
			e.addrs, e.at = addrs, time.Now()
		case len(e.addrs) == 0 || time.Since(e.at) > staleFor:
			if err == nil {
				err = fmt.Errorf("no address for %q", host)
			}
			return nil, err
		}
	}
	out := make([]netip.Addr, 0, len(e.addrs))
	first := int(e.turn.Add(1)-1) % len(e.addrs)
	for i := range e.addrs {
		out = append(out, e.addrs[(first+i)%len(e.addrs)].Unmap())
	}
	return out, nil
}

// TLSOptions are what a TLS connection to an upstream is verified and identified with.
type TLSOptions struct {
	// ServerName is sent as SNI and must be in the certificate.
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
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
}

func portText(port int) string { return strconv.Itoa(port) }
