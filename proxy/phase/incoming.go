package phase

import (
	"io"

	"headgate/proxy/fault"
)

// Incoming is a request body, or the rest of one, that is still on its way from the client. The goroutine that owns the exchange reads it,
// or the one that it has started for that; they never read at the same time.
type Incoming interface {
	// Read returns body bytes, without their framing; io.EOF with the last ones or after them, else the *fault.Fault that ended the
	// body. It may wait for the client, for as long as that may pause. Errors stay.
	io.Reader
	// Trailers returns the lines behind the body that may go on, each with CRLF, once Read has returned io.EOF; nil when there are none.
	// They stay valid until the exchange ends.
	Trailers() []byte
	// Announced is the length of the whole body in bytes, -1 when the client has not said it.
	Announced() int64
	// Limit lowers how many bytes the whole body may have; a longer one ends with fault.BodyTooLarge.
	Limit(n int64)
	// Invite tells a client that waits for it (Expect: 100-continue) to send the body. To be called before Read, by the goroutine
	// that may write to the client.
	Invite() error
	// Hold is called before much of the body is collected in memory. It may wait until there is room.
	Hold() error
	// Interrupt gets a goroutine out of Read and makes every later Read fail. Any goroutine may call it.
	Interrupt()
}

// Expectant is an Incoming that knows whether its client still waits for Invite.
type Expectant interface {
	Incoming
	Expects() bool
}

// BodySize is the length of the request body in bytes, -1 as long as it is not known.
func (q *Request) BodySize() int64 {
	if q.Incoming != nil {
		return q.Incoming.Announced()
	}
	return int64(len(q.Body))
}

// HoldBody makes Request.Body the whole body, which for a long one means to wait for the client. When it cannot be had (it is longer than
// Settings.MaxHeldBody, or the client has failed to send it) the exchange is answered, and the caller returns Stop.
func (x *Exchange) HoldBody() bool {
	q := &x.Request
	if q.Incoming == nil {
		return true
	}
	if x.TryHold(x.settings.MaxHeldBody) {
		return true
	}
	f := q.Broken
	if f == nil {
		f = fault.BodyTooLarge
	}
	x.Fail(f)
	return false
}

// TryHold makes Request.Body the whole body when that has at most limit bytes, and says whether it has. Otherwise Body is a beginning of it
// and Incoming the rest, if there is one, or Request.Broken says why there will be none. It does not wait for a body that is announced
// to be longer.
func (x *Exchange) TryHold(limit int) bool {
	q := &x.Request
	if q.Incoming == nil {
		return q.Broken == nil && len(q.Body) <= limit
	}
	size := q.Incoming.Announced()
	if q.Broken != nil || size > int64(limit) {
		return false
	}
	if q.Incoming.Invite() != nil {
		return x.broken(fault.ClientGone)
	}
	most := int64(limit) + 1 // one more shows that it is too long
	if size >= 0 {
		most = size + 1
	}
	b := x.held[:0]
	if len(q.Body) > 0 {
		b = x.held[:len(q.Body)] // it is where the last call has left it
	}
	for {
		if len(b) == cap(b) { // the room grows with what has come, not with what was announced
			if len(b) >= maxKept {
				if err := q.Incoming.Hold(); err != nil {
					return x.broken(err)
				}
			}
			room := min(max(2*int64(len(b)), firstHold), most)
			if !x.settings.Memory.Take(int(room), len(b) >= maxKept) {
				return x.broken(fault.Overloaded)
			}
			next := make([]byte, len(b), room)
			copy(next, b)
			b = next
		}
		n, err := q.Incoming.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		x.held, q.Body = b, b
		switch {
		case err == io.EOF:
			q.Trailers, q.Incoming = q.Incoming.Trailers(), nil
			return len(b) <= limit
		case err != nil:
			return x.broken(err)
		case len(b) > limit:
			return false
		}
	}
}

func (x *Exchange) broken(err error) bool {
	f, ok := err.(*fault.Fault)
	if !ok {
		f = fault.BadRequest
	}
	x.Request.Broken = f
	return false
}

// firstHold is the space in bytes that a body gets at first.
const firstHold = 8 << 10
