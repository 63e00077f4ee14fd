package upstream

import (
	"encoding/binary"
	"io"
	"net"
)

// recordReader stands between crypto/tls and the socket and hands over at most one TLS record per read. crypto/tls reads ahead
// into a buffer that cannot be inspected; this way whatever came in too much stays here, where buffered shows it.
type recordReader struct {
	net.Conn
	buf        []byte
	start, end int
	rest       int // bytes of the current record that have not been handed over
	// torn says that the socket has ended. When crypto/tls reports the end of the stream without that, a closing alert came first.
	torn bool
}

const (
	tlsHeader  = 5
	readAround = 4 << 10
)

func newRecordReader(nc net.Conn) *recordReader {
	return &recordReader{Conn: nc, buf: make([]byte, readAround)}
}

// buffered is the number of bytes taken from the socket that crypto/tls has not seen.
func (r *recordReader) buffered() int { return r.end - r.start }

func (r *recordReader) Read(p []byte) (int, error) {
	if r.rest == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	if len(p) > r.rest { // never past the end of the record
		p = p[:r.rest]
	}
	if r.start == r.end {
		n, err := r.fromSocket(p)
		r.rest -= n
		return n, err
	}
	n := copy(p, r.buf[r.start:r.end])
	r.start += n
	r.rest -= n
	return n, nil
}

// next reads on until the header of the next record is there.
func (r *recordReader) next() error {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	for r.end-r.start < tlsHeader {
		if r.start > 0 {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		}
		n, err := r.fromSocket(r.buf[r.end:])
		r.end += n
		if n == 0 {
			return err
		}
	}
	r.rest = tlsHeader + int(binary.BigEndian.Uint16(r.buf[r.start+3:]))
	return nil
}

func (r *recordReader) fromSocket(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	if n > 0 {
		err = nil // it will come again
	}
	r.torn = err == io.EOF
	return n, err
}
