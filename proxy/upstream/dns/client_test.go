package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/proxy/upstream/dns/dnstest"
)

// system returns a source that knows no hosts and asks s.
func systemOf(t *testing.T, s *dnstest.Server, hosts, conf string) Source {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return System(SystemOptions{
		Servers: []string{s.Addr()}, Refresh: 30 * time.Second, Hosts: write("hosts", hosts), ResolvConf: write("resolv.conf", conf),
	})
}

func TestAddresses(t *testing.T) {
	s := dnstest.Start(t)
	s.Set("both.test.", dnstest.A("10.0.0.2", 60), dnstest.A("2001:db8::1", 20), dnstest.A("10.0.0.1", 60))
	s.Set("four.test.", dnstest.A("10.0.0.1", 7))
	s.Set("six.test.", dnstest.A("2001:db8::1", 9))
	s.Set("empty.test.")
	s.Set("alias.test.", dnstest.CNAME("middle.test.", 5))
	s.Set("middle.test.", dnstest.CNAME("four.test.", 100))
	s.Set("loop.test.", dnstest.CNAME("loop.test.", 5))
	s.Fail("broken.test.", dnsmessage.RCodeServerFailure)
	s.Fail("refused.test.", dnsmessage.RCodeRefused)
	source := systemOf(t, s, "", "options attempts:1 timeout:30")
	for name, want := range map[string]struct {
		found string
		ttl   time.Duration
	}{
		"both.test": {"10.0.0.1 10.0.0.2 2001:db8::1", 20 * time.Second}, "four.test": {"10.0.0.1", 7 * time.Second}, "FOUR.test.": {"10.0.0.1", 7 * time.Second},
		"six.test": {"2001:db8::1", 9 * time.Second}, "alias.test": {"10.0.0.1", 5 * time.Second},
		"empty.test": {"none", 0}, "gone.test": {"none", 0}, "bad..name": {"none", 0}, strings.Repeat("a", 64) + ".test": {"none", 0},
		"broken.test": {"failed", 0}, "refused.test": {"failed", 0}, "loop.test": {"failed", 0},
	} {
		f, err := source(context.Background(), name, false)
		got := show(sorted(f.Records))
		switch {
		case NotFound(err):
			got = "none"
		case err != nil:
			got = "failed"
		}
		if got != want.found || err == nil && f.TTL != want.ttl {
			t.Errorf("%.20s: %s for %v (%v), want %s for %v", name, got, f.TTL, err, want.found, want.ttl)
		}
	}
}

// TestTruncated: what does not fit a packet comes over TCP.
func TestTruncated(t *testing.T) {
	s := dnstest.Start(t)
	var many []dnstest.Record
	for i := range 300 {
		many = append(many, dnstest.A(fmt.Sprintf("10.0.%d.%d", i/256, i%256), 60))
	}
	s.Set("many.test.", many...)
	s.Truncate(true)
	f, err := client(s).addresses(context.Background(), "many.test.", true)
	if err != nil || len(f.Records) != 300 || s.AskedByTCP() != 2 {
		t.Fatalf("%d addresses, %v, %d questions over TCP", len(f.Records), err, s.AskedByTCP())
	}
	c := client(s)
	c.Stream = true
	s.Truncate(false)
	if f, err := c.addresses(context.Background(), "many.test.", true); err != nil || len(f.Records) != 300 || s.AskedByTCP() != 4 {
		t.Fatalf("%d addresses, %v, %d questions over TCP", len(f.Records), err, s.AskedByTCP())
	}
}

// TestForeignAnswers: what answers another question, or is none, is passed over, and the answer behind it counts.
func TestForeignAnswers(t *testing.T) {
	s := dnstest.Start(t)
	s.Set("name.test.", dnstest.A("10.0.0.1", 60))
	s.Forge(func(answer []byte) [][]byte {
		otherID := append([]byte{answer[0] ^ 1, answer[1]}, answer[2:]...)
		question := append([]byte{}, answer...)
		question[2] &^= 0x80
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Error(err)
		}
		m.Questions[0].Name = dnsmessage.MustNewName("other.test.")
		m.Answers = nil
		otherName, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return [][]byte{{}, answer[:5], otherID, question, otherName, answer}
	})
	if f, err := client(s).addresses(context.Background(), "name.test.", true); err != nil || show(f.Records) != "10.0.0.1" {
		t.Fatalf("%v, %v", f.Records, err)
	}
	s.Forge(func(answer []byte) [][]byte { return [][]byte{answer[:len(answer)-3]} })
	if _, err := client(s).addresses(context.Background(), "name.test.", true); err == nil || NotFound(err) {
		t.Fatalf("half an answer: %v", err)
	}
}

