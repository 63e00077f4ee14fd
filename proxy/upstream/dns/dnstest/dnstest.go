// Package dnstest is a name server for tests: on loopback, over UDP and TCP, answering what the test sets.
package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Server is a running name server. It knows no name at first, and can be set while it serves.
type Server struct {
	udp net.PacketConn
	tcp net.Listener

	mu      sync.Mutex
	running sync.WaitGroup
	conns   map[net.Conn]struct{}
	zone    map[string][]Record
	rcodes  map[string]map[dnsmessage.Type]dnsmessage.RCode
	asked   map[string]int
	byTCP   int
	silent  func(name string, t dnsmessage.Type) bool
	cut     bool
	plain   bool
	forge   func(answer []byte) [][]byte
	noTTL   uint32
}

// Record is one resource record of a name.
type Record struct {
	TTL  uint32
	Body dnsmessage.ResourceBody
}

// A returns an A or AAAA record.
func A(addr string, ttl uint32) Record {
	a := netip.MustParseAddr(addr)
	if a.Is4() {
		return Record{ttl, &dnsmessage.AResource{A: a.As4()}}
	}
	return Record{ttl, &dnsmessage.AAAAResource{AAAA: a.As16()}}
}

// CNAME returns an alias.
func CNAME(to string, ttl uint32) Record {
	return Record{ttl, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)}}
}

// SRV returns a server of a service.
func SRV(priority, weight, port uint16, target string, ttl uint32) Record {
	return Record{ttl, &dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(target)}}
}

// Start serves until the end of the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		conns: map[net.Conn]struct{}{}, zone: map[string][]Record{}, rcodes: map[string]map[dnsmessage.Type]dnsmessage.RCode{}, asked: map[string]int{}, noTTL: 1,
	}
	for try := 0; ; try++ { // the port must be free for both
		var err error
		if s.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if s.udp, err = net.ListenPacket("udp", s.tcp.Addr().String()); err == nil {
			break
		}
		_ = s.tcp.Close()
		if try == 20 {
			t.Fatal(err)
		}
	}
	s.running.Go(s.serveUDP)
	s.running.Go(s.serveTCP)
	t.Cleanup(s.Close)
	return s
}

// Close ends the server; nobody listens at its port any more.
func (s *Server) Close() {
	_ = s.udp.Close()
	_ = s.tcp.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// Addr is where it listens.
func (s *Server) Addr() string { return s.udp.LocalAddr().String() }

// Set makes records all that is known of name, which ends with a dot; none at all: the name exists and has no records.
func (s *Server) Set(name string, records ...Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rcodes, name)
	s.zone[name] = records
}

// Fail makes rcode the answer to all questions about name, until the next Set.
func (s *Server) Fail(name string, rcode dnsmessage.RCode) {
	s.FailType(name, dnsmessage.TypeALL, rcode)
}

// FailType does so for questions about one type.
func (s *Server) FailType(name string, t dnsmessage.Type, rcode dnsmessage.RCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rcodes[name] == nil {
		s.rcodes[name] = map[dnsmessage.Type]dnsmessage.RCode{}
	}
	s.rcodes[name][t] = rcode
}

// Silence leaves questions without an answer for which f says so; nil answers all.
func (s *Server) Silence(f func(name string, t dnsmessage.Type) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = f
}

// Truncate answers over UDP only that there is more over TCP.
func (s *Server) Truncate(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = on
}

// Plain makes the server one that does not understand questions with additional records.
func (s *Server) Plain(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain = on
}

// Forge sends what f makes of each answer over UDP in its place.
func (s *Server) Forge(f func(answer []byte) [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forge = f
}

// Asked returns how often name was asked for, with whatever type.
func (s *Server) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

// AskedByTCP returns how many questions came over TCP.
func (s *Server) AskedByTCP() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byTCP
}

func (s *Server) serveUDP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		answer := s.answer(buf[:n], false)
		if answer == nil {
			continue
		}
		s.mu.Lock()
		forge := s.forge
		s.mu.Unlock()
		packets := [][]byte{answer}
		if forge != nil {
			packets = forge(answer)
		}
		for _, p := range packets {
			_, _ = s.udp.WriteTo(p, from)
		}
	}
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.running.Go(func() {
			defer func() {
				_ = c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			}()
			for {
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				q := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, q); err != nil {
					return
				}
				answer := s.answer(q, true)
				if answer == nil {
					continue
				}
				if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		})
	}
}

// answer returns nil when the server keeps silent.
func (s *Server) answer(msg []byte, tcp bool) []byte {
	var q dnsmessage.Message
	if q.Unpack(msg) != nil || len(q.Questions) != 1 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := q.Questions[0]
	name := strings.ToLower(asked.Name.String())
	s.asked[name]++
	if tcp {
		s.byTCP++
	}
	if s.silent != nil && s.silent(name, asked.Type) {
		return nil
	}
	a := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}, Questions: q.Questions}
	rcode, fails := s.rcodes[name][dnsmessage.TypeALL]
	if !fails {
		rcode, fails = s.rcodes[name][asked.Type]
	}
	records, known := s.zone[name]
	switch {
	case s.plain && len(q.Additionals) > 0:
		a.RCode = dnsmessage.RCodeFormatError
	case fails:
		a.RCode = rcode
	case !known:
		a.RCode = dnsmessage.RCodeNameError
	case s.cut && !tcp:
		a.Truncated = true
	default:
		a.Answers = s.find(name, asked.Type, records, 0)
	}
	if len(a.Answers) == 0 && (a.RCode == dnsmessage.RCodeSuccess || a.RCode == dnsmessage.RCodeNameError) && !a.Truncated {
		a.Authorities = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("test."), Class: dnsmessage.ClassINET, TTL: 3600},
			Body:   &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns.test."), MBox: dnsmessage.MustNewName("admin.test."), MinTTL: s.noTTL},
		}}
	}
	out, err := a.Pack()
	if err != nil {
		return nil
	}
	return out
}

// find returns the records of a type, behind aliases as a resolver gives them.
func (s *Server) find(name string, t dnsmessage.Type, records []Record, depth int) (out []dnsmessage.Resource) {
	for _, r := range records {
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: r.TTL}
		if c, is := r.Body.(*dnsmessage.CNAMEResource); is && depth < 20 {
			out = append(out, dnsmessage.Resource{Header: h, Body: r.Body})
			out = append(out, s.find(c.CNAME.String(), t, s.zone[c.CNAME.String()], depth+1)...)
			continue
		}
		if is := typeOf(r.Body); is == t {
			out = append(out, dnsmessage.Resource{Header: h, Body: r.Body})
		}
	}
	return out
}

func typeOf(b dnsmessage.ResourceBody) dnsmessage.Type {
	switch b.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV
	}
	return dnsmessage.TypeCNAME
}
