package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// maxStatusLine bounds what of an answer is read, in bytes.
const maxStatusLine = 1 << 10

// run probes t once (contract section 3.4): a connection of its own, and for http and https one request, of whose answer the status line
// counts. All of it has one clock.
func (m *Monitor) run(ctx context.Context, p *plan, t *Target) observation {
	ctx, cancel := context.WithTimeout(ctx, p.checks.Active.Timeout)
	defer cancel()
	raw, err := m.opt.Dial(ctx, t.host, t.port)
	if err != nil {
		return failure(ctx, err)
	}
	defer raw.Close()
	if host, _, err := net.SplitHostPort(raw.RemoteAddr().String()); err == nil {
		if seen := t.seen.Load(); seen == nil || *seen != host {
			t.seen.Store(&host)
		}
	}
	if p.checks.Active.Type == "tcp" {
		return observation{outcome: Success}
	}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	nc := raw
	if p.tls != nil {
		tc := tls.Client(raw, p.tls)
		if err = tc.HandshakeContext(ctx); err != nil {
			return failure(ctx, err)
		}
		defer tc.Close()
		nc = tc
	}
	if _, err = nc.Write(p.request); err != nil {
		return failure(ctx, err)
	}
	status, err := readStatus(nc)
	if err != nil {
		return failure(ctx, err)
	}
	return observation{outcome: p.active.classify(status), status: status}
}

// failure says what an error of a connection counts as.
func failure(ctx context.Context, err error) observation {
	var ne net.Error
	if ctx.Err() != nil || errors.As(err, &ne) && ne.Timeout() {
		return observation{outcome: Timeout, detail: err.Error()}
	}
	return observation{outcome: TCPFailure, detail: err.Error()}
}

// readStatus reads the first line of an answer and returns its status, 0 when it is no status line. The end of the stream within the line
// is an error.
func readStatus(r io.Reader) (int, error) {
	var buf [maxStatusLine]byte
	for n := 0; n < len(buf); {
		k, err := r.Read(buf[n:])
		n += k
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			return parseStatus(buf[:i]), nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// parseStatus returns the number in "HTTP/1.1 200 OK" or 0. Numbers are cut to four digits, so that they belong to no list.
func parseStatus(line []byte) int {
	const prefix = "HTTP/"
	if len(line) < len(prefix) || !bytes.EqualFold(line[:len(prefix)], []byte(prefix)) {
		return 0
	}
	line = line[len(prefix):]
	major := digits(line)
	if major == 0 || major == len(line) || line[major] != '.' {
		return 0
	}
	line = line[major+1:]
	minor := digits(line)
	if minor == 0 {
		return 0
	}
	line = line[minor:]
	rest := bytes.TrimLeft(line, " \t")
	n := min(digits(rest), 4)
	if len(rest) == len(line) || n == 0 {
		return 0
	}
	status := 0
	for _, d := range rest[:n] {
		status = status*10 + int(d-'0')
	}
	return status
}

// digits returns how many digits b begins with.
func digits(b []byte) int {
	for i, c := range b {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(b)
}