// TestOtherServers: one that is not there, keeps silent or says that it cannot does not keep the next from being asked, and the one that
// answered is asked first from then on. A definite answer ends the search.
func TestOtherServers(t *testing.T) {
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := dead.LocalAddr().String()
	_ = dead.Close()
	broken, good := dnstest.Start(t), dnstest.Start(t)
	broken.Fail("name.test.", dnsmessage.RCodeServerFailure)
	good.Set("name.test.", dnstest.A("10.0.0.1", 60))
	c := client(broken, good)
	c.Servers = append([]string{nobody}, c.Servers...)
	for range 3 {
		if f, err := c.addresses(context.Background(), "name.test.", true); err != nil || show(f.Records) != "10.0.0.1" {
			t.Fatalf("%v, %v", f.Records, err)
		}
	}
	if n := broken.Asked("name.test."); n > 2 {
		t.Errorf("the broken server was asked %d times", n)
	}
	good.Fail("name.test.", dnsmessage.RCodeNameError)
	if _, err := c.addresses(context.Background(), "name.test.", true); !NotFound(err) {
		t.Errorf("got %v", err)
	}
	silent := dnstest.Start(t)
	silent.Silence(func(string, dnsmessage.Type) bool { return true })
	good.Set("name.test.", dnstest.A("10.0.0.2", 60))
	c = client(silent, good)
	c.Timeout = 50 * time.Millisecond
	c.Rounds = 20 // on a slow machine the good one may be late as well
	if f, err := c.addresses(context.Background(), "name.test.", true); err != nil || show(f.Records) != "10.0.0.2" {
		t.Errorf("%v, %v", f.Records, err)
	}
}

// TestOldServer: one that refuses extended questions is asked plain ones.
func TestOldServer(t *testing.T) {
	s := dnstest.Start(t)
	s.Plain(true)
	s.Set("name.test.", dnstest.A("10.0.0.1", 60))
	if f, err := client(s).addresses(context.Background(), "name.test.", true); err != nil || show(f.Records) != "10.0.0.1" {
		t.Fatalf("%v, %v", f.Records, err)
	}
}

// TestOneFamilyFails: the other one is an answer, and which one failed is told. At first nobody waits for IPv6 that does not come.
func TestOneFamilyFails(t *testing.T) {
	s := dnstest.Start(t)
	s.Set("name.test.", dnstest.A("10.0.0.1", 60), dnstest.A("2001:db8::1", 60))
	s.FailType("name.test.", dnsmessage.TypeA, dnsmessage.RCodeServerFailure)
	if f, err := client(s).addresses(context.Background(), "name.test.", true); err != nil || show(f.Records) != "2001:db8::1" || f.Failed != [2]bool{true, false} {
		t.Errorf("%v, %v, %v", f.Records, f.Failed, err)
	}
	if f, got := find(Services(client(s)), "name.test"); !strings.HasPrefix(got, "error") {
		t.Errorf("a service whose IPv4 servers are not known: %v", f.Records)
	}
	s.Set("name.test.", dnstest.A("10.0.0.1", 60), dnstest.A("2001:db8::1", 60))
	s.Silence(func(_ string, t dnsmessage.Type) bool { return t == dnsmessage.TypeAAAA })
	if f, err := client(s).addresses(context.Background(), "name.test.", false); err != nil || show(f.Records) != "10.0.0.1" || f.Failed != [2]bool{false, true} {
		t.Errorf("%v, %v, %v", f.Records, f.Failed, err)
	}
}

