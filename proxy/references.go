package proxy

import (
	"bytes"
	"slices"

	"headgate/conf/store"
)

// references knows which documents may refer to an id: those in which it is the value of a member whose name ends in _id, wherever that
// stands. It finds more than there is (what is switched off, what refers to another kind), and never less.
type references struct {
	users map[string]map[string]struct{} // id -> keys
	odd   map[string]struct{}            // keys of documents that may refer to anything
}

func newReferences() references {
	return references{map[string]map[string]struct{}{}, map[string]struct{}{}}
}

// to returns the keys of the documents that may refer to id, in no order.
func (r *references) to(id string) []string {
	keys := make([]string, 0, len(r.users[id])+len(r.odd))
	for key := range r.users[id] {
		keys = append(keys, key)
	}
	for key := range r.odd {
		if _, twice := r.users[id][key]; !twice {
			keys = append(keys, key)
		}
	}
	return keys
}

func (r *references) add(item *store.Item) {
	ids, odd := referred(item.Value)
	if odd {
		r.odd[item.Key] = struct{}{}
	}
	for _, id := range ids {
		users := r.users[string(id)]
		if users == nil {
			users = map[string]struct{}{}
			r.users[string(id)] = users
		}
		users[item.Key] = struct{}{}
	}
}

func (r *references) drop(item *store.Item) {
	ids, odd := referred(item.Value)
	if odd {
		delete(r.odd, item.Key)
	}
	for _, id := range ids {
		if users := r.users[string(id)]; users != nil {
			if delete(users, item.Key); len(users) == 0 {
				delete(r.users, string(id))
			}
		}
	}
}

// replace is drop of old and add of next, which have the same key. Most edits leave the references alone.
func (r *references) replace(old, next *store.Item) {
	before, odd := referred(old.Value)
	after, oddToo := referred(next.Value)
	if odd == oddToo && slices.EqualFunc(before, after, bytes.Equal) {
		return
	}
	r.drop(old)
	r.add(next)
}

// referred returns the values of the members of doc whose names end in _id. odd says that some are written in a way that only a decoder
// understands. doc is JSON.
func referred(doc []byte) (ids [][]byte, odd bool) {
	const end = `_id"`
	odd = bytes.Contains(doc, []byte(`\u`)) // which may spell a name or an id; no other escape can
	for {
		i := bytes.Index(doc, []byte(end))
		if i < 0 {
			return ids, odd
		}
		doc = doc[i+len(end):]
		value, isMember := bytes.CutPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte(":"))
		value = bytes.TrimLeft(value, " \t\r\n")
		if !isMember || len(value) == 0 {
			continue // a text that ends like such a name
		}
		size := 0
		if value[0] == '"' {
			value = value[1:]
			size = bytes.IndexByte(value, '"')
		} else {
			for size < len(value) && '0' <= value[size] && value[size] <= '9' {
				size++
			}
			// 7.0 and 7e0 are 7 too.
			odd = odd || size < len(value) && bytes.IndexByte([]byte(".eE-"), value[size]) >= 0
		}
		if size > 0 {
			ids = append(ids, value[:size])
		}
	}
}
