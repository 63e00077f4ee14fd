package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Client asks name servers, one after another until one gives a definite answer: over UDP, and over TCP when the answer is too long for
// that. The server that answered last is asked first the next time.
type Client struct {
	// Servers are their addresses with port.
	Servers []string
	// Timeout is that of one question to one server; default 2 s.
	Timeout time.Duration
	// Rounds is how often the servers are gone through; default 2.
	Rounds int
	// Stream asks over TCP only.
	Stream bool

	last atomic.Uint32 // the server that answered last
}

const (
	defaultTimeout = 2 * time.Second
	defaultRounds  = 2
)

// ask returns what the servers know of name, which is absolute. Aliases are followed.
func (c *Client) ask(ctx context.Context, name string, t dnsmessage.Type) (reply, error) {
	ttl := uint32(noTTL)
	for range maxAliases {
		r, err := c.askOne(ctx, name, t)
		r.ttl = min(r.ttl, ttl)
		if err != nil || r.alias == "" || !r.empty() {
			return r, err
		}
		name, ttl = r.alias, r.ttl // the server has left the rest to its client
	}
	return reply{}, errors.New(name + ": too many aliases")
}

func (c *Client) askOne(ctx context.Context, name string, t dnsmessage.Type) (reply, error) {
	text, err := dnsmessage.NewName(absolute(name))
	if err != nil {
		return reply{}, &noName{name, "cannot be a name", noTTL}
	}
	q := dnsmessage.Question{Name: text, Type: t, Class: dnsmessage.ClassINET}
	if _, err := appendQuery(make([]byte, 0, 512), 0, q, false); err != nil { // an empty label, or one that is too long
		return reply{}, &noName{name, "cannot be a name", noTTL}
	}
	rounds, first := c.Rounds, int(c.last.Load())
	if rounds == 0 {
		rounds = defaultRounds
	}
	err = errors.New("no name server")
	for try := range rounds * len(c.Servers) {
		at := (first + try) % len(c.Servers)
		r, e := c.exchange(ctx, c.Servers[at], q)
		var no *noName
		if e == nil || errors.As(e, &no) {
			c.last.Store(uint32(at))
			return r, e
		}
		if err = fmt.Errorf("%s: name server %s: %w", name, c.Servers[at], e); ctx.Err() != nil {
			break
		}
	}
	return reply{}, err
}

// absolute returns name with the dot at its end.
func absolute(name string) string {
	if name == "" || name[len(name)-1] != '.' {
		return name + "."
	}
	return name
}

// exchange asks one server. One that does not know the extension of RFC 6891 is asked without it.
func (c *Client) exchange(ctx context.Context, server string, q dnsmessage.Question) (reply, error) {
	r, err := c.exchangeWith(ctx, server, q, true)
	if errors.Is(err, errFormat) && ctx.Err() == nil {
		return c.exchangeWith(ctx, server, q, false)
	}
	return r, err
}

func (c *Client) exchangeWith(ctx context.Context, server string, q dnsmessage.Question, extended bool) (reply, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !c.Stream {
		r, err := c.overUDP(ctx, server, q, extended)
		if !errors.Is(err, errTruncated) {
			return r, err
		}
	}
	return c.overTCP(ctx, server, q, extended)
}

func (c *Client) overUDP(ctx context.Context, server string, q dnsmessage.Question, extended bool) (reply, error) {
	id := uint16(rand.Uint32())
	msg, err := appendQuery(make([]byte, 0, 512), id, q, extended)
	if err != nil {
		return reply{}, err
	}
	nc, err := dial(ctx, "udp", server)
	if err != nil {
		return reply{}, err
	}
	defer nc.close()
	if _, err := nc.Write(msg); err != nil {
		return reply{}, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := nc.Read(buf)
		if err != nil {
			return reply{}, err
		}
		if r, err := parse(buf[:n], id, q); err != errForeign {
			return r, err
		}
	}
}

func (c *Client) overTCP(ctx context.Context, server string, q dnsmessage.Question, extended bool) (reply, error) {
	id := uint16(rand.Uint32())
	msg, err := appendQuery(make([]byte, 0, 512), id, q, extended)
	if err != nil {
		return reply{}, err
	}
	nc, err := dial(ctx, "tcp", server)
	if err != nil {
		return reply{}, err
	}
	defer nc.close()
	if _, err := nc.Write(framed(msg)); err != nil {
		return reply{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(nc, size[:]); err != nil {
		return reply{}, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(nc, buf); err != nil {
		return reply{}, err
	}
	return parse(buf, id, q)
}

// bound is a connection whose reads and writes end with a context.
type bound struct {
	net.Conn
	unbind func() bool
}

func dial(ctx context.Context, network, server string) (*bound, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	return &bound{nc, context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })}, nil
}

func (b *bound) close() {
	b.unbind()
	_ = b.Close()
}
