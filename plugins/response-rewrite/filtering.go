package responserewrite

import (
	"bytes"
	"compress/gzip"
	"io"
	"sync"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// filtering is a plugin whose filters need the whole body: pieces are held back until the last one is there. What cannot be filtered does
// not go out unfiltered: a body beyond the limit, or one that is not what its Content-Encoding says, becomes a 502, or breaks the answer
// off once its head has left. Bodies in an encoding other than gzip pass as they are, header lines about them included.
type filtering struct {
	plugin
	filters []*filter
	limit   int64
	slot    int
	held    sync.Pool // *held
}

// held is the body of one exchange.
type held struct {
	gzip     bool
	body     []byte // pieces so far; then every other of the filters' results
	filtered []byte
}

// maxKept bounds the memory in bytes that a resting buffer holds on to.
const maxKept = 64 << 10

// Response implements phase.Responder.
func (p *filtering) Response(x *phase.Exchange) {
	if p.when != nil && !p.when.True(x) {
		return
	}
	encoding, _ := x.Response.Header.Get("Content-Encoding")
	if r := &x.Response; r.Stream != nil && r.Size > p.limit { // the head has not left: the client can still be told
		r.Header.Reset()
		x.Fail(fault.BadBody)
		return
	}
	zipped := phase.EqualName(encoding, "gzip") || phase.EqualName(encoding, "x-gzip")
	p.rewrite(x)
	if zipped || len(encoding) == 0 || phase.EqualName(encoding, "identity") {
		h, _ := p.held.Get().(*held)
		if h == nil {
			h = &held{}
		}
		h.gzip = zipped
		x.Slot(p.slot).Ptr = h
		forgetBody(x)
	}
	p.rewriteLines(x)
}

// Wants implements phase.Chooser.
func (p *filtering) Wants(x *phase.Exchange) bool { return x.Slot(p.slot).Ptr != nil }

// Chunk implements phase.Chunker.
func (p *filtering) Chunk(x *phase.Exchange, piece []byte, last bool) ([]byte, error) {
	h, _ := x.Slot(p.slot).Ptr.(*held)
	if h == nil {
		return piece, nil
	}
	if int64(len(h.body)+len(piece)) > p.limit {
		return nil, fault.BadBody
	}
	h.body = append(h.body, piece...)
	if !last {
		return nil, nil
	}
	if h.gzip && len(h.body) > 0 {
		if err := h.unzip(p.limit); err != nil {
			return nil, err
		}
	}
	for _, f := range p.filters {
		out, found, err := f.apply(h.filtered[:0], h.body)
		if err != nil {
			return nil, fault.BadBody
		}
		if found {
			h.body, h.filtered = out, h.body
		}
	}
	return h.body, nil
}

// unzip replaces the body by what it is the compressed form of, at most limit bytes.
func (h *held) unzip(limit int64) error {
	z, err := gzip.NewReader(bytes.NewReader(h.body))
	if err != nil {
		return fault.BadBody
	}
	out := bytes.NewBuffer(h.filtered[:0])
	n, err := out.ReadFrom(io.LimitReader(z, limit+1))
	if err != nil || n > limit {
		return fault.BadBody
	}
	h.body, h.filtered = out.Bytes(), h.body
	return nil
}

// Done implements phase.Finisher.
func (p *filtering) Done(x *phase.Exchange) {
	s := x.Slot(p.slot)
	h, _ := s.Ptr.(*held)
	if h == nil {
		return
	}
	s.Ptr = nil
	if cap(h.body)+cap(h.filtered) > maxKept {
		return
	}
	h.body, h.filtered = h.body[:0], h.filtered[:0]
	p.held.Put(h)
}

var (
	_ phase.Responder = (*filtering)(nil)
	_ phase.Chooser   = (*filtering)(nil)
	_ phase.Finisher  = (*filtering)(nil)
)
