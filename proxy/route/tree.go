package route

// labelMax is how much of a key one node holds; longer text becomes a chain of nodes. It makes a node fill one cache line.
const labelMax = 15

// indexed is how many kids are found without looking at them.
const indexed = 8

// node is a vertex of a persistent radix tree; the zero node is an empty tree. A key can carry two values: one for the key itself and
// one for everything that starts with it.
//
// Nodes lie in the kids array of their parent, a root lies in its holder. Once published neither the arrays nor what they hold
// change: an edit copies the arrays on its path.
//
// Invariants: a node other than a root has a value or a kid; without a value and with a single kid it is too long to be one node
// with that kid. Labels other than a root's are not empty, and those of siblings differ in their first byte, which index repeats for
// the first kids.
type node[V any] struct {
	exact  *V
	prefix *V
	kids   []node[V]
	index  [indexed]byte
	label  [labelMax]byte
	size   uint8 // of the label
}

// slot names one of the two values of a key.
type slot uint8

const (
	exactSlot slot = iota
	prefixSlot
)

func (n *node[V]) text() []byte { return n.label[:n.size] }

// vacant reports whether nothing is stored in or below n.
func (n *node[V]) vacant() bool {
	return n.exact == nil && n.prefix == nil && len(n.kids) == 0
}

// find returns the position of the kid whose label starts with c, or -1.
func (n *node[V]) find(c byte) int {
	count := len(n.kids)
	for i := range min(count, indexed) {
		if n.index[i] == c {
			return i
		}
	}
	for i := indexed; i < count; i++ {
		if n.kids[i].label[0] == c {
			return i
		}
	}
	return -1
}

// kid returns the kid whose label starts with c, or nil.
func (n *node[V]) kid(c byte) *node[V] {
	if i := n.find(c); i >= 0 {
		return &n.kids[i]
	}
	return nil
}

// lookup returns the value stored for exactly key.
func (n *node[V]) lookup(key string) *V {
	for n != nil {
		size := int(n.size)
		if len(key) < size || key[:size] != string(n.text()) {
			return nil
		}
		key = key[size:]
		if key == "" {
			return n.exact
		}
		n = n.kid(key[0])
	}
	return nil
}

// walk calls visit for every exact value until it returns false.
func (n *node[V]) walk(visit func(*V) bool) bool {
	if n.exact != nil && !visit(n.exact) {
		return false
	}
	for i := range n.kids {
		if !n.kids[i].walk(visit) {
			return false
		}
	}
	return true
}

// arena knows the kids arrays that one edit made, by their first node. They may be changed in place until the edit is published;
// every other array is copied first.
type arena[V any] struct {
	owned map[*node[V]]struct{}
}

// edit replaces the value of key in the tree under root, which must be the caller's own, by what change makes of it. nil stands for
// "no value" both ways. change may return the value that it was given after working in place on it.
func (a *arena[V]) edit(root *node[V], key string, s slot, change func(*V) *V) {
	a.editBelow(root, key, s, change)
	if root.vacant() {
		*root = node[V]{}
		return
	}
	root.fold()
}

func (a *arena[V]) editBelow(n *node[V], key string, s slot, change func(*V) *V) {
	common := commonPrefix(n.text(), key)
	rest := key[common:]
	if common < int(n.size) {
		v := change(nil)
		if v == nil {
			return
		}
		low := *n
		low.setLabel(string(n.label[common:n.size]))
		low.fold()
		*n = node[V]{}
		n.setLabel(key[:common])
		a.addKid(n, low)
		a.attach(n, rest, s, v)
		return
	}
	if rest == "" {
		n.set(s, change(n.get(s)))
		return
	}
	i := n.find(rest[0])
	if i < 0 {
		if v := change(nil); v != nil {
			a.attach(n, rest, s, v)
		}
		return
	}
	a.own(n, len(n.kids))
	kid := &n.kids[i]
	a.editBelow(kid, rest, s, change)
	if kid.vacant() {
		n.removeKid(i)
	} else {
		kid.fold()
	}
}

// attach stores v under rest below n, which has no kid for it.
func (a *arena[V]) attach(n *node[V], rest string, s slot, v *V) {
	switch {
	case rest == "":
		n.set(s, v)
	case n.vacant() && n.size == 0:
		*n = a.leaf(rest, s, v)
	default:
		a.addKid(n, a.leaf(rest, s, v))
	}
}

func (a *arena[V]) leaf(key string, s slot, v *V) node[V] {
	var n node[V]
	if len(key) <= labelMax {
		n.setLabel(key)
		n.set(s, v)
		return n
	}
	n.setLabel(key[:labelMax])
	a.addKid(&n, a.leaf(key[labelMax:], s, v))
	return n
}

func (a *arena[V]) addKid(n *node[V], kid node[V]) {
	a.own(n, len(n.kids)+1)
	n.kids = append(n.kids, kid)
	n.reindex()
	if len(n.kids) == 1 {
		a.note(n)
	}
}

// own makes the kids array of n one that the edit may change, with room for want nodes.
func (a *arena[V]) own(n *node[V], want int) {
	if len(n.kids) > 0 && cap(n.kids) >= want {
		if _, ok := a.owned[&n.kids[0]]; ok {
			return
		}
	}
	room := want
	if want > len(n.kids) && want > 2 {
		room += want / 4
	}
	kids := make([]node[V], len(n.kids), room)
	copy(kids, n.kids)
	n.kids = kids
	if len(kids) > 0 {
		a.note(n)
	}
}

func (a *arena[V]) note(n *node[V]) {
	if a.owned == nil {
		a.owned = make(map[*node[V]]struct{})
	}
	a.owned[&n.kids[0]] = struct{}{}
}

// removeKid drops a kid from an array that the edit owns.
func (n *node[V]) removeKid(i int) {
	last := len(n.kids) - 1
	copy(n.kids[i:], n.kids[i+1:])
	n.kids[last] = node[V]{}
	n.kids = n.kids[:last]
	if last == 0 {
		n.kids = nil
	}
	n.reindex()
}

func (n *node[V]) reindex() {
	for i := range min(len(n.kids), indexed) {
		n.index[i] = n.kids[i].label[0]
	}
}

// fold joins n with its only kid if both fit into one node.
func (n *node[V]) fold() {
	if n.exact != nil || n.prefix != nil || len(n.kids) != 1 || int(n.size)+int(n.kids[0].size) > labelMax {
		return
	}
	label := string(n.text()) + string(n.kids[0].text())
	*n = n.kids[0]
	n.setLabel(label)
}

func (n *node[V]) setLabel(s string) {
	n.label = [labelMax]byte{}
	n.size = uint8(copy(n.label[:], s))
}

func (n *node[V]) get(s slot) *V {
	if s == prefixSlot {
		return n.prefix
	}
	return n.exact
}

func (n *node[V]) set(s slot, v *V) {
	if s == prefixSlot {
		n.prefix = v
	} else {
		n.exact = v
	}
}

func commonPrefix(a []byte, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
