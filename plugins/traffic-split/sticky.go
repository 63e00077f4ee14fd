package trafficsplit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"headgate/balancer"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// stickyConfig says what keeps a client with its branch.
type stickyConfig struct {
	key    string // a template; "" without one
	cookie *cookieConfig
}

type cookieConfig struct {
	name string
	ttl  int64 // seconds; 0: until the browser is closed
}

// readSticky reads the member sticky of doc, which satisfies the schema; nil when there is none.
func readSticky(doc map[string]any) *stickyConfig {
	m, ok := doc["sticky"].(map[string]any)
	if !ok {
		return nil
	}
	c := &stickyConfig{}
	c.key, _ = m["key"].(string)
	if cookie, ok := m["cookie"].(map[string]any); ok {
		c.cookie = &cookieConfig{ttl: whole(cookie["ttl"])}
		c.cookie.name, _ = cookie["name"].(string)
	}
	return c
}

var errConstantKey = errors.New("sticky: key has no variable in it, so that all requests would go to one branch")

// sticky is what keeps a client with its branch: the value of a template, or without one a cookie.
type sticky struct {
	rendezvous *balancer.Rendezvous
	key        *vars.Template // nil: none
	cookie     *cookie        // nil: none
}

// newSticky compiles c for the branches called names.
func newSticky(c *stickyConfig, names []string, weights []uint64, slot func() int) (*sticky, error) {
	s := &sticky{rendezvous: balancer.NewRendezvous(names, weights)}
	if c.key != "" {
		t, err := vars.Compile(c.key)
		if err != nil {
			return nil, fmt.Errorf("sticky: key: %w", err)
		}
		if _, static := t.Static(); static {
			return nil, errConstantKey
		}
		if name, found := t.Valueless(); found {
			return nil, fmt.Errorf("sticky: key: $%s never has a value", name)
		}
		s.key = t
	}
	if c.cookie != nil {
		s.cookie = newCookie(c.cookie, slot())
	}
	return s, nil
}

// bucket returns the bucket of what keeps x with its branch; false when the request has nothing of the kind.
func (s *sticky) bucket(x *phase.Exchange) (phase.Bucket, bool) {
	if s.key != nil {
		before := len(x.Arena())
		text, resolved := s.key.Append(x.Arena(), x)
		if resolved > 0 && len(text) > before {
			return bucketOf(x.Commit(text)), true
		}
	}
	if s.cookie != nil {
		if value, ok := x.Cookie(s.cookie.name, nil); ok && validCookie(value) {
			return bucketOf(value), true
		}
	}
	return phase.Bucket{}, false
}

// bucketOf leaves half of the hash in the dark: buckets are shown in logs and headers, keys may be secrets.
func bucketOf(key []byte) phase.Bucket {
	return phase.Bucket{Kind: phase.KeyBucket, N: xxhash.Sum64(key) >> 32}
}

// cookie is the one that the gateway sets for clients that have nothing else to be known by. Its value is random and says nothing; a
// client that makes one up chooses its branch, as it could with any other key.
type cookie struct {
	name string
	slot int
	// plain and secure are what follows the value in Set-Cookie, without and with TLS.
	plain, secure string
}

// cookieDigits is the length of a value: the hexadecimal digits of 64 random bits.
const cookieDigits = 16

func newCookie(c *cookieConfig, slot int) *cookie {
	attributes := "; Path=/"
	if c.ttl > 0 {
		attributes += "; Max-Age=" + strconv.FormatInt(c.ttl, 10)
	}
	attributes += "; HttpOnly; SameSite=Lax"
	return &cookie{name: c.name, slot: slot, plain: attributes, secure: attributes + "; Secure"}
}

// validCookie says whether value may come from draw.
func validCookie(value []byte) bool {
	if len(value) != cookieDigits {
		return false
	}
	for _, c := range value {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// draw makes a new value, which set will send to the client, and returns its bucket.
func (c *cookie) draw(x *phase.Exchange) phase.Bucket {
	n := max(rand.Uint64(), 1)
	x.Slot(c.slot).Int = int64(n)
	return bucketOf(x.Commit(appendDigits(x.Arena(), n)))
}

var nameSetCookie = []byte("Set-Cookie")

// set adds the value that was drawn for x, if any, to the answer.
func (c *cookie) set(x *phase.Exchange) {
	n := uint64(x.Slot(c.slot).Int)
	if n == 0 {
		return
	}
	attributes := c.plain
	// What the edge lets the upstream know of the client's side has been vouched for.
	if proto, _ := x.Request.Header.Get("X-Forwarded-Proto"); x.Request.TLS || string(proto) == "https" {
		attributes = c.secure
	}
	line := append(append(x.Arena(), c.name...), '=')
	x.Response.Header.Add(nameSetCookie, x.Commit(append(appendDigits(line, n), attributes...)))
}

func appendDigits(dst []byte, n uint64) []byte {
	for shift := 4 * (cookieDigits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[n>>shift&15])
	}
	return dst
}
