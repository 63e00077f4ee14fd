// Package file takes the documents from one file that somebody else writes: TOML, or YAML in the form of APISIX's apisix.yaml (contract
// sections 1.8 and 6). The file is watched and applied as a whole or not at all; nothing can be written through the store.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"headgate/conf"
	"headgate/conf/store"
	"headgate/conf/store/feed"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 64 * conf.MiB

// defaultInterval is how often the file is looked at when Options says nothing.
const defaultInterval = time.Second

// Options of Open. The zero value works.
type Options struct {
	// Interval is how often the file is looked at besides the system's notifications; 0 = 1 s.
	Interval time.Duration
	// Getenv replaces ${{NAME}} in YAML files; nil leaves such text alone. It is called from the store's own goroutine too.
	Getenv func(name string) (string, bool)
	// Check judges a whole version of the file before it is taken, by store key; what it returns, by store key too, is wrong with it.
	// nil accepts everything that could be read. It must not call the store, and the values are read-only.
	Check func(docs map[string][]byte) (wrong map[string]error)
	// Logf is told about every version that was taken or refused. nil = nobody is told.
	Logf func(format string, args ...any)
}

// Store implements store.Store and store.Reporter.
type Store struct {
	path    string
	options Options
	feed    *feed.Feed
	stop    context.CancelFunc
	done    chan struct{}

	mu       sync.Mutex // also keeps the feed in revision order
	items    map[string]store.Item
	revision uint64
	closed   bool
	notes    []string
	failure  string // of the latest look at the file, "" when it was good
	lastErr  string // the latest failure
	looked   time.Time

	// seen belongs to the goroutine that looks.
	seen version
}

// version tells one state of the file from another.
type version struct {
	info os.FileInfo
	at   time.Time // when it was read
	sum  uint64
	read bool
}

// Open reads the file at path, which ends in .toml, .yaml or .yml, and watches it until Close. A file that is missing or wrong is an
// error here; later it changes nothing. The error names file and line. The documents of the first version have revision 1.
func Open(path string, options Options) (*Store, error) {
	if options.Interval <= 0 {
		options.Interval = defaultInterval
	}
	if options.Logf == nil {
		options.Logf = func(string, ...any) {}
	}
	s := &Store{path: path, options: options, feed: feed.New(1), revision: 1, items: map[string]store.Item{}, done: make(chan struct{})}
	text, err := s.read()
	if err != nil {
		return nil, err
	}
	docs, notes, err := s.judge(text)
	if err != nil {
		return nil, err
	}
	for key, d := range docs {
		s.items[key] = store.Item{Key: key, Value: d.value, CreateRevision: 1, ModRevision: 1}
	}
	s.notes, s.looked = notes, time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.watch(ctx)
	return s, nil
}

// read returns the text of the file and notes which version that was. The version is noted even when the text cannot be read.
func (s *Store) read() ([]byte, error) {
	s.seen = version{at: time.Now()}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: expected a regular file", s.path)
	}
	s.seen.info = info
	text, err := io.ReadAll(io.LimitReader(f, int64(MaxSize)+1))
	if err != nil {
		return nil, err
	}
	if conf.Size(len(text)) > MaxSize {
		return nil, conf.Problems{{File: s.path, Msg: "expected at most " + MaxSize.String() + " of text"}}
	}
	s.seen.sum, s.seen.read = xxhash.Sum64(text), true
	return text, nil
}

// judge turns the text of the file into documents, or says what is wrong with it.
func (s *Store) judge(text []byte) (map[string]document, []string, error) {
	docs, notes, err := parse(s.path, text, s.options.Getenv)
	if err != nil || s.options.Check == nil {
		return docs, notes, err
	}
	values := make(map[string][]byte, len(docs))
	for key, d := range docs {
		values[key] = d.value
	}
	if wrong := s.options.Check(values); len(wrong) > 0 {
		return nil, nil, located(s.path, docs, wrong)
	}
	return docs, notes, nil
}

// look reads the file again unless it is surely the version that was read last, and takes what it says.
func (s *Store) look() {
	before := s.seen
	if s.unchanged() {
		s.passed()
		return
	}
	text, err := s.read()
	if err == nil && before.read && s.seen.sum == before.sum {
		s.passed() // touched only; what was wrong with it still is
		return
	}
	var docs map[string]document
	var notes []string
	if err == nil {
		docs, notes, err = s.judge(text)
	}
	if err != nil {
		s.refuse(err)
		return
	}
	put, deleted := s.take(docs, notes)
	s.options.Logf("store file %s: %d documents set, %d deleted", s.path, put, deleted)
}

