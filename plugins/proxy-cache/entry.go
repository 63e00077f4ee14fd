package proxycache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"headgate/proxy/phase"
)

// entry is an answer that is kept. What is in here is in memory and immutable, but for its place in the index; the body is in memory or in
// a file.
type entry struct {
	key     digest
	variant variant
	vary    []varied

	status int
	fields []phase.Field
	raw    []byte // what fields point into
	// etag and modified are values among fields, nil when they are missing.
	etag, modified []byte
	// headLength is the length that an answer to HEAD announced, -1 for none.
	headLength int64
	// shared: the answer is for everybody, even though it was given to a request with Authorization (RFC 9111 section 3.5).
	shared bool

	// received is when the answer came, in nanoseconds since 1970; initial is how old it was, lifetime for how long it is fresh.
	received          int64
	initial, lifetime time.Duration

	body []byte // nil for one in a file
	size int64  // of the body
	file int64  // of the file, 0 for one in memory
	// stamp tells files of the same answer apart, sum is the CRC-32C of the body.
	stamp uint64
	sum   uint32

	// The place in the index, guarded by its shard.
	node       *node
	prev, next *entry
}

// varied is a header line of the request that the answer depends on.
type varied struct {
	name    string // lower case
	value   []byte
	present bool
}

// fits says whether e is the answer for a request with key and v.
func (e *entry) fits(v *variant, q *phase.Request) bool {
	if e.variant.tls != v.tls || e.variant.class != v.class && (e.variant.class != classGet || v.class != classHead) || e.variant.body != v.body {
		return false
	}
	for i := range e.vary {
		h := &e.vary[i]
		if !sameHeader(q, h.name, h.value, h.present) {
			return false
		}
	}
	return true
}

// replaces says whether whoever got o gets e from now on.
func (e *entry) replaces(o *entry) bool {
	if e.variant != o.variant || len(e.vary) != len(o.vary) {
		return false
	}
	for i := range e.vary {
		a, b := &e.vary[i], &o.vary[i]
		if a.name != b.name || a.present != b.present || !bytes.Equal(a.value, b.value) {
			return false
		}
	}
	return true
}

// age is how old the answer is at now (RFC 9111 section 4.2.3).
func (e *entry) age(now time.Time) time.Duration {
	return e.initial + max(time.Duration(now.UnixNano()-e.received), 0)
}

// overhead is about what an entry takes in memory beside its texts, in bytes, with its share of the index.
const overhead = 512

// disk is what e takes on the disk, in bytes.
func (e *entry) disk() int64 { return e.file }

// memory is what e takes in memory, in bytes.
func (e *entry) memory() int64 {
	n := int64(overhead + len(e.raw) + 48*len(e.fields) + cap(e.body))
	for i := range e.vary {
		n += int64(64 + len(e.vary[i].name) + len(e.vary[i].value))
	}
	return n
}

// keeps says whether a line of an answer belongs to whoever asks next, too. cookies: those that are set do.
func keeps(name []byte, cookies bool) bool {
	const remaining = "ratelimit-remaining" // of another client, with whatever prefix
	for i := 0; i+len(remaining) <= len(name); i++ {
		if phase.EqualName(name[i:i+len(remaining)], remaining) {
			return false
		}
	}
	for _, n := range [...]string{
		"age", "apisix-cache-status", "x-apisix-upstream-status", "content-length", "proxy-authentication-info", "proxy-authorization",
	} {
		if phase.EqualName(name, n) {
			return false
		}
	}
	return cookies || !phase.EqualName(name, "set-cookie")
}

// setFields copies the lines that are kept.
func (e *entry) setFields(lines []phase.Field, cookies bool) {
	size, count := 0, 0
	for i := range lines {
		if f := &lines[i]; keeps(f.Name, cookies) {
			size, count = size+len(f.Name)+len(f.Value), count+1
		}
	}
	e.raw, e.fields = make([]byte, 0, size), make([]phase.Field, 0, count)
	for i := range lines {
		if f := &lines[i]; keeps(f.Name, cookies) {
			e.addField(f.Name, f.Value)
		}
	}
}

// addField copies a line to raw, which must have room for it.
func (e *entry) addField(name, value []byte) {
	n := len(e.raw)
	e.raw = append(append(e.raw, name...), value...)
	f := phase.Field{Name: e.raw[n : n+len(name) : n+len(name)], Value: e.raw[n+len(name) : len(e.raw) : len(e.raw)]}
	e.fields = append(e.fields, f)
	switch {
	case phase.EqualName(name, "etag"):
		e.etag = f.Value
	case phase.EqualName(name, "last-modified"):
		e.modified = f.Value
	}
}

// setVary copies the lines of the request that names tell of.
func (e *entry) setVary(names []string, q *phase.Request) {
	for _, name := range names {
		value, present := appendHeader(nil, q, name)
		e.vary = append(e.vary, varied{name, value, present})
	}
}

