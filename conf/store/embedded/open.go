package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"headgate/conf/store"
	"headgate/conf/store/feed"
)

// formatVersion is that of the buckets and records in the file; bbolt has one of its own.
const formatVersion = 1

const (
	defaultLockWait = 2 * time.Second
	lockPoll        = 20 * time.Millisecond
)

var (
	metaBucket      = []byte("headgate")
	documentsBucket = []byte("documents")
	formatKey       = []byte("format")
	stateKey        = []byte("state")
)

// Options of Open. The zero value is the default.
type Options struct {
	// LockWait is how long to wait for another process that has the file open (a predecessor that drains); 0 = 2 s.
	LockWait time.Duration
}

// Open opens the file at path, or creates it (mode 0600, parent directory 0700). An existing file is verified first; one that is
// empty, cut short, damaged, of another format or in use by another process is an error that names it.
func Open(path string, o Options) (*Store, error) {
	if o.LockWait == 0 {
		o.LockWait = defaultLockWait
	}
	s := &Store{path: path, turn: make(chan struct{}, 1)}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, s.failed(err)
		}
	}
	db, err := openFile(path, o.LockWait)
	if err != nil {
		return nil, s.failed(err)
	}
	s.db = db
	if err := s.load(); err != nil {
		return nil, errors.Join(s.failed(err), s.closeDB())
	}
	return s, nil
}

// load reads the whole file once and starts feed and expiry.
func (s *Store) load() error {
	var st state
	var mortal []store.Item // without their values
	err := guard(func() error {
		err := s.db.View(func(tx *bolt.Tx) (err error) {
			if err := checkFormat(tx); err != nil {
				return err
			}
			st, err = readAll(tx, func(it store.Item) {
				if !it.Expires.IsZero() {
					mortal = append(mortal, store.Item{Key: it.Key, Expires: it.Expires})
				}
			})
			return err
		})
		if err != nil {
			return err
		}
		return setClean(s.db, false)
	})
	if err != nil {
		return err
	}
	s.unclean = !st.clean
	s.revision = st.revision
	s.feed = feed.New(st.revision)
	s.expiry = feed.NewExpiry(s.expire)
	for _, it := range mortal {
		s.expiry.Add(it.Key, it.Expires)
	}
	return nil
}

// create makes an empty store under another name and moves it into place when it is complete, so that a file at path has always
// been a whole one and an empty or broken file is never taken for a new one.
func create(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	temp := f.Name()
	defer os.Remove(temp)
	if err := f.Close(); err != nil {
		return err
	}
	db, err := bolt.Open(temp, 0o600, options())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(documentsBucket); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := meta.Put(formatKey, binary.BigEndian.AppendUint32(nil, formatVersion)); err != nil {
			return err
		}
		return meta.Put(stateKey, state{clean: true}.encode())
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// A link fails where another process was faster; its store is then the one to open. File systems without links get a rename.
	if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.Rename(temp, path); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func options() *bolt.Options {
	return &bolt.Options{FreelistType: bolt.FreelistMapType, NoStatistics: true}
}

// openFile locks and verifies the file before bbolt maps it; bbolt's own lock is on the same descriptor and finds it free.
func openFile(path string, wait time.Duration) (*bolt.DB, error) {
	var f *os.File
	o := options()
	o.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		f, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
		if err != nil {
			return nil, err
		}
		if err := prepare(f, wait); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, o)
		return err
	})
	if err != nil && f != nil {
		_ = f.Close() // bbolt closes it unless it panicked; the lock must not stay
	}
	return db, err
}

func prepare(f *os.File, wait time.Duration) error {
	if err := lock(f, wait); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("expected a regular file")
	}
	if info.Mode().Perm()&0o077 != 0 {
		// Documents contain keys and certificates.
		if err := f.Chmod(0o600); err != nil {
			return err
		}
	}
	if info.Size() == 0 {
		return fmt.Errorf("%w: the file is empty; restore it, or remove it to begin with an empty store", ErrDamaged)
	}
	if err := verifyFile(f, info.Size()); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func lock(f *os.File, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("lock: %w", err)
		case !time.Now().Before(deadline):
			return fmt.Errorf("another process has the file open (waited %s); one file belongs to one gateway", wait)
		}
		time.Sleep(lockPoll)
	}
}

func checkFormat(tx *bolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil || tx.Bucket(documentsBucket) == nil {
		return fmt.Errorf("%w, or not a Headgate store", ErrDamaged)
	}
	b := meta.Get(formatKey)
	if len(b) != 4 {
		return fmt.Errorf("%w: no format version", ErrDamaged)
	}
	if v := binary.BigEndian.Uint32(b); v != formatVersion {
		return fmt.Errorf("format version %d, this program reads and writes version %d", v, formatVersion)
	}
	return nil
}

func readState(tx *bolt.Tx) (state, error) {
	st, err := decodeState(tx.Bucket(metaBucket).Get(stateKey))
	if err != nil {
		return state{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return st, nil
}

// readAll calls each for every document, expired ones included, sorted by key. Their values belong to the transaction.
func readAll(tx *bolt.Tx, each func(store.Item)) (state, error) {
	st, err := readState(tx)
	if err != nil {
		return state{}, err
	}
	var count uint64
	var digest uint32
	err = tx.Bucket(documentsBucket).ForEach(func(k, v []byte) error {
		it, sum, err := decodeRecord(k, v)
		if err != nil {
			return fmt.Errorf("%w: %w (key %.64q)", ErrDamaged, err, k)
		}
		each(it)
		digest ^= sum
		count++
		return nil
	})
	if err != nil {
		return state{}, err
	}
	if digest != st.digest || count != st.count {
		return state{}, fmt.Errorf("%w: %d documents instead of %d", ErrDamaged, count, st.count)
	}
	return st, nil
}

// lookup returns the document under key, or nil, and its checksum. Its Value belongs to the transaction.
func lookup(docs *bolt.Bucket, key string) (*store.Item, uint32, error) {
	v := docs.Get([]byte(key))
	if v == nil {
		return nil, 0, nil
	}
	it, sum, err := decodeRecord([]byte(key), v)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w (key %.64q)", ErrDamaged, err, key)
	}
	return &it, sum, nil
}

// setClean stores the mark of a proper close. It is the last transaction of a run, so that damage to the newest header page of a
// closed file, which makes bbolt go back one transaction, costs no document.
func setClean(db *bolt.DB, clean bool) error {
	return db.Update(func(tx *bolt.Tx) error {
		st, err := readState(tx)
		if err != nil {
			return err
		}
		st.clean = clean
		return tx.Bucket(metaBucket).Put(stateKey, st.encode())
	})
}
