package v3

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// failureLimit wrong keys per failureWindow get a 401 each, further ones a 429 (reliability 4.2).
	failureLimit = 10
	// loopbackLimit is higher because operators, their scripts and local proxies share that one address, and who is on the machine has
	// better ways in than guessing.
	loopbackLimit = 300
	failureWindow = time.Minute
	// maxSources bounds the memory that strangers can make the brake use, about 400 KiB.
	maxSources = 4096
)

// brake counts wrong keys by source: an IPv4 address, or the /64 of an IPv6 one. It delays nobody, so that it can't be used to tie up
// the server; the length of the keys is what makes guessing hopeless. The zero brake is ready for use.
type brake struct {
	mu      sync.Mutex
	sources map[netip.Prefix]window
	// rest counts for all sources together that came while the table was full.
	rest  window
	sweep time.Time // when a full table may be searched for windows that ended
}

type window struct {
	ends     time.Time
	failures int
}

// fail counts a wrong key from peer and returns how many came from its source in the current window, and how long that lasts.
func (b *brake) fail(peer netip.Addr, now time.Time) (failures int, wait time.Duration) {
	source := sourceOf(peer)
	b.mu.Lock()
	defer b.mu.Unlock()
	w, known := b.sources[source]
	if !known && len(b.sources) >= maxSources {
		b.forget(now)
		if len(b.sources) >= maxSources {
			b.rest.count(now)
			return b.rest.failures, b.rest.ends.Sub(now)
		}
	}
	w.count(now)
	if b.sources == nil {
		b.sources = make(map[netip.Prefix]window)
	}
	b.sources[source] = w
	return w.failures, w.ends.Sub(now)
}

// forget drops the windows that ended. It looks at most once a second, so that a flood from many sources costs little.
func (b *brake) forget(now time.Time) {
	if now.Before(b.sweep) {
		return
	}
	b.sweep = now.Add(time.Second)
	for s, w := range b.sources {
		if !now.Before(w.ends) {
			delete(b.sources, s)
		}
	}
}

func (w *window) count(now time.Time) {
	if !now.Before(w.ends) {
		*w = window{ends: now.Add(failureWindow)}
	}
	w.failures++
}

func sourceOf(peer netip.Addr) netip.Prefix {
	bits := 32
	if peer.Is6() {
		bits = 64
	}
	source, err := peer.Prefix(bits)
	if err != nil { // no TCP peer
		return netip.Prefix{}
	}
	return source
}

func limitOf(peer netip.Addr) int {
	if peer.IsLoopback() {
		return loopbackLimit
	}
	return failureLimit
}
