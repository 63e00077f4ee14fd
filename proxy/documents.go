package proxy

import (
	"iter"
	"slices"
	"strings"

	"headgate/conf/store"
)

// documents are stored documents by key. Those of one kind can be walked without looking at the others.
type documents struct {
	kinds map[string]map[string]store.Item // by the first segment of the key
	count int
}

func newDocuments() *documents { return &documents{kinds: map[string]map[string]store.Item{}} }

func kindOfKey(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

func (d *documents) get(key string) (store.Item, bool) {
	item, ok := d.kinds[kindOfKey(key)][key]
	return item, ok
}

func (d *documents) put(item store.Item) {
	kind := kindOfKey(item.Key)
	list := d.kinds[kind]
	if list == nil {
		list = map[string]store.Item{}
		d.kinds[kind] = list
	}
	if _, has := list[item.Key]; !has {
		d.count++
	}
	list[item.Key] = item
}

func (d *documents) remove(key string) {
	list := d.kinds[kindOfKey(key)]
	if _, has := list[key]; has {
		d.count--
		delete(list, key)
	}
}

// all walks every document, in no order.
func (d *documents) all() iter.Seq[store.Item] {
	return func(yield func(store.Item) bool) {
		for _, list := range d.kinds {
			for _, item := range list {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// sorted returns those documents of a kind that pass accept, by key.
func (d *documents) sorted(kind string, accept func(store.Item) bool) []store.Item {
	var items []store.Item
	for _, item := range d.kinds[kind] {
		if accept == nil || accept(item) {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(p, q store.Item) int { return strings.Compare(p.Key, q.Key) })
	return items
}