// TestServices follows contract section 3.6.
func TestServices(t *testing.T) {
	s := dnstest.Start(t)
	s.Set("one.test.", dnstest.A("10.0.0.1", 60))
	s.Set("two.test.", dnstest.A("10.0.0.2", 60), dnstest.A("10.0.0.3", 60))
	s.Set("three.test.", dnstest.A("10.0.0.4", 60), dnstest.A("10.0.0.5", 60), dnstest.A("10.0.0.6", 5), dnstest.A("2001:db8::6", 60))
	s.Set("six.test.", dnstest.A("2001:db8::1", 60))
	s.Fail("broken.test.", dnsmessage.RCodeServerFailure)
	s.Set("plain.test.", dnstest.SRV(10, 60, 1980, "one.test.", 30), dnstest.SRV(20, 0, 1981, "six.test.", 30))
	s.Set("shared.test.", dnstest.SRV(1, 5, 80, "two.test.", 30), dnstest.SRV(1, 2, 81, "three.test.", 30), dnstest.SRV(1, 1, 82, "one.test.", 30))
	s.Set("twice.test.", dnstest.SRV(1, 5, 80, "one.test.", 30), dnstest.SRV(1, 2, 80, "one.test.", 30))
	s.Set("partly.test.", dnstest.SRV(1, 5, 80, "one.test.", 30), dnstest.SRV(1, 5, 80, "gone.test.", 30))
	s.Set("unknown.test.", dnstest.SRV(1, 5, 80, "one.test.", 30), dnstest.SRV(1, 5, 80, "broken.test.", 30))
	s.Set("closed.test.", dnstest.SRV(0, 0, 0, ".", 30))
	s.Set("mixed.test.", dnstest.SRV(1, 5, 80, "one.test.", 30), dnstest.A("10.9.9.9", 30))
	c := client(s)
	c.Rounds = 1
	source := Services(c)
	for name, want := range map[string]string{
		"plain.test":   "10.0.0.1:1980 w60 p-10 2001:db8::1:1981 w1 p-20",
		"shared.test":  "10.0.0.1:82 w6 p-1 10.0.0.2:80 w15 p-1 10.0.0.3:80 w15 p-1 10.0.0.4:81 w4 p-1 10.0.0.5:81 w4 p-1 10.0.0.6:81 w4 p-1",
		"twice.test":   "10.0.0.1:80 w7 p-1",
		"partly.test":  "10.0.0.1:80 w5 p-1",
		"mixed.test":   "10.0.0.1:80 w5 p-1",
		"closed.test":  "none",
		"gone.test":    "none",
		"unknown.test": "failed",
		"broken.test":  "failed",
		"two.test":     "10.0.0.2 10.0.0.3",
		"three.test":   "10.0.0.4 10.0.0.5 10.0.0.6",
		"six.test":     "2001:db8::1",
	} {
		f, err := source(context.Background(), name, false)
		got := show(sorted(f.Records))
		switch {
		case NotFound(err):
			got = "none"
		case err != nil:
			got = "failed"
		}
		if got != want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, want)
		}
	}
	if f, _ := find(source, "shared.test"); f.TTL != 5*time.Second {
		t.Errorf("holds for %v", f.TTL)
	}
	// SRV records that cannot be had are not taken for none.
	s.Silence(func(_ string, t dnsmessage.Type) bool { return t == dnsmessage.TypeSRV })
	c.Timeout = 500 * time.Millisecond
	if _, err := source(context.Background(), "gone.test", false); err == nil || NotFound(err) {
		t.Errorf("got %v", err)
	}
}

