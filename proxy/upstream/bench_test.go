package upstream

import (
	"strconv"
	"testing"
	"time"

	"headgate/proxy/phase"
)

// poolRound takes a connection out of a pool, as an exchange does, and puts it back.
func poolRound(t testing.TB) func() {
	p := newPool("test", nil, PoolOptions{Size: 320, IdleTimeout: time.Minute})
	fd := quietSocket(t)
	for range 8 {
		p.put(&conn{Conn: &token{t: t}, fd: fd, pool: p}, time.Now())
	}
	return func() {
		now := time.Now()
		c, f := p.get(nil, now, time.Second, 0)
		if f != nil {
			t.Fatal(f)
		}
		p.put(c, now)
	}
}

func BenchmarkPool(b *testing.B) {
	round := poolRound(b)
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			round()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				round()
			}
		})
	})
}

// BenchmarkForward is an exchange with everything that belongs to it, the test upstream's work included.
func BenchmarkForward(b *testing.B) {
	for _, name := range []string{"length", "chunked", "stream"} {
		for _, secure := range []bool{false, true} {
			b.Run(name+"/tls="+strconv.FormatBool(secure), func(b *testing.B) {
				forward := warm(b, secure, warmReplies[name])
				b.ReportAllocs()
				for b.Loop() {
					if f := forward(); f != nil {
						b.Fatal(f)
					}
				}
			})
		}
	}
}

func BenchmarkParseHead(b *testing.B) {
	head := []byte("HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 02:00:00 GMT\r\n" + serverLines + "Content-Length: 512\r\n\r\n")
	var h phase.Header
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		h.Reset()
		if _, f := parseHead(head, false, &h, AnswerLines{}); f != nil {
			b.Fatal(f)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	x := request("POST", "/v1/chat/completions", "data")
	for i := range 12 {
		x.Request.Header.Add([]byte("X-Line-"+strconv.Itoa(i)), []byte("some value that a client has sent"))
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, refused := appendRequest(out[:0], x, x.Request.Authority)
		if refused != nil {
			b.Fatal(refused)
		}
		out = dst
	}
	b.SetBytes(int64(len(out)))
}
