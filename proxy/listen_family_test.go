package proxy

import (
	"context"
	"net"
	"testing"
)

func TestListenFamily(t *testing.T) {
	ipv6 := false
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ipv6 = true
		_ = l.Close()
	}
	t.Logf("IPv6 on this machine: %v", ipv6)
	for addr, v4 := range map[string]bool{"0.0.0.0:0": true, "127.0.0.1:0": true, ":0": !ipv6} {
		l, err := Listen(context.Background(), addr)
		if err != nil {
			t.Fatal(err)
		}
		a := l.Addr().(*net.TCPAddr)
		if got := a.IP.To4() != nil; got != v4 {
			t.Errorf("%s listens on %v", addr, a)
		}
		if v4 && ipv6 { // the same port is free for who listens on IPv6
			other, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback, Port: a.Port})
			if err != nil {
				t.Errorf("%s holds the IPv6 port too: %v", addr, err)
			} else {
				_ = other.Close()
			}
		}
		_ = l.Close()
	}
}
