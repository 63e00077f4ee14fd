package relay

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func startRelay(t *testing.T, upstream string) string {
	t.Helper()
	ln := listen(t)
	done := make(chan error, 1)
	go func() { done <- Serve(ln, upstream) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// The upstream answers with everything it got only after the client has
// half-closed, so the test needs both directions and the half-close.
func TestRelaysBothWays(t *testing.T) {
	up := listen(t)
	go func() {
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				c.Write(append([]byte("echo:"), b...))
			}()
		}
	}()
	addr := startRelay(t, up.Addr().String())

	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			sent := bytes.Repeat([]byte{byte('a' + i)}, 3*bufferSize+i)
			if _, err := c.Write(sent); err != nil {
				t.Error(err)
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || string(got) != "echo:"+string(sent) {
				t.Errorf("client %d: %d bytes back, want %d (%v)", i, len(got), len(sent)+5, err)
			}
		})
	}
	clients.Wait()
}

func TestNoUpstreamClosesTheClient(t *testing.T) {
	gone := listen(t)
	gone.Close()
	c, err := net.Dial("tcp", startRelay(t, gone.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v; want the connection closed", n, err)
	}
}