// name is the digest of what e is the answer to.
func (e *entry) name() digest {
	b := append([]byte(nil), e.key[:]...)
	return sha256.Sum256(e.appendVariant(b))
}

func (e *entry) appendVariant(b []byte) []byte {
	b = append(b, e.variant.class, flag(e.variant.tls))
	b = append(b, e.variant.body[:]...)
	b = binary.AppendUvarint(b, uint64(len(e.vary)))
	for i := range e.vary {
		v := &e.vary[i]
		b = appendPart(append(appendText(b, v.name), flag(v.present)), v.value)
	}
	return b
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// The form of a file: magic, length and CRC-32C of what describes the answer, that, the body. Numbers are little endian or varints.
const (
	magic      = "hgcache\x01"
	headSize   = len(magic) + 8
	maxMeta    = 4 << 20
	minMeta    = 2*sha256.Size + 24
	maxPartLen = 1 << 20
)

// castagnoli makes the sums of files: processors have an instruction for it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("not a file of the cache, or damaged")

// appendFile appends what stands before the body in e's file.
func (e *entry) appendFile(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, e.key[:]...)
	b = e.appendVariant(b)
	b = binary.LittleEndian.AppendUint64(b, e.stamp)
	b = binary.LittleEndian.AppendUint32(b, e.sum)
	b = append(b, flag(e.shared))
	for _, n := range [...]int64{
		int64(e.status), e.headLength, e.received, int64(e.initial), int64(e.lifetime), e.size, int64(len(e.raw)), int64(len(e.fields)),
	} {
		b = binary.AppendVarint(b, n)
	}
	for _, f := range e.fields {
		b = appendPart(appendPart(b, f.Name), f.Value)
	}
	meta := b[start+headSize:]
	binary.LittleEndian.PutUint32(b[start+len(magic):], uint32(len(meta)))
	binary.LittleEndian.PutUint32(b[start+len(magic)+4:], checksum(meta))
	return b
}

// readHead reads the first headSize bytes of a file: the length of what describes the answer, and its sum.
func readHead(b []byte) (length int, sum uint32, err error) {
	if len(b) < headSize || string(b[:len(magic)]) != magic {
		return 0, 0, errCorrupt
	}
	n := binary.LittleEndian.Uint32(b[len(magic):])
	if n < minMeta || n > maxMeta {
		return 0, 0, errCorrupt
	}
	return int(n), binary.LittleEndian.Uint32(b[len(magic)+4:]), nil
}

// readEntry reads what describes an answer.
func readEntry(meta []byte, sum uint32) (*entry, error) {
	if checksum(meta) != sum {
		return nil, errCorrupt
	}
	e, r := &entry{}, reader{b: meta}
	copy(e.key[:], r.take(len(e.key)))
	e.variant.class, e.variant.tls = r.byte(), r.byte() == 1
	copy(e.variant.body[:], r.take(len(e.variant.body)))
	for range r.count(maxVary) {
		e.vary = append(e.vary, varied{name: string(r.part()), present: r.byte() == 1, value: bytes.Clone(r.part())})
	}
	e.stamp = binary.LittleEndian.Uint64(r.take(8))
	e.sum = binary.LittleEndian.Uint32(r.take(4))
	e.shared = r.byte() == 1
	e.status, e.headLength, e.received = int(r.number()), r.number(), r.number()
	e.initial, e.lifetime, e.size = time.Duration(r.number()), time.Duration(r.number()), r.number()
	size, fields := r.number(), r.number()
	if r.failed || size < 0 || size > int64(len(meta)) || fields < 0 || fields > int64(len(meta)) || e.size < 0 || e.status < 200 || e.status > 599 {
		return nil, errCorrupt
	}
	e.raw, e.fields = make([]byte, 0, size), make([]phase.Field, 0, fields)
	for range fields {
		name, value := r.part(), r.part()
		if r.failed || len(e.raw)+len(name)+len(value) > cap(e.raw) {
			return nil, errCorrupt
		}
		e.addField(name, value)
	}
	const longest = 2 * maxTTL * time.Second
	if r.failed || len(r.b) > 0 || e.lifetime < 0 || e.lifetime > longest || e.initial < 0 || e.initial > longest {
		return nil, errCorrupt
	}
	return e, nil
}

// reader takes a description apart. Once it has failed it delivers zeros.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return make([]byte, min(n, sha256.Size))
	}
	var out []byte
	out, r.b = r.b[:n], r.b[n:]
	return out
}

func (r *reader) byte() byte { return r.take(1)[0] }

func (r *reader) number() int64 {
	n, used := binary.Varint(r.b)
	if r.failed || used <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[used:]
	return n
}

func (r *reader) count(limit uint64) uint64 {
	n, used := binary.Uvarint(r.b)
	if r.failed || used <= 0 || n > limit {
		r.failed = true
		return 0
	}
	r.b = r.b[used:]
	return n
}

func (r *reader) part() []byte {
	n := r.count(maxPartLen)
	if r.failed || n > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	return r.take(int(n))
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
