package wire

import (
	"bytes"
	"io"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// dechunk feeds b to a reader in segments of at most step bytes, as a stream would, and takes pieces of at most most bytes. whole says that the body ended; rest is what is behind it.
func dechunk(b []byte, step, most int) (body []byte, rest int, whole, bad bool) {
	body, _, rest, whole, bad = takeApart(b, step, most)
	return body, rest, whole, bad
}

func takeApart(b []byte, step, most int) (body, trailers []byte, rest int, whole, bad bool) {
	var r Chunks
	pending := []byte{}
	for {
		p, used, ok := r.Next(pending, most)
		body = append(body, p...)
		pending = pending[used:]
		switch {
		case !ok:
			return body, nil, 0, false, true
		case r.Done() && len(p) == 0:
			return body, r.Trailers(), len(pending) + len(b), true, false
		case len(p) > 0:
			continue
		case len(b) == 0:
			return body, nil, 0, false, false
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
		body, section, rest, whole, bad := takeApart(b, len(b)+1, len(b)+1)
		body2, rest2, whole2, bad2 := dechunk(b, max(step&63, 1), max(step>>6&63, 1))
		if whole != whole2 || bad != bad2 || rest != rest2 || !bytes.Equal(body, body2) {
			t.Fatalf("%q: %q %d %t %t; in segments of %d: %q %d %t %t", b, body, rest, whole, bad, step, body2, rest2, whole2, bad2)
		}
		in := slices.Clone(b)
		got, trailers, used, ok, valid := Unchunk(in)
		if ok != whole || valid == bad {
			t.Fatalf("%q: at once %t %t, as a stream %t %t", b, ok, valid, whole, bad)
		}
		if !ok {
			if !bytes.Equal(in, b) {
				t.Fatalf("%q: an incomplete body was changed to %q", b, in)
			}
			return
		}
		if !bytes.Equal(got, body) || !bytes.Equal(trailers, section) || len(b)-used != rest {
			t.Fatalf("%q: at once %q, %q and %d left, as a stream %q, %q and %d", b, got, trailers, len(b)-used, body, section, rest)
		}
		reference, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err == nil && !bytes.Equal(reference, body) {
			t.Fatalf("%q: %q, the reference reads %q", b, body, reference)
		}
	})
}

func TestChunks(t *testing.T) {
	long := strings.Repeat("a", maxChunkLine)
	for _, tt := range []struct {
		in, body  string
		rest      int
		whole, ok bool
	}{
		{"5\r\nhello\r\n0\r\n\r\n", "hello", 0, true, true},
		{"5 ;a=\"b\"\r\nhello\r\n000\r\nX: y\r\n\r\nGET", "hello", 3, true, true},
		{"5\r\nhello\r\n", "hello", 0, false, true},
		{"5\r\nhello\r\n0\r\n", "hello", 0, false, true},
		{"5 \r\nhello\r\n0\r\n\r\n", "", 0, false, false},
		{"5\nhello\r\n0\r\n\r\n", "", 0, false, false},
		{"5;a\x00\r\nhello\r\n0\r\n\r\n", "", 0, false, false},
		{"5;" + long + "\r\nhello\r\n0\r\n\r\n", "", 0, false, false},
		{"5;" + long, "", 0, false, false},
		{strings.Repeat("1;"+long[:1000]+"\r\nx\r\n", 17), strings.Repeat("x", 16), 0, false, false},
		{"-5\r\nhello", "", 0, false, false},
		{"0x5\r\nhello", "", 0, false, false},
		{"1000000000000000\r\n", "", 0, false, false},
		{"2\r\nokk\r\n0\r\n\r\n", "ok", 0, false, false},
		{"0\r\nX y: 1\r\n\r\n", "", 0, false, false},
		{"0\r\n: 1\r\n\r\n", "", 0, false, false},
		{"0\r\nX: 1\n\r\n", "", 0, false, false},
		{"0\r\n" + strings.Repeat("X: 1\r\n", MaxTrailers/4) + "\r\n", "", 0, true, true},
		{"0\r\n" + strings.Repeat("X: 1\r\n", MaxTrailers/4+1) + "\r\n", "", 0, false, false},
		{"0\r\nX: " + strings.Repeat("1", MaxTrailers) + "\r\n\r\n", "", 0, false, false},
	} {
		for step := 1; step <= len(tt.in); step += 1 + step/2 {
			body, rest, whole, bad := dechunk([]byte(tt.in), step, 4)
			if string(body) != tt.body && tt.ok || rest != tt.rest || whole != tt.whole || bad == tt.ok {
				t.Errorf("%.40q in segments of %d: %q, %d left, whole %t, bad %t", tt.in, step, body, rest, whole, bad)
			}
		}
	}
}

// TestTrailers: the section is the same whether the body is there at once or comes in pieces, and of too many lines there are none.
func TestTrailers(t *testing.T) {
	many := strings.Repeat("X: 1\r\n", MaxTrailerLines)
	for in, want := range map[string]string{
		"0\r\n\r\n": "", "3\r\nabc\r\n0\r\n\r\nGET": "", "3\r\nabc\r\n0;x=y\r\nA: b\r\n\r\nC: d\r\n\r\n": "A: b\r\n", "0\r\nA:b \r\nC:\r\n\r\n": "A:b \r\nC:\r\n",
		"0\r\n" + many + "\r\n": many, "0\r\n" + many + "X: 1\r\n\r\n": "",
	} {
		body, got, _, whole, ok := Unchunk([]byte(in))
		if string(got) != want || !whole || !ok {
			t.Errorf("%q: %q, %t, %t", in, got, whole, ok)
		}
		if _ = append(body, "xxxxxxxx"...); string(got) != want {
			t.Errorf("%q: who appends to the body writes to what is behind it: %q", in, got)
		}
		for step := 1; step <= len(in); step++ {
			var r Chunks
			pending, rest := []byte{}, in
			for !r.Done() {
				if r.Trailers() != nil {
					t.Fatalf("%q: there before the end", in)
				}
				n := min(step, len(rest))
				pending, rest = append(slices.Clone(pending), rest[:n]...), rest[n:]
				for more := true; more; {
					p, used, ok := r.Next(pending, len(pending))
					if !ok {
						t.Fatalf("%q is refused", in)
					}
					pending, more = pending[used:], len(p) > 0
				}
			}
			if got := r.Trailers(); string(got) != want {
				t.Errorf("%q in segments of %d: %q", in, step, got)
			}
		}
	}
}

func TestNextField(t *testing.T) {
	var got []string
	for section := []byte("A: b\r\nc:\t d e \r\nF:\r\n"); len(section) > 0; {
		var f phase.Field
		f, section = NextField(section)
		got = append(got, string(f.Name)+"="+string(f.Value))
	}
	if s := strings.Join(got, "|"); s != "A=b|c=d e|F=" {
		t.Errorf("%s", s)
	}
}