// unchanged reports whether the file's metadata prove that its content was read already. Metadata cannot tell two writes within the
// clock's granularity apart, so those of a file that was young when it was read prove nothing.
func (s *Store) unchanged() bool {
	const granularity = 2 * time.Second
	info, err := os.Stat(s.path)
	old := s.seen.info
	return err == nil && s.seen.read && os.SameFile(info, old) && info.Size() == old.Size() && info.ModTime().Equal(old.ModTime()) &&
		s.seen.at.Sub(info.ModTime()) > granularity
}

// passed notes that the file still is what it was.
func (s *Store) passed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == "" {
		s.looked = time.Now()
	}
}

// refuse keeps what is in force and remembers why.
func (s *Store) refuse(err error) {
	s.mu.Lock()
	told := s.failure == err.Error()
	s.failure, s.lastErr = err.Error(), err.Error()
	s.mu.Unlock()
	if !told {
		s.options.Logf("store file: nothing was changed: %v", err)
	}
}

// take puts docs into force: what differs becomes one change of the store.
func (s *Store) take(docs map[string]document, notes []string) (put, deleted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure, s.notes, s.looked = "", notes, time.Now()
	var events []store.Event
	for key, d := range docs {
		old, had := s.items[key]
		if had && string(old.Value) == string(d.value) {
			continue
		}
		it := store.Item{Key: key, Value: d.value, CreateRevision: s.revision + 1, ModRevision: s.revision + 1}
		if had {
			it.CreateRevision = old.CreateRevision
		}
		events = append(events, store.Event{Item: it})
		put++
	}
	for key := range s.items {
		if _, stays := docs[key]; !stays {
			events = append(events, store.Event{Item: store.Item{Key: key, ModRevision: s.revision + 1}, Deleted: true})
			deleted++
		}
	}
	if len(events) == 0 {
		return 0, 0
	}
	slices.SortFunc(events, compareEvents)
	for _, e := range events {
		if e.Deleted {
			delete(s.items, e.Item.Key)
		} else {
			s.items[e.Item.Key] = e.Item
		}
	}
	s.revision++
	s.feed.Publish(events...)
	return put, deleted
}

// compareEvents sets documents before those that refer to them, and deletes in the opposite order, for readers that go one by one.
func compareEvents(a, b store.Event) int {
	if a.Deleted != b.Deleted {
		if a.Deleted {
			return 1
		}
		return -1
	}
	order := rank(a.Item.Key) - rank(b.Item.Key)
	if a.Deleted {
		order = -order
	}
	if order != 0 {
		return order
	}
	return strings.Compare(a.Item.Key, b.Item.Key)
}

func rank(key string) int {
	kind, _, _ := strings.Cut(key, "/")
	if strings.Contains(key, "/credentials/") {
		kind = "credentials"
	}
	return slices.Index(conf.DocumentKinds(), kind)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context) ([]store.Item, uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, fmt.Errorf("%w: closed", store.ErrUnavailable)
	}
	out := slices.Collect(maps.Values(s.items))
	slices.SortFunc(out, func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) })
	return out, s.revision, nil
}

// Put implements store.Store: it is refused.
func (s *Store) Put(context.Context, string, []byte, uint64, time.Time) (store.Item, error) {
	return store.Item{}, store.ErrReadOnly
}

// Delete implements store.Store: it is refused.
func (s *Store) Delete(context.Context, string, uint64) (uint64, error) { return 0, store.ErrReadOnly }

// Batch implements store.Store: it is refused.
func (s *Store) Batch(context.Context, []store.Write) ([]store.Item, uint64, error) {
	return nil, 0, store.ErrReadOnly
}

// Watch implements store.Store. The events of one version of the file share a revision.
func (s *Store) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	return s.feed.Watch(ctx, from)
}

// Status implements store.Reporter. Reachable is false, and Lag grows, while the file is missing or wrong.
func (s *Store) Status() store.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.Status{Reachable: s.failure == "", Lag: time.Since(s.looked), Revision: s.revision, LastError: s.lastErr}
}

// Notes says what the version in force contains and Headgate has no use for.
func (s *Store) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return errors.New("store file: closed twice")
	}
	s.stop()
	<-s.done
	s.feed.Close()
	return nil
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Reporter = (*Store)(nil)
)
