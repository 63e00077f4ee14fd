package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

const serving = "error when serving connection %q<->%q: %v"

// TestComplaints: a thousand clients that break off do not fill the operator's log.
func TestComplaints(t *testing.T) {
	var said []string
	c := &complaints{errorf: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	for range 1000 {
		c.Printf(serving, scriptAddr, scriptAddr, errors.New("s3cr3t"))
	}
	line := "client 192.0.2.1:4711: malformed request"
	if !slices.Equal(said, []string{line}) {
		t.Errorf("%q", said)
	}
	c.until = time.Now()
	c.Printf(serving, scriptAddr, scriptAddr, errors.New("s3cr3t"))
	if want := []string{line, "999 more complaints about connections were left out", line}; !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
}

// TestComplaint: every complaint gets a class that tells the operator what happened, and nothing of the error's text.
func TestComplaint(t *testing.T) {
	other := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 80}
	secret := errors.New("s3cr3t")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("s3cr3t: %w", os.ErrDeadlineExceeded), "timeout"},
		{os.NewSyscallError("s3cr3t", syscall.ECONNRESET), "connection reset"},
		{os.NewSyscallError("s3cr3t", syscall.EPIPE), "connection reset"},
		{net.ErrClosed, "connection closed"},
		{fmt.Errorf("s3cr3t: %w", &fasthttp.ErrSmallBuffer{}), "request head too large"},
		{fmt.Errorf("s3cr3t: %w", fasthttp.ErrBodyTooLarge), "request body too large"},
		{tls.RecordHeaderError{Msg: "s3cr3t"}, "TLS handshake failed"},
		{tls.AlertError(40), "TLS handshake failed"},
		{errors.New("tls: s3cr3t"), "TLS handshake failed"},
		{errors.New("remote error: tls: s3cr3t"), "TLS handshake failed"},
		{errors.New("error when reading request headers: s3cr3t"), "malformed request head"},
		{fmt.Errorf("s3cr3t: %w", io.ErrUnexpectedEOF), "connection ended within a request"},
		{secret, "malformed request"},
	} {
		if peer, class := complaint(serving, []any{other, scriptAddr, tt.err}); peer != scriptAddr.String() || class != tt.want {
			t.Errorf("%v: %q of %q, want %q", tt.err, class, peer, tt.want)
		}
	}
	if peer, class := complaint("The incoming connection cannot be served, because %d concurrent connections are served. ", []any{5}); peer != "-" || class != "too many connections" {
		t.Errorf("%q of %q", class, peer)
	}
	if peer, class := complaint("s3cr3t %s", []any{"s3cr3t"}); peer != "-" || class != "refused" {
		t.Errorf("%q of %q", class, peer)
	}
}

// TestNoSecretInComplaints: what a client sent, its credentials included, is not in what operators are told.
func TestNoSecretInComplaints(t *testing.T) {
	const post = "POST /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cr3t\r\n"
	for name, raw := range map[string]string{
		"no colon":           "GET /x HTTP/1.1\r\nHost: a\r\nAuthorization Bearer s3cr3t\r\n\r\n",
		"name":               "GET /x HTTP/1.1\r\nHost: a\r\ns3cr3t key: b\r\n\r\n",
		"value":              "GET /x HTTP/1.1\r\nHost: a\r\nA: s3cr3t\x00\r\n\r\n",
		"URI":                "GET secret?token=s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute URI":       "GET http://s3cr3t:%zz@[::/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"method line":        "s3cr3t\r\nHost: a\r\n\r\n",
		"version":            "GET /x s3cr3t\r\nHost: a\r\n\r\n",
		"length":             "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: s3cr3t\r\n\r\n",
		"coding":             "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: s3cr3t\r\n\r\n",
		"chunk size":         post + "Transfer-Encoding: chunked\r\n\r\ns3cr3t\r\n",
		"chunk end":          post + "Transfer-Encoding: chunked\r\n\r\n1\r\ns3cr3t\r\n0\r\n\r\n",
		"trailer":            post + "Transfer-Encoding: chunked\r\n\r\n0\r\ns3cr3t\r\n\r\n",
		"body cut":           post + "Content-Length: 100\r\n\r\ns3cr3t",
		"body too large":     post + "Content-Length: 99999999\r\n\r\ns3cr3t",
		"head too large":     post + "A: " + strings.Repeat("s3cr3t", 8000) + "\r\n\r\n",
		"head cut":           post,
		"forbidden trailer":  post + "Trailer: s3cr3t, Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: s3cr3t\r\n\r\n",
		"conflicting length": post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\ns3cr3t",
	} {
		t.Run(name, func(t *testing.T) {
			r := newGate(t, defaults())
			r.once(t, raw)
			r.eventually("the connection is gone", func() bool { return r.open.Load() == 0 })
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, line := range r.said {
				if strings.Contains(line, "s3cr3t") || !strings.HasPrefix(line, "client 127.0.0.1:") {
					t.Errorf("said: %q", line)
				}
			}
			if name == "no colon" && len(r.said) != 1 {
				t.Errorf("said %q, want one complaint", r.said)
			}
		})
	}
}
