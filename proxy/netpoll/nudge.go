package netpoll

// ErrNudged is what a Read that yields returns when somebody has called Nudge. It is a temporary net.Error, so that TLS over the connection
// goes on afterwards as if nothing had been asked of it.
var ErrNudged error = nudge{}

type nudge struct{}

func (nudge) Error() string   { return "nudged" }
func (nudge) Timeout() bool   { return true }
func (nudge) Temporary() bool { return true }

// Yields says whether Reads from now on may return ErrNudged. It is for the goroutine that reads.
func (c *Conn) Yields(yes bool) { c.yields = yes }

// Nudge makes a Read that waits, and yields, return ErrNudged. Nothing is lost: what has come stays in the socket. Other Reads go on, so
// that who nudges need not know what the reader is doing. It is a hint, which a reader may miss that moves its deadline at this moment.
// Any goroutine may call it at any time.
func (c *Conn) Nudge() {
	c.nudged.Store(true)
	_ = c.Conn.SetReadDeadline(longAgo)
}

// again is asked when a Read has met a deadline that has passed: nil when it is to be tried again, otherwise what it returns.
func (c *Conn) again(err error) error {
	switch nudged := c.nudged.Load() && c.nudged.Swap(false); {
	case nudged && c.yields:
		return ErrNudged
	case nudged:
		c.read.armed = c.read.want
	case !c.read.early():
		return err
	}
	return c.armRead(c.read.want)
}
