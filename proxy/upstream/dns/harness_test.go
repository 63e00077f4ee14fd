package dns

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/proxy/upstream/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// show writes records as "10.0.0.1", "10.0.0.1:80 w60 p-1".
func show(list []Record) string {
	var b strings.Builder
	for i, r := range list {
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(r.Addr.String())
		if r.Port != 0 {
			fmt.Fprintf(&b, ":%d w%d p%d", r.Port, r.Weight, r.Priority)
		}
	}
	return b.String()
}

func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if reached() {
			return
		}
	}
	t.Fatalf("never came about: %s", what)
}

func client(servers ...*dnstest.Server) *Client {
	c := &Client{Timeout: 30 * time.Second}
	for _, s := range servers {
		c.Servers = append(c.Servers, s.Addr())
	}
	return c
}

// find asks source and shows what it has found, or the error.
func find(source Source, name string) (Finding, string) {
	f, err := source(context.Background(), name, false)
	if err != nil {
		return f, "error: " + err.Error()
	}
	return f, show(sorted(f.Records))
}
