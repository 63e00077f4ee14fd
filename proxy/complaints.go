package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/fault"
)

// complaints tells operators of what fasthttp complains about: whose connection it was, and a class of error out of a fixed list. The
// text of fasthttp's errors quotes request lines and header lines, credentials included, even under SecureErrorLogMessage; no byte of
// it goes on. There is a complaint about every connection that breaks off, so that the number of lines is bounded; those requests are in
// the access log, too.
type complaints struct {
	errorf func(format string, args ...any)

	mu     sync.Mutex
	until  time.Time // of the present second
	silent int       // lines suppressed in it
}

// Printf implements fasthttp.Logger: one line a second at most. The format is used to tell the kinds of complaints apart only.
func (c *complaints) Printf(format string, args ...any) {
	for _, a := range args {
		var f *fault.Fault
		if err, is := a.(error); is && errors.As(err, &f) {
			return // an answer that we have broken off: it is counted and in the access log, and was not the client's doing
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.until) {
		c.silent++
		return
	}
	if c.silent > 0 {
		c.errorf("%d more complaints about connections were left out", c.silent)
	}
	c.until, c.silent = now.Add(time.Second), 0
	peer, class := complaint(format, args)
	c.errorf("client %s: %s", peer, class)
}

// complaint finds the peer, which fasthttp names behind the local address, and the class of the error.
func complaint(format string, args []any) (peer, class string) {
	peer = "-"
	var cause error
	for _, a := range args {
		switch a := a.(type) {
		case net.Addr:
			peer = a.String()
		case error:
			cause = a
		}
	}
	switch {
	case cause != nil:
		return peer, errorClass(cause)
	case strings.Contains(format, "concurrent connections"):
		return peer, "too many connections"
	}
	return peer, "refused"
}

// errorClass puts an error of the clients' side into words of our own.
func errorClass(err error) string {
	var (
		small  *fasthttp.ErrSmallBuffer
		chunk  fasthttp.ErrBrokenChunk
		record tls.RecordHeaderError
		alert  tls.AlertError
	)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, net.ErrClosed):
		return "connection closed"
	case errors.As(err, &small):
		return "request head too large"
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return "request body too large"
	case errors.As(err, &record), errors.As(err, &alert):
		return "TLS handshake failed"
	case errors.As(err, &chunk):
		return "malformed chunked body"
	}
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "tls: "), strings.HasPrefix(text, "remote error: tls: "):
		return "TLS handshake failed"
	case strings.HasPrefix(text, "error when reading request headers"):
		return "malformed request head"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection ended within a request"
	}
	return "malformed request"
}
