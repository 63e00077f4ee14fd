package dns

import (
	"errors"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// FuzzParse: whatever a name server sends, it is read without harm, what is taken from it is bounded, and only an answer to the question
// counts.
func FuzzParse(f *testing.F) {
	name := dnsmessage.MustNewName("name.test.")
	for _, body := range []dnsmessage.ResourceBody{
		&dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}, &dnsmessage.AAAAResource{}, &dnsmessage.SRVResource{Port: 80, Target: name},
		&dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("other.test.")},
	} {
		for _, t := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV} {
			m := dnsmessage.Message{
				Header:    dnsmessage.Header{ID: 1, Response: true},
				Questions: []dnsmessage.Question{{Name: name, Type: t, Class: dnsmessage.ClassINET}},
				Answers:   []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}, Body: body}},
			}
			msg, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(msg, uint16(t))
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte, kind uint16) {
		q := dnsmessage.Question{Name: name, Type: dnsmessage.Type(kind), Class: dnsmessage.ClassINET}
		switch q.Type {
		case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV:
		default:
			return
		}
		r, err := parse(msg, 1, q)
		if len(r.addrs)+len(r.targets) > maxRecords {
			t.Fatalf("%d addresses, %d targets", len(r.addrs), len(r.targets))
		}
		var no *noName
		if err != nil && !errors.As(err, &no) {
			return
		}
		if len(msg) < 12 || msg[0] != 0 || msg[1] != 1 || msg[2]&0x80 == 0 {
			t.Fatal("no answer to the question counts as one")
		}
		for _, a := range r.addrs {
			if !a.IsValid() || q.Type == dnsmessage.TypeSRV || q.Type == dnsmessage.TypeA && !a.Is4() {
				t.Fatalf("address %v in answer to %v", a, q.Type)
			}
		}
		if len(r.targets) > 0 && q.Type != dnsmessage.TypeSRV {
			t.Fatalf("targets in answer to %v", q.Type)
		}
	})
}

// FuzzFiles: hosts files and resolv.conf of any content are read, and what is taken from them is bounded.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost a b # c\n::1 localhost\n"))
	f.Add([]byte("nameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:3 timeout:1 attempts:x use-vc\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, addrs := range parseHosts(text) {
			if name != "" && len(addrs) == 0 {
				t.Fatalf("%q has no address", name)
			}
		}
		c := parseResolvConf(text)
		if len(c.servers) == 0 || len(c.servers) > maxServers || len(c.search) > maxSearch || c.dots > 15 {
			t.Fatalf("%+v", c)
		}
		if list := c.candidates("a.b"); len(list) == 0 || len(list) > maxSearch+1 {
			t.Fatalf("%d candidates", len(list))
		}
	})
}
