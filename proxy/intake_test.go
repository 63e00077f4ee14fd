package proxy

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"headgate/proxy/fault"
)

func TestHeadScan(t *testing.T) {
	for _, tt := range []struct {
		in  string
		end int
	}{
		{"GET / HTTP/1.1\r\nA: b\r\n\r\nrest", 24},
		{"\r\n\r\n\nGET / HTTP/1.1\r\n\r\nrest", 23},
		{"GET / HTTP/1.1\nA: b\n\nrest", 21},
		{"GET / HTTP/1.1\r\nA: b\n\r\nrest", 23},
		{"GET / HTTP/1.1\r\n\r\r\n\r\n", 21},
		{"GET / HTTP/1.1\r\n\rA: b\r\n", -1},
		{"GET / HTTP/1.1\r\nA: b\r\n", -1},
		{"\r\n\r\n", -1},
		{"", -1},
	} {
		for step := 1; step <= len(tt.in)+1; step++ {
			if got := scanInPieces([]byte(tt.in), step); got != tt.end {
				t.Errorf("%q in pieces of %d: %d, want %d", tt.in, step, got, tt.end)
			}
		}
	}
}

func scanInPieces(b []byte, step int) int {
	var s headScan
	for at := 0; at < len(b); at += step {
		if end := s.end(b[at:min(at+step, len(b))]); end >= 0 {
			return at + end
		}
	}
	return -1
}

// cuts is a client whose bytes come in pieces of a size.
type cuts struct {
	rest []byte
	size int
}

func (p *cuts) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

// ingest reads one head, one body and all that is behind it, in reads of at most take bytes.
func ingest(in []byte, step, take int, length, limit int64) (head, body, rest []byte, err error) {
	c := newEdgeConn(&scriptConn{in: &cuts{in, step}})
	c.in.mode = atHead
	defer c.in.release()
	p := make([]byte, take)
	for c.in.mode == atHead {
		n, err := c.Read(p)
		if head = append(head, p[:n]...); err != nil {
			return head, nil, nil, err
		}
	}
	if _, err := c.Read(p); err != errHeadEnd {
		return head, nil, nil, io.ErrNoProgress
	}
	whole, f := c.in.begin(length, limit, false)
	if f != nil {
		return head, nil, nil, f
	}
	body = append(body, whole...)
	for c.in.pending.Load() {
		n, err := c.in.Read(p)
		if body = append(body, p[:n]...); err != nil && err != io.EOF {
			return head, body, nil, err
		}
	}
	rest, err = io.ReadAll(c.Conn) // what has not been asked for
	return head, body, append(append([]byte{}, c.in.rest...), rest...), err
}

func TestIntake(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\n\r\n"
	long := strings.Repeat("0123456789", 10_000)
	for _, tt := range []struct {
		name, in, body string
		length         int64
		err            error
	}{
		{"none", "GET", "", 0, nil},
		{"length", "helloGET", "hello", 5, nil},
		{"long", long + "GET", long, 100_000, nil},
		{"short", "hell", "hell", 5, fault.BadRequest},
		{"too long", "", "", 200_001, fault.BodyTooLarge},
		{"chunks", "5;a=b\r\nhello\r\n1 ;c\r\n!\r\n0\r\nX: y\r\n\r\nGET", "hello!", -1, nil},
		{"long chunks", "186a0\r\n" + long + "\r\n0\r\n\r\nGET", long, -1, nil},
		{"no end", "5\r\nhello\r\n", "hello", -1, fault.BadRequest},
		{"bad end", "5\r\nhelloX\r\n0\r\n\r\n", "", -1, fault.BadFraming},
		{"chunks too long", "30d41\r\n" + long, "", -1, fault.BodyTooLarge},
		{"sum too long", "186a0\r\n" + long + "\r\n186a1\r\n" + long, "", -1, fault.BodyTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, step := range []int{1, 7, 4096, 1 << 20} {
				for _, take := range []int{3, 1000, 64 << 10} {
					h, body, rest, err := ingest([]byte(head+tt.in), step, take, tt.length, 200_000)
					if string(h) != head || err != tt.err || err == nil && (string(body) != tt.body || string(rest) != "GET") {
						t.Fatalf("in pieces of %d, read %d at a time: %q, %d bytes, rest %.20q, %v", step, take, h, len(body), rest, err)
					}
				}
			}
		})
	}
}

// FuzzIntake: where the network cuts, and how much is asked for at once, does not matter.
func FuzzIntake(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET"), int64(-1), 3, 4)
	f.Add([]byte("\r\nPOST / HTTP/1.1\n\nhelloGET"), int64(5), 1, 1)
	f.Add([]byte("A\r\n\r\n1;x\r\na\r\n0\r\nX y: z\r\n\r\n"), int64(-1), 2, 9)
	f.Fuzz(func(t *testing.T, in []byte, length int64, step, take int) {
		if len(in) > 4<<10 || length < -1 || length > 1<<20 {
			return
		}
		head, body, rest, err := ingest(in, len(in)+1, 8<<10, length, 1000)
		head2, body2, rest2, err2 := ingest(in, max(step&63, 1), max(take&63, 1), length, 1000)
		if !bytes.Equal(head, head2) || err != err2 || err == nil && (!bytes.Equal(body, body2) || !bytes.Equal(rest, rest2)) {
			t.Fatalf("%q, length %d:\n%q %q %q %v\n%q %q %q %v", in, length, head, body, rest, err, head2, body2, rest2, err2)
		}
		if err == nil && length >= 0 && int64(len(body)) != length {
			t.Fatalf("%d bytes, want %d", len(body), length)
		}
	})
}

func TestAllocIntake(t *testing.T) {
	request := []byte("POST / HTTP/1.1\r\nHost: a\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	src := &cuts{size: 1 << 10}
	c := newEdgeConn(&scriptConn{in: src})
	c.in.mode = atHead
	p := make([]byte, 16<<10)
	noAllocs(t, "a request with a body", func() {
		src.rest = request
		if _, err := c.Read(p); err != nil {
			t.Fatal(err)
		}
		if body, f := c.in.begin(-1, 100, false); f != nil || string(body) != "hello" {
			t.Fatalf("%q, %v", body, f)
		}
		c.in.release()
	})
}
