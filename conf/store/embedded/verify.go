package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of a bbolt file (its file format version 2), in the byte order of the machine.
const (
	metaMagic       = 0xED0CDAED
	metaVersion     = 2
	metaSize        = 64
	pageHeaderSize  = 16
	elementSize     = 16 // of branch and leaf pages alike
	bucketSize      = 16
	branchPage      = 0x01
	leafPage        = 0x02
	freelistPage    = 0x10
	bucketElement   = 0x01
	noFreelist      = ^uint64(0)
	minPageSize     = 1 << 10
	maxPageSize     = 1 << 24
	maxTreeDepth    = 64
	freelistTooLong = 0xFFFF // the count stands in the first element then
)

var native = binary.NativeEndian

// verifyFile walks every page of a bbolt file with bounds checked, because bbolt trusts what it maps: in a damaged file it follows
// a wild page number and the process dies of a fault. It must run before bbolt opens the file, with the lock held.
func verifyFile(f io.ReaderAt, size int64) error {
	m, err := readMeta(f, size)
	if err != nil {
		return err
	}
	if m.pages > uint64(size)/uint64(m.pageSize) {
		return fmt.Errorf("the file is cut short: %d bytes of %d", size, m.pages*uint64(m.pageSize))
	}
	v := verifier{f: f, meta: m, seen: make([]bool, m.pages)}
	v.seen[0], v.seen[1] = true, true
	if err := v.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	if err := v.freelist(); err != nil {
		return err
	}
	for id, seen := range v.seen {
		if !seen {
			return fmt.Errorf("page %d belongs to nothing", id)
		}
	}
	return nil
}

type meta struct {
	pageSize              int64
	root, freelist, pages uint64
	tx                    uint64
}

// readMeta returns the newer of the two meta pages. One of them may be unreadable: that is how the file survives a write that was
// torn by a crash, and such a write was never acknowledged.
func readMeta(f io.ReaderAt, size int64) (meta, error) {
	first, ok0 := metaAt(f, 0)
	if ok0 {
		if second, ok := metaAt(f, first.pageSize); ok && second.tx > first.tx {
			return second, nil
		}
		return first, nil
	}
	for at := int64(minPageSize); at <= maxPageSize && at < size; at *= 2 {
		if second, ok := metaAt(f, at); ok && second.pageSize == at {
			return second, nil
		}
	}
	return meta{}, errors.New("neither of the two header pages is intact")
}

func metaAt(f io.ReaderAt, at int64) (meta, bool) {
	var page [pageHeaderSize + metaSize]byte
	if _, err := f.ReadAt(page[:], at); err != nil {
		return meta{}, false
	}
	b := page[pageHeaderSize:]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8])
	m := meta{
		pageSize: int64(native.Uint32(b[8:])),
		root:     native.Uint64(b[16:]),
		freelist: native.Uint64(b[32:]),
		pages:    native.Uint64(b[40:]),
		tx:       native.Uint64(b[48:]),
	}
	ok := native.Uint32(b) == metaMagic && native.Uint32(b[4:]) == metaVersion && native.Uint64(b[56:]) == sum.Sum64() &&
		m.pageSize >= minPageSize && m.pageSize <= maxPageSize
	return m, ok
}

type verifier struct {
	f    io.ReaderAt
	meta meta
	seen []bool // by page: it belongs to something
}

// page reads page id with its overflow pages and claims them.
func (v *verifier) page(id uint64) (flags uint16, count int, page []byte, err error) {
	var header [pageHeaderSize]byte
	if id >= v.meta.pages {
		return 0, 0, nil, fmt.Errorf("page %d is beyond the end", id)
	}
	if _, err := v.f.ReadAt(header[:], int64(id)*v.meta.pageSize); err != nil {
		return 0, 0, nil, fmt.Errorf("page %d: %w", id, err)
	}
	flags, count = native.Uint16(header[8:]), int(native.Uint16(header[10:]))
	overflow := uint64(native.Uint32(header[12:]))
	if native.Uint64(header[:]) != id || overflow >= v.meta.pages-id {
		return 0, 0, nil, fmt.Errorf("page %d has a wrong header", id)
	}
	for p := id; p <= id+overflow; p++ {
		if v.seen[p] {
			return 0, 0, nil, fmt.Errorf("page %d is used twice", p)
		}
		v.seen[p] = true
	}
	page = make([]byte, int64(overflow+1)*v.meta.pageSize)
	if _, err := v.f.ReadAt(page, int64(id)*v.meta.pageSize); err != nil {
		return 0, 0, nil, fmt.Errorf("page %d: %w", id, err)
	}
	return flags, count, page, nil
}

