package proxycache

import (
	"io"
	"time"

	"headgate/proxy/phase"
)

// Receive implements phase.Receiver: it keeps the answer, when it may be kept, once it is complete.
func (p *plugin) Receive(x *phase.Exchange, lines []phase.Field) {
	v, _ := x.Slot(p.slot).Ptr.(*visit)
	if v == nil {
		return
	}
	r := &x.Response
	if v.forget && r.Status >= 200 && r.Status < 400 { // RFC 9111 section 4.4
		p.zone.purge(&v.key)
	}
	if !v.keep {
		return
	}
	at := x.Start.Add(x.Attempts.Head)
	e := p.keepable(x, v, lines, at)
	if e == nil {
		return
	}
	size := int64(len(r.Body))
	if r.Stream != nil {
		size = r.Size
	}
	if size > p.maxBody || !v.recorder.begin(p.zone, e, v.ticket, p.maxBody, max(size, 0)) {
		return
	}
	names, _ := varyNames(lines)
	e.setVary(names, &x.Request)
	e.setFields(lines, p.cookies)
	if r.Stream == nil {
		v.recorder.add(r.Body)
		v.recorder.complete()
		return
	}
	v.recorder.next, r.Stream = r.Stream, &v.recorder
}

// keepable returns what is to be known of the answer, without its lines, or nil when it may not be kept. at is when it came.
func (p *plugin) keepable(x *phase.Exchange, v *visit, lines []phase.Field, at time.Time) *entry {
	r := &x.Response
	switch {
	case !p.statuses.has(r.Status), r.Status == 206, r.Status == 304: // a part of an answer, and none
		return nil
	case holds(p.skip, x, v.scratch):
		return nil
	}
	d := readDirectives(lines)
	shared := d.public || d.mustRevalidate || d.sMaxAge >= 0
	switch {
	case d.noStore, d.noCache, d.private:
		return nil
	case v.guarded && !shared: // RFC 9111 section 3.5
		return nil
	case !p.cookies && has(lines, "set-cookie"), has(lines, "content-range"):
		return nil
	}
	if _, ok := varyNames(lines); !ok {
		return nil
	}
	lifetime, initial := p.ttl, time.Duration(0)
	if p.control || p.zone.disk != nil {
		given, ok := d.lifetime(lines, at)
		switch {
		case ok:
			lifetime = given
			initial = time.Duration(age(lines))*time.Second + max(x.Attempts.Head-x.Attempts.Connected, 0)
		case p.control:
			return nil
		default:
			lifetime = p.cache.ttl
		}
	}
	if lifetime <= initial {
		return nil
	}
	return &entry{
		key: v.key, variant: v.variant, status: r.Status, headLength: r.HeadLength, shared: shared,
		received: at.UnixNano(), initial: initial, lifetime: lifetime,
	}
}

func has(lines []phase.Field, name string) bool {
	for i := range lines {
		if phase.EqualName(lines[i].Name, name) {
			return true
		}
	}
	return false
}

// recorder passes a body on and keeps a copy of it, which becomes part of the cache when the body has ended as it should. It implements
// phase.Waiter. The zero value records nothing.
type recorder struct {
	next      phase.Stream
	zone      *zone
	e         *entry // nil when nothing is recorded
	ticket    uint64
	limit     int64
	announced int64 // length of the body, 0 when it is not known
	body      []byte
	reserved  int64
}

// firstRoom is the room in bytes for the beginning of a body whose length is not known.
const firstRoom = 16 << 10

// begin gets ready for a body of size bytes, 0 when that is not known, and at most limit. False says that there is no room.
func (r *recorder) begin(z *zone, e *entry, ticket uint64, limit, size int64) bool {
	if !z.reserve(size) {
		return false
	}
	*r = recorder{zone: z, e: e, ticket: ticket, limit: limit, announced: size, reserved: size}
	if size > 0 {
		r.body = make([]byte, 0, size)
	}
	return true
}

// add copies a piece.
func (r *recorder) add(p []byte) {
	if r.e == nil || len(p) == 0 {
		return
	}
	need := int64(len(r.body) + len(p))
	if need > r.limit {
		r.abandon()
		return
	}
	if room := int64(cap(r.body)); need > room {
		grown := max(2*room, need, firstRoom)
		if !r.zone.reserve(grown - r.reserved) {
			r.abandon()
			return
		}
		r.reserved = grown
		body := make([]byte, len(r.body), grown)
		copy(body, r.body)
		r.body = body
	}
	r.body = append(r.body, p...)
}

// complete gives what was recorded to the zone.
func (r *recorder) complete() {
	e := r.e
	if e == nil {
		return
	}
	e.size = int64(len(r.body))
	if e.body = r.body; cap(r.body)-len(r.body) > len(r.body)/8 { // room that nobody will use
		e.body = append(make([]byte, 0, len(r.body)), r.body...)
	}
	r.zone.keep(e, r.ticket, r.reserved)
	r.e, r.body, r.reserved = nil, nil, 0
}

// abandon forgets what was recorded.
func (r *recorder) abandon() {
	if r.e != nil {
		r.zone.recording.Add(-r.reserved)
		r.e, r.body, r.reserved = nil, nil, 0
	}
}

// Next implements phase.Stream.
func (r *recorder) Next() ([]byte, error) {
	p, err := r.next.Next()
	r.add(p)
	switch {
	case err == io.EOF, err == nil && r.announced > 0 && int64(len(r.body)) == r.announced:
		r.complete()
	case err != nil:
		r.abandon()
	}
	return p, err
}

// Waits implements phase.Waiter.
func (r *recorder) Waits() bool {
	w, ok := r.next.(phase.Waiter)
	return !ok || w.Waits()
}

// Close implements phase.Stream. A body of which nobody has seen the end is not kept.
func (r *recorder) Close() {
	r.abandon()
	if next := r.next; next != nil {
		r.next = nil
		next.Close()
	}
}