// TestSystem: hosts first, localhost, search domains, and what else the system has.
func TestSystem(t *testing.T) {
	s := dnstest.Start(t)
	s.Set("a.one.test.", dnstest.A("10.0.0.1", 60))
	s.Set("a.two.test.", dnstest.A("10.0.0.2", 60))
	s.Set("b.two.test.", dnstest.A("10.0.0.3", 60))
	s.Set("a.b.", dnstest.A("10.0.0.4", 60))
	s.Set("host.test.", dnstest.A("10.9.9.9", 60))
	s.Fail("c.one.test.", dnsmessage.RCodeServerFailure)
	s.Set("c.two.test.", dnstest.A("10.0.0.5", 60))
	source := systemOf(t, s, "# comment\n10.1.1.1 host.test Alias # more\n::1 host.test\n999 bad\n10.1.1.2 alias. host.test\nfe80::1%eth0 zone\n",
		"domain ignored.test\nsearch one.test. two.test\noptions ndots:2 attempts:1 timeout:30 rotate\n")
	for name, want := range map[string]string{
		"host.test": "10.1.1.1 10.1.1.2 ::1", "ALIAS": "10.1.1.1 10.1.1.2", "localhost": "127.0.0.1 ::1", "x.Localhost.": "127.0.0.1 ::1",
		"a": "10.0.0.1", "b": "10.0.0.3", "a.b": "10.0.0.4", "a.b.": "10.0.0.4", "c": "10.0.0.5",
		"a.": "error: a.: no address", "zone": "error: zone.: no address",
	} {
		if _, got := find(source, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if f, _ := find(source, "host.test"); f.TTL != 30*time.Second || !f.Exact {
		t.Errorf("an answer of the hosts file holds for %v, exact: %v", f.TTL, f.Exact)
	}
	// When an answer is known, a failure of the first candidate does not put the second one in its place.
	if _, err := source(context.Background(), "c", true); err == nil || NotFound(err) {
		t.Errorf("got %v", err)
	}
}

// TestRestOfTheSystem: what DNS does not know is asked of the system, unless the name servers were chosen by the operator.
func TestRestOfTheSystem(t *testing.T) {
	s := dnstest.Start(t)
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	sys := &system{opt: SystemOptions{Refresh: time.Minute}}
	sys.hosts = file[map[string][]netip.Addr]{path: hosts, parse: parseHosts}
	sys.conf = file[*resolvConf]{path: filepath.Join(dir, "none"), parse: func([]byte) *resolvConf {
		c := parseResolvConf(nil)
		c.client = client(s)
		return c
	}}
	asked := 0
	sys.opt.Ask = func(_ context.Context, name string) ([]netip.Addr, error) {
		if asked++; name == "mdns.local" {
			return []netip.Addr{netip.MustParseAddr("::ffff:10.5.5.5")}, nil
		}
		return nil, &net.DNSError{IsNotFound: true}
	}
	for name, want := range map[string]string{"mdns.local": "10.5.5.5", "gone.test": "error: gone.test.: no address"} {
		if _, got := find(sys.find, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if asked != 2 {
		t.Errorf("the system was asked %d times", asked)
	}
	// Without DNS as well, unless an answer of DNS is known.
	s.Fail("mdns.local.", dnsmessage.RCodeRefused)
	if _, got := find(sys.find, "mdns.local"); got != "10.5.5.5" {
		t.Errorf("without DNS: %s", got)
	}
	if _, err := sys.find(context.Background(), "mdns.local", true); err == nil || NotFound(err) || asked != 3 {
		t.Errorf("got %v, asked %d times", err, asked)
	}
	// A hosts file that comes, and one that changes, count at the next question.
	for _, addr := range []string{"10.7.7.7", "10.7.7.78"} {
		if err := os.WriteFile(hosts, []byte(addr+" gone.test\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, got := find(sys.find, "gone.test"); got != addr {
			t.Errorf("got %s, want %s", got, addr)
		}
	}
}

func TestResolvConf(t *testing.T) {
	for text, want := range map[string]string{
		"": "[127.0.0.1:53 [::1]:53] [] 1 0s 0 false",
		"nameserver 10.0.0.1\nnameserver x\nnameserver fe80::1%eth0\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n; nameserver 10.0.0.9": "[10.0.0.1:53 [fe80::1%eth0]:53 10.0.0.2:53] [] 1 0s 0 false",
		"search a.test .\noptions ndots:99 timeout:0 attempts:9 use-vc ndots:x edns0":                                                 "[127.0.0.1:53 [::1]:53] [a.test] 15 1s 5 true",
	} {
		c := parseResolvConf([]byte(text))
		if got := fmt.Sprint(c.servers, c.search, c.dots, c.timeout, c.rounds, c.stream); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