// tree walks the pages below id. Keys must rise and stay in [low, high); nil means no bound.
func (v *verifier) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxTreeDepth {
		return fmt.Errorf("page %d is too deep", id)
	}
	flags, count, page, err := v.page(id)
	if err != nil {
		return err
	}
	switch {
	case flags == branchPage && count > 0:
		return v.branch(id, page, count, low, high, depth)
	case flags == leafPage:
		return v.leaf(id, page, count, low, high, depth)
	}
	return fmt.Errorf("page %d is neither branch nor leaf", id)
}

// slice returns b[from:from+n] if that exists.
func slice(b []byte, from, n uint64) ([]byte, bool) {
	if from > uint64(len(b)) || n > uint64(len(b))-from {
		return nil, false
	}
	return b[from : from+n], true
}

// inOrder reports whether key follows previous (nil for none) within [low, high).
func inOrder(key, previous, low, high []byte) bool {
	return (previous == nil || bytes.Compare(previous, key) < 0) &&
		(low == nil || bytes.Compare(low, key) <= 0) && (high == nil || bytes.Compare(key, high) < 0)
}

func (v *verifier) branch(id uint64, page []byte, count int, low, high []byte, depth int) error {
	keys := make([][]byte, count)
	for i := range keys {
		at := uint64(pageHeaderSize + i*elementSize)
		e, ok := slice(page, at, elementSize)
		if ok {
			keys[i], ok = slice(page, at+uint64(native.Uint32(e)), uint64(native.Uint32(e[4:])))
		}
		var previous []byte
		if i > 0 {
			previous = keys[i-1]
		}
		if !ok || !inOrder(keys[i], previous, low, high) {
			return fmt.Errorf("page %d: branch %d is broken", id, i)
		}
	}
	for i, key := range keys {
		next := high
		if i+1 < count {
			next = keys[i+1]
		}
		child := native.Uint64(page[pageHeaderSize+i*elementSize+8:])
		if err := v.tree(child, key, next, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) leaf(id uint64, page []byte, count int, low, high []byte, depth int) error {
	var previous []byte
	for i := range count {
		at := uint64(pageHeaderSize + i*elementSize)
		e, ok := slice(page, at, elementSize)
		if !ok {
			return fmt.Errorf("page %d has a wrong count", id)
		}
		flags, keySize, valueSize := native.Uint32(e), uint64(native.Uint32(e[8:])), uint64(native.Uint32(e[12:]))
		body, ok := slice(page, at+uint64(native.Uint32(e[4:])), keySize+valueSize)
		if !ok || !inOrder(body[:keySize], previous, low, high) || flags&^bucketElement != 0 {
			return fmt.Errorf("page %d: element %d is broken", id, i)
		}
		previous = body[:keySize]
		if flags == bucketElement {
			if err := v.bucket(id, body[keySize:], depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket walks a nested bucket: pages of its own, or one leaf page that stands in the value.
func (v *verifier) bucket(id uint64, value []byte, depth int) error {
	if len(value) < bucketSize {
		return fmt.Errorf("page %d: bucket is broken", id)
	}
	if root := native.Uint64(value); root != 0 {
		return v.tree(root, nil, nil, depth+1)
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeaderSize || native.Uint16(inline[8:]) != leafPage || depth > maxTreeDepth {
		return fmt.Errorf("page %d: inline bucket is broken", id)
	}
	return v.leaf(id, inline, int(native.Uint16(inline[10:])), nil, nil, depth+1)
}

// freelist claims the free pages: one that is also in use would be overwritten by the next write.
func (v *verifier) freelist() error {
	if v.meta.freelist == noFreelist {
		return errors.New("there is no list of free pages")
	}
	flags, count, page, err := v.page(v.meta.freelist)
	if err != nil {
		return err
	}
	ids := page[pageHeaderSize:]
	n := uint64(count)
	if count == freelistTooLong {
		n, ids = native.Uint64(ids), ids[8:]
	}
	if flags != freelistPage || n > uint64(len(ids))/8 {
		return fmt.Errorf("page %d is no list of free pages", v.meta.freelist)
	}
	for i := range n {
		id := native.Uint64(ids[i*8:])
		if id >= v.meta.pages || v.seen[id] {
			return fmt.Errorf("page %d is not free", id)
		}
		v.seen[id] = true
	}
	return nil
}
