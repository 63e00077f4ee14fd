package upstream

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// Request bodies that are too long for one write with their head, or not there yet.
const (
	// uploadPiece is how much of one is written under one send timeout, and read from the client at once.
	uploadPiece = 64 << 10
	// uploadTick is how often the reader looks whether the body has left, which starts the clock for the answer.
	uploadTick = 50 * time.Millisecond
	// earlyAnswer is how long an answer is waited for when the request could not be written whole.
	earlyAnswer = 200 * time.Millisecond
	// inviteAfter is how long an answer to the head alone is waited for when the client waits, too, before it sends the body.
	inviteAfter = 50 * time.Millisecond
)

// upload is a request body on its way. It is written beside the reading of the answer, because an upstream may answer without reading
// it all, and then perhaps not read on (RFC 9110 section 15.5.14; reliability C5). What the client has yet to send is asked for piece by
// piece, when the upstream has taken the one before.
type upload struct {
	c        *conn
	body     []byte         // held
	trailers []byte         // behind body; nil when from has them
	from     phase.Incoming // what comes behind body; nil = nothing
	send     time.Duration  // for one piece

	done chan struct{}
	err  error // valid when done is closed
}

// begin starts the body of q, which a client that waits for that is told to send.
func (c *conn) begin(q *phase.Request, send time.Duration) error {
	c.held = nil
	if q.Incoming != nil {
		q.Spent = true
		if q.Incoming.Invite() != nil {
			return fault.ClientGone
		}
	}
	c.startUpload(q, send)
	return nil
}

// startUpload sends the body of q. The exchange must not end before the upload has, or abort was called.
func (c *conn) startUpload(q *phase.Request, send time.Duration) {
	up := &upload{c: c, body: q.Body, trailers: q.Trailers, from: q.Incoming, send: send, done: make(chan struct{})}
	c.upload = up
	if send > peerPatience {
		c.expect(send + time.Second) // its own clock comes first
	}
	go up.run()
}

func (up *upload) run() {
	switch {
	case up.from == nil && len(up.trailers) == 0:
		up.err = up.write(up.body)
	case up.from != nil && up.from.Announced() >= 0:
		if up.err = up.write(up.body); up.err == nil {
			up.err = up.pass(false)
		}
	default:
		up.err = up.pass(true)
	}
	_, client := up.err.(*fault.Fault)
	close(up.done)
	if client { // the rest of the request will never come, so there is nothing to wait for
		_ = up.c.socket.Close()
	}
}

// write sends b in pieces.
func (up *upload) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), uploadPiece)
		if err := up.c.SetWriteDeadline(time.Now().Add(up.send)); err != nil {
			return err
		}
		if _, err := up.c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

const (
	chunkHead = len("ffffffff\r\n")
	chunkTail = len("\r\n0\r\n\r\n")
)

var uploadBuffers = sync.Pool{New: func() any { return new([chunkHead + uploadPiece + chunkTail]byte) }}

// pass sends what the client sends, until that ends; in chunks, and then the held part before it, when its length is not known.
func (up *upload) pass(chunked bool) error {
	buf := uploadBuffers.Get().(*[chunkHead + uploadPiece + chunkTail]byte)
	defer uploadBuffers.Put(buf)
	if chunked {
		for len(up.body) > 0 {
			n := copy(buf[chunkHead:chunkHead+uploadPiece], up.body)
			up.body = up.body[n:]
			if err := up.write(frame(buf, n, false)); err != nil {
				return err
			}
		}
	}
	if up.from == nil {
		return up.write(appendEnd(buf[:0], up.trailers))
	}
	for {
		n, end := up.from.Read(buf[chunkHead : chunkHead+uploadPiece])
		if end != nil && end != io.EOF {
			return end
		}
		piece := buf[chunkHead : chunkHead+n]
		if chunked {
			if end == io.EOF {
				up.trailers = up.from.Trailers()
			}
			piece = frame(buf, n, end == io.EOF && len(up.trailers) == 0)
		}
		switch err := up.write(piece); {
		case err != nil:
			return err
		case end == io.EOF && len(up.trailers) > 0:
			return up.write(appendEnd(buf[:0], up.trailers))
		case end == io.EOF:
			return nil
		}
	}
}

// frame makes a chunk of the n bytes behind the room for its head. last adds the end of the body.
func frame(buf *[chunkHead + uploadPiece + chunkTail]byte, n int, last bool) []byte {
	start, end := chunkHead, chunkHead+n
	if n > 0 {
		var size [chunkHead]byte
		line := append(strconv.AppendUint(size[:0], uint64(n), 16), '\r', '\n')
		start -= copy(buf[chunkHead-len(line):], line)
		end += copy(buf[end:], "\r\n")
	}
	if last {
		end += copy(buf[end:], "0\r\n\r\n")
	}
	return buf[start:end]
}

// stop waits for the end of an upload whose connection has been closed.
func (up *upload) stop() {
	select {
	case <-up.done:
		return
	default:
	}
	if up.from != nil {
		up.from.Interrupt()
	}
	<-up.done
}

// sent says that the request has been written whole.
func (c *conn) sent() bool {
	if c.upload == nil {
		return c.unsent == nil && c.held == nil
	}
	select {
	case <-c.upload.done:
		c.unsent = sendFault(c.upload.err)
		if c.upload.send > peerPatience && c.unsent == nil {
			c.expect(peerPatience)
		}
		c.upload = nil
		return c.unsent == nil
	default:
		return false
	}
}

// readDuringUpload reads while the request body may still be leaving. The clock of the answer starts when it has left, that of the exchange
// runs all the time.
func (u *Upstream) readDuringUpload(x *phase.Exchange, c *conn, p []byte) (int, error) {
	if c.held != nil {
		if err := c.SetReadDeadline(time.Now().Add(u.left(x, u.look))); err != nil {
			return 0, err
		}
		n, err := c.Read(p)
		if n > 0 || !isTimeout(err) || c.socket.Interrupted() || u.over(x) {
			return n, err // not a byte of the body has to come if this is an answer
		}
		if c.unsent = sendFault(c.begin(c.held, u.send)); c.unsent != nil {
			return 0, err
		}
	}
	for c.upload != nil {
		patience := uploadTick
		if c.sent() {
			patience = u.left(x, u.head)
		} else if c.unsent != nil {
			patience = earlyAnswer
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return 0, err
		}
		n, err := c.Read(p)
		if n > 0 || c.upload == nil || !isTimeout(err) || c.socket.Interrupted() || u.over(x) {
			return n, err
		}
	}
	return c.Read(p)
}

// sendFault is what an error of the connection counts as; a fault of the client, who did not send its body, is one already.
func sendFault(err error) *fault.Fault {
	if f, ok := err.(*fault.Fault); ok {
		return f
	}
	switch {
	case err == nil:
		return nil
	case isTimeout(err):
		return fault.SendTimeout
	}
	return fault.SendFailed
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
