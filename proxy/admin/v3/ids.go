package v3

import (
	"fmt"
	"strconv"
	"sync"

	"headgate/conf/resource"
	"headgate/proxy"
)

// ids makes the ids of documents that come without one: 20 digits that grow with the revision of the store (contract section 8,
// gen_id). They are unique among those of this process; whoever uses one must still see to it that the key is free. The zero ids is
// ready for use.
type ids struct {
	mu     sync.Mutex
	last   uint64
	seeded bool // last covers what plane shows
}

// next returns a new id that is larger than every revision and every generated id that plane shows or observe was told of.
func (i *ids) next(plane proxy.Plane) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.seeded {
		i.last, i.seeded = max(i.last, highest(plane)), true
	}
	i.last++
	return fmt.Sprintf("%020d", i.last)
}

func (i *ids) observe(revision uint64) {
	i.mu.Lock()
	i.last = max(i.last, revision)
	i.mu.Unlock()
}

// taken tells that somebody else named a document as the next id would have.
func (i *ids) taken() {
	i.mu.Lock()
	i.seeded = false
	i.mu.Unlock()
}

// highest looks through everything. It runs with the first id of a process, and after a collision.
func highest(plane proxy.Plane) uint64 {
	var top uint64
	for _, k := range resource.Kinds() {
		for _, item := range plane.List(k.Segment) {
			top = max(top, item.ModRevision)
			if id := item.Key[len(k.Key("")):]; len(id) == 20 {
				if n, err := strconv.ParseUint(id, 10, 63); err == nil {
					top = max(top, n)
				}
			}
		}
	}
	return top
}
