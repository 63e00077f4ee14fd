package netpoll

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Waiting says whether bytes have come that nobody has read. It is false for what is no socket. Any goroutine may call it at any time.
func (c *Conn) Waiting() (waiting bool) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		waiting = err == nil && n > 0
	})
	return waiting
}
