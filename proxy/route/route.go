// Package route finds the rule that serves a request: host, method, path and peer address to a target.
//
// A Table is immutable. With derives the next one and shares everything that the edit did not touch, so a table can be read by any
// number of goroutines while its successors are built. Find takes no lock and allocates nothing.
//
// The semantics are those of sections 2.1 to 2.3 of the APISIX contract:
//
//   - An exact path is tried before every prefix, whatever the priorities. Prefixes are tried from the longest to the shortest.
//   - Inside one exact path or one prefix: higher Priority first, then the longer pattern, then the lower Order, then the lower ID.
//   - A candidate that fails its method, peer address, host, filter or pattern is passed over.
//   - HostURI looks for the host first (exact, then the longest wildcard suffix, then the rules without hosts); a less specific host is
//     tried only when nothing under the more specific one fits. In the URI modes the host is one more condition on a candidate.
package route

import (
	"errors"
	"fmt"
	"net/netip"
)

// Mode says how a Table is organised; the zero value is APISIX's default.
type Mode uint8

const (
	HostURI          Mode = iota // radixtree_host_uri
	URI                          // radixtree_uri
	URIWithParameter             // radixtree_uri_with_parameter: a path segment ":name" matches one segment
)

// ParseMode turns the value of `apisix.router.http` into a Mode.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "radixtree_host_uri":
		return HostURI, nil
	case "radixtree_uri":
		return URI, nil
	case "radixtree_uri_with_parameter":
		return URIWithParameter, nil
	}
	return HostURI, fmt.Errorf("route: unknown router %q, want radixtree_host_uri, radixtree_uri or radixtree_uri_with_parameter", s)
}

// String returns the configuration name of m.
func (m Mode) String() string {
	switch m {
	case HostURI:
		return "radixtree_host_uri"
	case URI:
		return "radixtree_uri"
	case URIWithParameter:
		return "radixtree_uri_with_parameter"
	}
	return "unknown"
}

// Methods is a set of request methods. As a condition of a Rule the empty set means any method, known or not.
type Methods uint16

// The methods that a rule can name (contract section 1.7, routes).
const (
	GET Methods = 1 << iota
	POST
	PUT
	DELETE
	PATCH
	HEAD
	OPTIONS
	CONNECT
	TRACE
	PURGE
)

// MethodBit returns the set that holds the method name (case-sensitive, RFC 9110 section 9.1), or 0 for one that no rule can name:
// such a request fits only the rules that take any method.
func MethodBit[S ~string | ~[]byte](name S) Methods {
	switch string(name) {
	case "GET":
		return GET
	case "POST":
		return POST
	case "PUT":
		return PUT
	case "DELETE":
		return DELETE
	case "PATCH":
		return PATCH
	case "HEAD":
		return HEAD
	case "OPTIONS":
		return OPTIONS
	case "CONNECT":
		return CONNECT
	case "TRACE":
		return TRACE
	case "PURGE":
		return PURGE
	}
	return 0
}

// ParseMethods returns the set of names. No name gives the empty set, i.e. any method.
func ParseMethods(names []string) (Methods, error) {
	var set Methods
	for _, name := range names {
		bit := MethodBit(name)
		if bit == 0 {
			return 0, fmt.Errorf("route: unknown method %q", name)
		}
		set |= bit
	}
	return set, nil
}

// Rule is one entry of a Table. The Table keeps a copy of the struct and its slices.
type Rule[T any] struct {
	ID          string         // identity inside the table, not empty
	URIs        []string       // path patterns, at least one (contract section 2.2)
	Hosts       []string       // "name", "*suffix" or "*", any case; empty: any host
	Methods     Methods        // 0: any
	Priority    int            // among the rules of one exact path or one stored prefix; higher first
	RemoteAddrs []netip.Prefix // empty: any peer
	Order       uint64         // tie-break, lower first; of equals the lower ID comes first
	Target      T              // what Find returns
}

// Query is what Find looks at. The Table keeps none of its bytes; Match may (see there).
type Query struct {
	Host     []byte     // lower-cased, without port and trailing dot: first result of AppendHost
	HostPort []byte     // lower-cased Host header: second result of AppendHost; the URI modes use it for rule hosts with a ':'
	Path     []byte     // as made by AppendNormalized, without the query
	Method   Methods    // one method, or 0 for one that no rule can name
	Remote   netip.Addr // peer; an IPv4 address must be unmapped. The zero Addr fits only rules without RemoteAddrs.
}

// Param is one captured part of the path.
type Param struct {
	Name  string
	Value []byte
}

// MaxParams is how many captures one pattern can have.
const MaxParams = 16

// Match describes the last hit of Find. It is meant to be reused. Param values are sub-slices of Query.Path.
type Match struct {
	Params  [MaxParams]Param // the first NParams are valid, in the order of the pattern
	NParams int
	URI     string // the pattern that fitted
	Host    string // the host pattern that fitted, lower-cased; "" when the rule takes any host
}

// Param returns the value captured under name; of equal names the last one counts. An unnamed `*` segment is captured as ":ext".
func (m *Match) Param(name string) ([]byte, bool) {
	for i := m.NParams - 1; i >= 0; i-- {
		if m.Params[i].Name == name {
			return m.Params[i].Value, true
		}
	}
	return nil, false
}

func (m *Match) reset() {
	m.NParams, m.URI, m.Host = 0, "", ""
}

// Filter has the last word on a candidate before its pattern is compared (the `vars` of a route). It should have no effects: a
// candidate that it accepted may still be passed over.
type Filter[T any] interface {
	Accept(T) bool
}

// ErrBadRule is wrapped by every error of With.
var ErrBadRule = errors.New("bad rule")

func badRule(id, format string, args ...any) error {
	return fmt.Errorf("route: %w %q: %s", ErrBadRule, id, fmt.Sprintf(format, args...))
}
