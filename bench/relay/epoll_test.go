package relay

import (
	"io"
	"net"
	"testing"
)

// Many pairs, many messages each way; then the end of one side ends the other.
func TestEpollRelaysPingPong(t *testing.T) {
	up := listen(t)
	go func() {
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	ln := listen(t)
	go ServeEpoll(ln, up.Addr().String()) // ends with the process
	for i := range 8 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		message, back := make([]byte, 100*i+1), make([]byte, 100*i+1)
		for n := range 20 {
			message[0] = byte(n)
			if _, err := c.Write(message); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, back); err != nil || string(back) != string(message) {
				t.Fatalf("connection %d, message %d: %v", i, n, err)
			}
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(back); n != 0 || err == nil {
			t.Errorf("connection %d: %d bytes, %v after its end", i, n, err)
		}
	}
}

func TestEpollNoUpstreamClosesTheClient(t *testing.T) {
	gone := listen(t)
	gone.Close()
	ln := listen(t)
	go ServeEpoll(ln, gone.Addr().String()) // ends with the process
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v; want the connection closed", n, err)
	}
}
