package load

import "time"

// Client is one keep-alive connection for requests that are sent one at a
// time. It is not safe for concurrent use.
type Client struct{ w worker }

// Dial connects to addr. timeout is for dialling, and about as much for one answer.
func Dial(addr string, timeout time.Duration) (*Client, error) {
	c := &Client{worker{g: &Generator{cfg: Config{Addr: addr, Timeout: timeout}}, buf: make([]byte, 4<<10)}}
	return c, c.connect()
}

func (c *Client) connect() (err error) {
	c.w.conn, err = dial(c.w.g.cfg)
	return err
}

// Do sends a whole request and returns the status and the bytes of the answer,
// head and body, which are valid until the next call. After an error, and after
// an answer that ends the connection, the next call dials again.
func (c *Client) Do(request []byte) (status int, answer []byte, err error) {
	if c.w.conn == nil {
		if err := c.connect(); err != nil {
			return 0, nil, err
		}
	}
	c.w.extend()
	h, err := c.w.exchange(request)
	if err != nil || h.close {
		c.w.hangUp()
	}
	return h.status, c.w.buf[:h.size+h.body], err
}

// Close ends the connection.
func (c *Client) Close() { c.w.hangUp() }
