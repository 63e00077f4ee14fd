package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
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
		r, refused := parseHead(b, isHead, &h, AnswerLines{})
		if refused != nil {
			return
		}
		if !plausible(b) {
			t.Fatal("accepted, but not plausible")
		}
		var again phase.Header
		plain := serialise(r, &h)
		r2, refused := parseHead(plain, isHead, &again, AnswerLines{})
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
