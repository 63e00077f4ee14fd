package proxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxUnsent is how many bytes of an answer, beyond those on their way, may wait in the kernel for a client that does not take them. It would let
// megabytes wait before a write stops, and with it the upstream: for a thousand clients that read slowly that is more than all else they cost.
// What is on its way is bounded by the client's window alone, so that nobody's download becomes slower.
const maxUnsent = 128 << 10

// boundUnsent sets that bound. A connection that cannot have it does without.
func boundUnsent(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}
