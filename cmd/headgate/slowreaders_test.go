package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Bounds of reliability F28, in bytes.
const (
	slowReadersGrowth = 64 << 20 // of the resident memory, for all streams
	// slowReaderAhead is how much the upstream of one stream may have got rid of that its client has not read: 64 KiB in the gateway, the rest
	// in the kernel's buffers of four sockets.
	slowReaderAhead = 2 << 20
)

// hasty is an upstream that sends events as fast as they are taken.
type hasty struct {
	addr           string
	begun, ended   atomic.Int64  // streams
	sent, greatest atomic.Int64  // bytes, of all streams and of the one that got rid of most
	silence        atomic.Int64  // nanoseconds between the last event that was taken whole and the end, at most
	all            chan struct{} // closed when they may go on behind their heads
}

func newHasty(t testing.TB) *hasty {
	h := &hasty{all: make(chan struct{})}
	h.addr = rawServer(t, func(c net.Conn) { h.serve(c.(*net.TCPConn)) })
	return h
}

func (h *hasty) serve(c *net.TCPConn) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	if req.URL.Path == "/short" {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		return
	}
	_ = c.SetWriteBuffer(64 << 10)
	if _, err := io.WriteString(c, sseHead+chunk("data: hello\n\n")); err != nil {
		return
	}
	h.begun.Add(1)
	<-h.all
	event := []byte(chunk("data: " + strings.Repeat("x", 16<<10) + "\n\n"))
	sum, last := int64(0), time.Now()
	for {
		n, err := c.Write(event)
		sum += int64(n)
		h.sent.Add(int64(n))
		if err != nil {
			break
		}
		last = time.Now()
	}
	raise(&h.greatest, sum)
	raise(&h.silence, int64(time.Since(last)))
	h.ended.Add(1)
}

func raise(a *atomic.Int64, n int64) {
	for old := a.Load(); n > old && !a.CompareAndSwap(old, n); old = a.Load() {
	}
}

// TestFault28SlowReaders: clients that do not read stop their upstreams, cost the gateway no more than its buffers, and are let go when they
// have taken nothing for write_timeout; others are served meanwhile.
func TestFault28SlowReaders(t *testing.T) {
	const readers = 1000
	const stall = 8 * time.Second
	up := newHasty(t)
	dir := t.TempDir()
	config := childConfigText(t, dir, fmt.Sprintf("[store]\nprovider = \"mem\"\n[[routes]]\nid = \"all\"\nuri = \"/*\"\n[routes.upstream]\nnodes = { %q = 1 }\n", up.addr))
	file := filepath.Join(dir, "slow.toml")
	writeFile(t, file, strings.Replace(config, "[gateway]\n", fmt.Sprintf("[gateway]\nwrite_timeout = %q\n", stall), 1))
	c := startChild(t, dir, "run", "-c", file)
	v := &volume{child: c, url: "http://" + c.addr("gateway"), client: newClient(t)}
	short := func() {
		t.Helper()
		if a := send(t, v.client, "GET", v.url+"/short", ""); a.status != 200 || a.body != "ok" {
			t.Error(a)
		}
	}
	for range 20 {
		short()
	}
	before, _ := v.memory()
	v.forget()

	// A client whose window is small from the beginning.
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		})
		if err != nil {
			return err
		}
		return failed
	}}
	clients := make([]net.Conn, readers)
	for i := range clients {
		nc, err := dialer.Dial("tcp", v.addr("gateway"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := io.WriteString(nc, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		clients[i] = nc
	}
	eventually(t, "all streams to have begun", func() bool { return up.begun.Load() == readers })
	close(up.all)
	short()
	eventually(t, "all streams to be over", func() bool { return up.ended.Load() == readers })
	short()
	_, highest := v.memory()
	cut := 0
	for _, nc := range clients {
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(nc)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() || strings.HasSuffix(string(got), "0\r\n\r\n") {
			t.Errorf("a client that did not read got %d bytes, %v", len(got), err)
			continue
		}
		cut++
	}
	if grown := highest - before; grown > slowReadersGrowth {
		t.Errorf("the memory has grown from %d to %d KiB", before>>10, highest>>10)
	}
	if up.greatest.Load() > slowReaderAhead {
		t.Errorf("an upstream got rid of %d bytes", up.greatest.Load())
	}
	t.Logf("F28: %d slow readers at once: RSS +%.1f MiB; upstreams stopped after %d KiB each, at most %d KiB; %d of %d cut, at most %.1f s after an upstream's last event (write_timeout %s)",
		readers, float64(highest-before)/(1<<20), up.sent.Load()/readers>>10, up.greatest.Load()>>10, cut, readers, time.Duration(up.silence.Load()).Seconds(), stall)
}
