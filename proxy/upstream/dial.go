package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
)

// dialer opens connections to one endpoint.
type dialer struct {
	place
	host   string
	port   string
	tls    *tls.Config // nil = plain
	failed func(endpoint string, f *fault.Fault, err error)
}

// connect resolves, dials and shakes hands, all before ctx ends; the handshake takes no longer than handshake, when that is not 0. A ctx
// that is cancelled before its time says that the client has left, which is no failure of the endpoint.
func (d *dialer) connect(ctx context.Context, handshake time.Duration) (*conn, *fault.Fault) {
	addrs, from, err := d.addresses(ctx)
	switch {
	case err != nil && abandoned(ctx):
		return nil, fault.ClientGone
	case errors.Is(err, errRefused):
		return nil, d.report(fault.RefusedNode, err)
	case err != nil:
		return nil, d.report(fault.UnknownNode, err)
	}
	nc, err := d.dialOne(ctx, addrs)
	if err != nil {
		switch {
		case abandoned(ctx):
			return nil, fault.ClientGone
		case isTimeout(err) || ctx.Err() != nil:
			return nil, d.report(fault.ConnectTimeout, err)
		case isSocketShortage(err):
			return nil, d.report(fault.NoUpstreamSocket, err)
		}
		return nil, d.report(fault.ConnectFailed, err)
	}
	c := &conn{socket: netpoll.NewConn(nc), remote: remoteOf(nc), from: from}
	c.Conn = c.socket
	if c.fd, err = descriptor(nc); err != nil {
		_ = nc.Close()
		return nil, d.report(fault.ConnectFailed, err)
	}
	c.expect(peerPatience) // not before the dial, which has a clock of its own
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
		switch {
		case abandoned(ctx):
			return nil, fault.ClientGone
		case ctx.Err() != nil:
			return nil, d.report(fault.TLSTimeout, err)
		}
		return nil, d.report(handshakeFault(err), err)
	}
	c.Conn = tc
	return c, nil
}

// abandoned says that ctx was cancelled, by something else than its own clock.
func abandoned(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

const (
	// nextAddress is how long an address has for itself before the next one is tried beside it (RFC 8305 section 5).
	nextAddress = 250 * time.Millisecond
	// mostAddresses bounds how many addresses are tried for one connection.
	mostAddresses = 8

	// peerPatience is how long the other end may leave unacknowledged what was sent to it, before the connection counts as dead (RFC 5482):
	// the host may be gone, or a box between have forgotten the connection. Where nothing is under way the kernel asks, from askPeer on and
	// then every askPeerAgain, and the same patience holds.
	peerPatience = 10 * time.Second
	askPeer      = 4 * time.Second
	askPeerAgain = 2 * time.Second
)

// dialOne connects to one of the addresses: to the first that answers, when they are tried one after another, the next one as soon as one has
// failed or has kept silent for a while.
func (d *dialer) dialOne(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	dial := func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		nd := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: askPeer, Interval: askPeerAgain, Count: int(peerPatience / askPeerAgain)}}
		return nd.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), d.port))
	}
	if len(addrs) == 1 {
		return dial(ctx, addrs[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addrs = addrs[:min(len(addrs), mostAddresses)]
	type outcome struct {
		nc  net.Conn
		err error
	}
	outcomes := make(chan outcome, len(addrs))
	patience := time.NewTimer(nextAddress)
	defer patience.Stop()
	begun, ended := 0, 0
	begin := func() {
		if begun < len(addrs) {
			a := addrs[begun]
			begun++
			go func() {
				nc, err := dial(ctx, a)
				outcomes <- outcome{nc, err}
			}()
			patience.Reset(nextAddress)
		}
	}
	begin()
	for {
		select {
		case o := <-outcomes:
			ended++
			if o.err == nil {
				late := begun - ended
				go func() { // who comes too late is closed
					for range late {
						if o := <-outcomes; o.err == nil {
							_ = o.nc.Close()
						}
					}
				}()
				return o.nc, nil
			}
			if begin(); begun == ended {
				return nil, o.err
			}
		case <-patience.C:
			begin()
		}
	}
}

// remoteOf returns the address at the other end.
func remoteOf(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
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

// handshakeFault is what the end of a handshake with err comes from.
func handshakeFault(err error) *fault.Fault {
	var (
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fault.TLSExpired
	case errors.As(err, &name):
		return fault.TLSWrongName
	case errors.As(err, &authority):
		return fault.TLSUntrusted
	case strings.Contains(err.Error(), "protocol version"): // crypto/tls has no type for it, be it our refusal or an alert
		return fault.TLSVersion
	}
	return fault.TLSFailed
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
