package proxycache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"headgate/proxy/fault"
)

// disk is the directory of a zone. A file is written under another name and gets its own when it is complete; it is never changed. Its name
// is the digest of what it is the answer to and a number of its own, so that the file of a later answer never takes the place of one that
// somebody reads.
type disk struct {
	root   string
	levels []int
}

const (
	temporary = "headgate-tmp-"
	// abandonedAfter is the age at which a file that was never completed is nobody's any more.
	abandonedAfter = time.Hour
	// clockSkew is how far in the future an answer may have come: one from farther would stay fresh until the clock has caught up.
	clockSkew = time.Hour
	dirMode   = 0o700
)

var errStopped = errors.New("stopped")

// path is where e's file is.
func (d *disk) path(e *entry) string {
	name := e.name()
	text := hex.EncodeToString(name[:])
	path, end := d.root, len(text)
	for _, n := range d.levels {
		path = filepath.Join(path, text[end-n:end])
		end -= n
	}
	return filepath.Join(path, text+"."+fmt.Sprintf("%016x", e.stamp))
}

// write makes the file of e, whose body is given.
func (d *disk) write(e *entry, body []byte) (err error) {
	e.stamp, e.size, e.sum = rand.Uint64(), int64(len(body)), checksum(body)
	head := e.appendFile(nil)
	if len(head)-headSize > maxMeta {
		return errCorrupt
	}
	e.file = int64(len(head)) + e.size
	path := d.path(e)
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return err
	}
	f, err := os.CreateTemp(d.root, temporary) // readable by this user only
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(head); err == nil {
		_, err = f.Write(body)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

func (d *disk) remove(e *entry) { _ = os.Remove(d.path(e)) }

// open opens the file of e, whose body begins at offset. An error says that it is not there, or not what was written.
func (d *disk) open(e *entry) (f *os.File, offset int64, err error) {
	if f, err = os.Open(d.path(e)); err != nil {
		return nil, 0, err
	}
	offset = e.file - e.size
	var head [headSize]byte
	if _, err = f.ReadAt(head[:], 0); err == nil {
		var length int
		if length, _, err = readHead(head[:]); err == nil && int64(headSize+length) != offset {
			err = errCorrupt
		}
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && info.Size() != e.file {
			err = errCorrupt
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, offset, nil
}

// scan reads what every file that is older than the call says about its answer. Files that are damaged or past their time are removed,
// files that are no cache's are left alone.
func (d *disk) scan(stop <-chan struct{}, found func(e *entry)) error {
	began := time.Now()
	return filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		select {
		case <-stop:
			return errStopped
		default:
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.ModTime().After(began) {
			return nil
		}
		if strings.HasPrefix(entry.Name(), temporary) && began.Sub(info.ModTime()) > abandonedAfter {
			_ = os.Remove(path)
		}
		if !isName(entry.Name()) {
			return nil
		}
		e, err := describe(path)
		switch {
		case errors.Is(err, errCorrupt), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			_ = os.Remove(path)
		case err != nil: // it went while it was looked at, or cannot be read now
		case d.path(e) != path, e.age(began) >= e.lifetime, e.received > began.Add(clockSkew).UnixNano():
			_ = os.Remove(path)
		default:
			found(e)
		}
		return nil
	})
}

// isName says whether a file was given its name by disk.path.
func isName(name string) bool {
	digits, stamp, ok := strings.Cut(name, ".")
	if !ok || len(digits) != 2*len(digest{}) || len(stamp) != 16 {
		return false
	}
	if _, err := hex.DecodeString(digits); err != nil {
		return false
	}
	_, err := strconv.ParseUint(stamp, 16, 64)
	return err == nil
}

// describe reads all but the body.
func describe(path string) (*entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var head [headSize]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return nil, err
	}
	length, sum, err := readHead(head[:])
	if err != nil {
		return nil, err
	}
	meta := make([]byte, length)
	if _, err := io.ReadFull(f, meta); err != nil {
		return nil, err
	}
	e, err := readEntry(meta, sum)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if e.file = int64(headSize+length) + e.size; info.Size() != e.file {
		return nil, errCorrupt
	}
	return e, nil
}

// readSize is how much of a file is read at a time. A body that is not larger is checked before a byte of it leaves.
const readSize = 64 << 10

// fileReader is a body that comes from a file. It implements phase.Stream.
type fileReader struct {
	zone *zone
	e    *entry
	f    *os.File
	at   int64
	left int64
	sum  uint32
	buf  []byte // readSize, made when it is first needed
}

// begin opens the file of e. False says that there is none, or a damaged one, and that e is gone.
func (r *fileReader) begin(z *zone, e *entry) bool {
	f, offset, err := z.disk.open(e)
	if err != nil {
		z.broken(e)
		return false
	}
	r.zone, r.e, r.f, r.at, r.left, r.sum = z, e, f, offset, e.size, 0
	if r.buf == nil {
		r.buf = make([]byte, readSize)
	}
	return true
}

// whole reads a body of at most readSize bytes and closes the file. It is valid until the next begin.
func (r *fileReader) whole() ([]byte, bool) {
	defer r.Close()
	p, err := r.Next()
	return p, err == nil || err == io.EOF
}

// Next implements phase.Stream. The last piece is delivered when the sum of all is right: a damaged body never looks complete.
func (r *fileReader) Next() ([]byte, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	p := r.buf[:min(r.left, readSize)]
	n, err := r.f.ReadAt(p, r.at)
	if n < len(p) {
		_ = err // shorter than it was, or not readable: the same to whoever waits for it
		return nil, r.fail()
	}
	r.at += int64(n)
	r.left -= int64(n)
	if r.sum = crc32.Update(r.sum, castagnoli, p); r.left == 0 && r.sum != r.e.sum {
		return nil, r.fail()
	}
	return p, nil
}

// Waits implements phase.Waiter.
func (r *fileReader) Waits() bool { return false }

func (r *fileReader) fail() error {
	r.zone.broken(r.e)
	return fault.BodyCut
}

// Close implements phase.Stream.
func (r *fileReader) Close() {
	if r.f != nil {
		_ = r.f.Close()
		r.f = nil
	}
}
