// Package relay copies bytes between TCP connections and understands none of
// them. It is the floor of the comparison: what moving the bytes of a request
// through a user process costs before any proxy work is done.
package relay

import (
	"errors"
	"net"
	"sync"
)

// bufferSize is per direction and connection, held for the connection's life.
const bufferSize = 32 << 10

// Serve accepts on ln until it is closed and gives each client one upstream
// connection of its own. It returns when the last connection has ended.
func Serve(ln net.Listener, upstream string) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		client, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() { pair(client.(*net.TCPConn), upstream) })
	}
}

func pair(client *net.TCPConn, upstream string) {
	defer client.Close()
	c, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	var up sync.WaitGroup
	up.Go(func() { pump(server, client) })
	pump(client, server)
	up.Wait()
}

// pump copies until src ends, then half-closes dst so that what is under way
// in the other direction still arrives. Plain Read and Write on purpose:
// io.Copy would splice in the kernel, which no HTTP proxy can do with a header.
// A failed write also closes src, or the other pump could wait for ever.
func pump(dst, src *net.TCPConn) {
	buf := make([]byte, bufferSize)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				src.Close()
				dst.Close()
				return
			}
		}
		if err != nil {
			_ = dst.CloseWrite() // fails only when dst is gone, which its own pump sees
			return
		}
	}
}
