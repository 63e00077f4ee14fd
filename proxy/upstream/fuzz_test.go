package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"testing"

	"headgate/proxy/phase"
)

// serialise writes a parsed head in its plainest form.
func serialise(r head, h *phase.Header) []byte {
	b := []byte("HTTP/1.1 " + strconv.Itoa(r.status) + "\r\n")
	for _, f := range h.Fields() {
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	switch {
	case r.framing == byChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.framing == byLength:
		b = strconv.AppendInt(append(b, "Content-Length: "...), r.length, 10)
		b = append(b, "\r\n"...)
	case r.announced >= 0:
		b = strconv.AppendInt(append(b, "Content-Length: "...), r.announced, 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

func equalFields(a, b *phase.Header) bool {
	return slices.EqualFunc(a.Fields(), b.Fields(), func(x, y phase.Field) bool {
		return bytes.Equal(x.Name, y.Name) && bytes.Equal(x.Value, y.Value)
	})
}

// FuzzParseHead: whatever an upstream sends, a head that is accepted says the same when it is written down plainly and read again, and
// another parser does not see a different message in it.
func FuzzParseHead(f *testing.F) {
	for _, s := range []string{
		ok2, chunkedHead, "HTTP/1.0 204\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, X\r\nX: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 01\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, isHead bool) {
		end := headEnd(b, 0)
		if end < 0 {
			return
		}
		b = b[:end]
		var h phase.Header
		r, refused := parseHead(b, isHead, &h)
		if refused != nil {
			return
		}
		if !plausible(b) {
			t.Fatal("accepted, but not plausible")
		}
		var again phase.Header
		plain := serialise(r, &h)
		r2, refused := parseHead(plain, isHead, &again)
		if refused != nil {
			t.Fatalf("%q was accepted, %q is refused", b, plain)
		}
		if r2.status != r.status || r2.framing != r.framing || r2.length != r.length || r2.announced != r.announced || !equalFields(&h, &again) {
			t.Fatalf("%q: %+v, read again %q: %+v", b, r, plain, r2)
		}
		method := http.MethodGet
		if isHead {
			method = http.MethodHead
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: method})
		if err != nil {
			return // stricter in some places, of no consequence
		}
		if res.StatusCode != r.status {
			t.Fatalf("status %d, the reference says %d", r.status, res.StatusCode)
		}
		switch r.framing {
		case byLength:
			if res.ContentLength != r.length {
				t.Fatalf("length %d, the reference says %d", r.length, res.ContentLength)
			}
		case byChunks:
			if !slices.Equal(res.TransferEncoding, []string{"chunked"}) {
				t.Fatalf("chunked, the reference says %q", res.TransferEncoding)
			}
		case byClose:
			if res.ContentLength != -1 || res.TransferEncoding != nil {
				t.Fatalf("until close, the reference says %d %q", res.ContentLength, res.TransferEncoding)
			}
		}
	})
}

// dechunk feeds b to a reader in segments of at most step bytes, as a stream would. whole says that the body ended; rest is what is behind it.
func dechunk(b []byte, step int) (body []byte, rest int, whole, bad bool) {
	var r chunkReader
	pending := []byte{}
	for {
		p, used, f := r.next(pending)
		body = append(body, p...)
		pending = pending[used:]
		switch {
		case f != nil:
			return body, 0, false, true
		case r.done && len(p) == 0:
			return body, len(pending) + len(b), true, false
		case len(p) > 0:
			continue
		case len(b) == 0:
			return body, 0, false, false
		}
		n := min(step, len(b))
		pending = append(slices.Clone(pending), b[:n]...)
		b = b[n:]
	}
}

// FuzzChunks: the outcome does not depend on where the network cuts, it is the same for a body that is there at once, and what is
// accepted is what another reader makes of it.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n3\r\nabc\r\n00\r\nX: y\r\n\r\nHTTP/1.1", "5\r\nhel", "0\r\n\r\n", "a \r\n", "5 ;x\r\nhello\r\n0\r\n\r\n",
		"2\r\nok\n0\r\n\r\n", "ffffffffffffffff\r\n", "1\r\na\r\n0\r\nX: 1\r\n",
	} {
		f.Add([]byte(s), 1)
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		if len(b) > 4<<10 {
			return
		}
		body, rest, whole, bad := dechunk(b, len(b)+1)
		body2, rest2, whole2, bad2 := dechunk(b, max(step&63, 1))
		if whole != whole2 || bad != bad2 || rest != rest2 || !bytes.Equal(body, body2) {
			t.Fatalf("%q: %q %d %t %t; in segments of %d: %q %d %t %t", b, body, rest, whole, bad, step, body2, rest2, whole2, bad2)
		}
		in := slices.Clone(b)
		got, used, ok, refused := unchunk(in)
		if ok != whole || refused != nil != bad {
			t.Fatalf("%q: at once %t %v, as a stream %t %t", b, ok, refused, whole, bad)
		}
		if !ok {
			if !bytes.Equal(in, b) {
				t.Fatalf("%q: an incomplete body was changed to %q", b, in)
			}
			return
		}
		if !bytes.Equal(got, body) || len(b)-used != rest {
			t.Fatalf("%q: at once %q and %d left, as a stream %q and %d", b, got, len(b)-used, body, rest)
		}
		reference, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err == nil && !bytes.Equal(reference, body) {
			t.Fatalf("%q: %q, the reference reads %q", b, body, reference)
		}
	})
}

// FuzzRecords: however the network cuts a sequence of records, they come out as they went in, one at a time.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{5, 0, 200}, uint8(3), uint8(7))
	f.Add([]byte{255, 255, 1}, uint8(200), uint8(255))
	f.Fuzz(func(t *testing.T, sizes []byte, cut, space uint8) {
		if len(sizes) > 64 {
			return
		}
		var wire []byte
		ends := map[int]bool{}
		for i, s := range sizes {
			n := int(s) * 40 // up to 10,200 bytes
			wire = append(wire, 23, 3, 3, byte(n>>8), byte(n))
			wire = append(wire, bytes.Repeat([]byte{byte(i)}, n)...)
			ends[len(wire)] = true
		}
		r := newRecordReader(&segments{rest: wire, size: int(cut)*20 + 1})
		var got []byte
		p := make([]byte, int(space)*50+1)
		for {
			n, err := r.Read(p)
			for at := len(got) + 1; at < len(got)+n; at++ {
				if ends[at] {
					t.Fatalf("a read of %d bytes at %d goes over the end of a record", n, len(got))
				}
			}
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if left := len(wire) - len(got); r.buffered() > left {
				t.Fatalf("%d bytes buffered, %d are left", r.buffered(), left)
			}
		}
		if !bytes.Equal(got, wire) || !r.torn || r.buffered() != 0 {
			t.Fatalf("%d of %d bytes came out", len(got), len(wire))
		}
	})
}

// segments is a connection that delivers at most size bytes per read.
type segments struct {
	net.Conn
	rest []byte
	size int
}

func (s *segments) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(s.size, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}
