package netpoll

import (
	"io"
	"net"
	"time"
)

// Bounds of Linger.
const (
	LingerTime  = 2 * time.Second
	LingerBytes = 64 << 20
)

// Linger ends the sending direction of c and throws away what still comes in, at most LingerBytes and for at most LingerTime, so that a
// client which is still sending gets the answer that was written before: the kernel throws an answer away when the connection is
// closed over bytes that nobody has read (RFC 9112 section 9.6). The caller closes c afterwards. Nobody else may be reading; a Close by
// anybody ends it.
func Linger(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(LingerTime))
	_, _ = io.CopyN(io.Discard, c, LingerBytes)
}
