package proxy

import (
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	"headgate/conf/store"
)

// documents are stored documents by key, in order, and by what they refer to. What changes one of them costs the same however many there
// are. One goroutine changes them, while no other looks; a list that somebody has got stays as it is.
type documents struct {
	items map[string]*store.Item // immutable, like all items below
	kinds map[string]*shelf      // by the first segment of the key
	users references
	count int
}

// shelf has the documents of one kind in the order of their keys, on pages of limited length.
type shelf struct {
	pages []*page
	// Whoever changes the shelf after a list was given away begins a new age: what is older is copied before it is changed.
	lent atomic.Bool
	age  uint64
}

// page is never empty.
type page struct {
	items []*store.Item
	age   uint64
}

// pageSize bounds a page.
const pageSize = 256

func newDocuments() *documents {
	return &documents{items: map[string]*store.Item{}, kinds: map[string]*shelf{}, users: newReferences()}
}

func kindOfKey(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

func (d *documents) get(key string) (store.Item, bool) {
	if item := d.items[key]; item != nil {
		return *item, true
	}
	return store.Item{}, false
}

func (d *documents) put(item store.Item) {
	old := d.items[item.Key]
	d.items[item.Key] = &item
	kind := kindOfKey(item.Key)
	if d.kinds[kind] == nil {
		d.kinds[kind] = &shelf{}
	}
	d.kinds[kind].put(&item)
	if old == nil {
		d.count++
		d.users.add(&item)
	} else {
		d.users.replace(old, &item)
	}
}

func (d *documents) remove(key string) {
	old := d.items[key]
	if old == nil {
		return
	}
	d.count--
	delete(d.items, key)
	d.users.drop(old)
	kind := kindOfKey(key)
	if d.kinds[kind].remove(key); len(d.kinds[kind].pages) == 0 {
		delete(d.kinds, kind)
	}
}

// all walks every document, in no order.
func (d *documents) all() iter.Seq[store.Item] {
	return func(yield func(store.Item) bool) {
		for _, item := range d.items {
			if !yield(*item) {
				return
			}
		}
	}
}

// below returns the documents whose keys begin with path and a slash, in order. They stay as they are while documents change.
func (d *documents) below(path string) iter.Seq[*store.Item] {
	s := d.kinds[kindOfKey(path)]
	if s == nil {
		return func(func(*store.Item) bool) {}
	}
	s.lent.Store(true)
	pages, prefix := s.pages, path+"/"
	return func(yield func(*store.Item) bool) {
		n, i, _ := find(pages, prefix)
		for ; n < len(pages); n, i = n+1, 0 {
			for _, item := range pages[n].items[i:] {
				if !strings.HasPrefix(item.Key, prefix) || !yield(item) {
					return
				}
			}
		}
	}
}

// find returns where key is or would be put: on which page, and at which place there.
func find(pages []*page, key string) (n, i int, found bool) {
	n, found = slices.BinarySearchFunc(pages, key, func(p *page, key string) int { return strings.Compare(p.items[0].Key, key) })
	if found || n == 0 {
		return n, 0, found
	}
	n-- // the page before is the last one that begins before key
	i, found = slices.BinarySearchFunc(pages[n].items, key, func(item *store.Item, key string) int { return strings.Compare(item.Key, key) })
	return n, i, found
}

func (s *shelf) put(item *store.Item) {
	s.own()
	n, i, found := find(s.pages, item.Key)
	switch {
	case found:
		s.page(n).items[i] = item
	case len(s.pages) == 0 || i == pageSize: // a page stays full when documents come in order
		s.pages = slices.Insert(s.pages, min(n+1, len(s.pages)), &page{[]*store.Item{item}, s.age})
	default:
		p := s.page(n)
		p.items = slices.Insert(p.items, i, item)
		if len(p.items) > pageSize {
			half := slices.Clone(p.items[pageSize/2:])
			clear(p.items[pageSize/2:])
			p.items = p.items[:pageSize/2]
			s.pages = slices.Insert(s.pages, n+1, &page{half, s.age})
		}
	}
}

// remove takes out the document key, which is there.
func (s *shelf) remove(key string) {
	s.own()
	n, i, _ := find(s.pages, key)
	if p := s.page(n); len(p.items) > 1 {
		p.items = slices.Delete(p.items, i, i+1)
	} else {
		s.pages = slices.Delete(s.pages, n, n+1)
	}
}

// own makes the list of pages one that may be changed.
func (s *shelf) own() {
	if s.lent.Swap(false) {
		s.age++
		s.pages = slices.Clone(s.pages)
	}
}

// page returns page n, ready to be changed.
func (s *shelf) page(n int) *page {
	if s.pages[n].age != s.age {
		s.pages[n] = &page{slices.Clone(s.pages[n].items), s.age}
	}
	return s.pages[n]
}
