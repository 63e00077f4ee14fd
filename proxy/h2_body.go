package proxy

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// h2Body is the request body of one stream, with the bounds and clocks of an HTTP/1.1 one.
type h2Body struct {
	r       *http.Request
	c       *h2Conn
	control *http.ResponseController
	left    int64 // of what was announced
	most    int64
	took    int64
	waited  time.Duration
	err     error // sticky
	large   bool  // the connection's token for large bodies is here
}

// Announced implements phase.Incoming.
func (b *h2Body) Announced() int64 { return max(b.r.ContentLength, -1) }

// Limit implements phase.Incoming.
func (b *h2Body) Limit(n int64) {
	b.most = min(b.most, n)
	if b.err == nil && (b.r.ContentLength > n || b.took > n) {
		b.err = fault.BodyTooLarge
	}
}

// Trailers implements phase.Incoming: those that the client has announced. They are there when the library has seen the end of the body,
// which it has not when the last of the announced bytes was that.
func (b *h2Body) Trailers() []byte {
	if b.err != io.EOF || len(b.r.Trailer) == 0 {
		return nil
	}
	var section []byte
	lines := 0
	for _, name := range slices.Sorted(maps.Keys(b.r.Trailer)) {
		for _, value := range b.r.Trailer[name] {
			if lines++; lines > wire.MaxTrailerLines || !wire.ValidName([]byte(name)) || !wire.ValidValue([]byte(value)) {
				return nil
			}
			section = append(append(append(append(section, name...), ": "...), value...), "\r\n"...)
		}
	}
	if len(section) > wire.MaxTrailers {
		return nil
	}
	return b.c.h.s.g.edge.trailers.filter(section)
}

// Invite implements phase.Incoming: the library does it when the first byte is asked for.
func (b *h2Body) Invite() error { return nil }

// Interrupt implements phase.Incoming.
func (b *h2Body) Interrupt() { _ = b.control.SetReadDeadline(time.Unix(1, 0)) }

// Hold implements phase.Incoming: it waits until the connection holds no other large body.
func (b *h2Body) Hold() error {
	if b.large {
		return nil
	}
	patience := time.NewTimer(bodyTime(b.c.h.s.pause, b.most) - b.waited)
	defer patience.Stop()
	select {
	case b.c.large <- struct{}{}:
		b.large = true
		return nil
	case <-b.r.Context().Done():
		b.err = fault.ClientGone
	case <-patience.C:
		b.err = fault.BodyTimeout
	}
	return b.err
}

// Read implements phase.Incoming.
func (b *h2Body) Read(p []byte) (n int, err error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	asked, pause := time.Now(), b.c.h.s.pause
	if pause > 0 {
		size := b.r.ContentLength
		if size < 0 {
			size = b.most
		}
		_ = b.control.SetReadDeadline(asked.Add(min(pause, bodyTime(pause, size)-b.waited)))
	}
	n, err = b.r.Body.Read(p)
	if pause > 0 && err == nil { // the library's deadline ends the body although nobody asks for it
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.waited += time.Since(asked)
	b.took += int64(n)
	b.left -= int64(n)
	switch {
	case b.took > b.most:
		n, b.err = 0, fault.BodyTooLarge
	case err == nil && b.left != 0:
		return n, nil
	case err == nil, err == io.EOF: // the last byte of a body whose length is known is its end
		b.err = io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = fault.BodyTimeout
	case b.r.Context().Err() != nil:
		b.err = fault.ClientGone // the stream is no more
	default:
		b.err = fault.BadRequest
	}
	return n, b.err
}

var _ phase.Incoming = (*h2Body)(nil)
