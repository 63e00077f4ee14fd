package phase

import (
	"errors"
	"strconv"
	"strings"
)

// Decision is how a split came to its branch. It can be repeated: in the configuration of one revision, a rule and a bucket always lead
// to the same branch.
type Decision struct {
	// Rule is the index of the rule that decided.
	Rule int
	// Bucket is what decided within the rule; of no kind where no split has decided.
	Bucket Bucket
	// Branch is the name of the branch as it stands in a header (see HeaderToken).
	Branch string
}

// Bucket is one of the portions in which a split gives requests to its branches. The zero Bucket is none.
type Bucket struct {
	Kind BucketKind
	N    uint64
}

// BucketKind says what the number of a bucket is.
type BucketKind uint8

const (
	NoBucket BucketKind = iota
	// PlaceBucket is a place in the weighted sequence: which pick of its period, from 0.
	PlaceBucket
	// KeyBucket is 32 bits of the hash of what keeps a client with its branch.
	KeyBucket
)

// Append appends the bucket as text: the place as a decimal number, a key's hash as "k" and eight hexadecimal digits.
func (b Bucket) Append(dst []byte) []byte {
	switch b.Kind {
	case PlaceBucket:
		return strconv.AppendUint(dst, b.N, 10)
	case KeyBucket:
		dst = append(dst, 'k')
		for shift := 28; shift >= 0; shift -= 4 {
			dst = append(dst, "0123456789abcdef"[b.N>>shift&15])
		}
	}
	return dst
}

// String returns what Append appends.
func (b Bucket) String() string { return string(b.Append(nil)) }

var errBucket = errors.New(`expected a place in the sequence, such as 17, or the hash of a key, such as k0a1b2c3d`)

// ParseBucket reads what Append writes.
func ParseBucket(text string) (Bucket, error) {
	if hash, ok := strings.CutPrefix(text, "k"); ok {
		n, err := strconv.ParseUint(hash, 16, 32)
		if err != nil || len(hash) != 8 {
			return Bucket{}, errBucket
		}
		return Bucket{KeyBucket, n}, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return Bucket{}, errBucket
	}
	return Bucket{PlaceBucket, n}, nil
}

// AppendDecision appends "<revision>:<rule>:<bucket>:<branch>". Without a decision it returns dst as it was, and false.
func (x *Exchange) AppendDecision(dst []byte) ([]byte, bool) {
	d := &x.Decision
	if d.Bucket.Kind == NoBucket {
		return dst, false
	}
	dst = append(strconv.AppendUint(dst, x.Revision, 10), ':')
	dst = append(strconv.AppendInt(dst, int64(d.Rule), 10), ':')
	dst = append(d.Bucket.Append(dst), ':')
	return append(dst, d.Branch...), true
}

// HeaderToken returns name with everything percent-encoded that would end a header's value, or part it: what is no visible ASCII, and
// any of `"%,;\`.
func HeaderToken(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c > ' ' && c < 0x7f && !strings.ContainsRune("\"%,;\\", rune(c)) {
			b.WriteByte(c)
			continue
		}
		const digits = "0123456789ABCDEF"
		b.WriteByte('%')
		b.WriteByte(digits[name[i]>>4])
		b.WriteByte(digits[name[i]&15])
	}
	return b.String()
}
