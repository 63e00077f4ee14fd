package file

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the directory has to be quiet before the file is read: a writer in place needs several writes.
	settle = 50 * time.Millisecond
	// maxSettle bounds the wait in a directory that is never quiet.
	maxSettle = time.Second
)

// watch looks at the file whenever the system says that something happened in its directory, and every interval. The directory is
// watched, not the file: renames put another file in its place, and Kubernetes swaps a symbolic link beside it. Where notifications are
// not to be had (some network file systems), and for files behind links to other directories, the interval is what remains.
func (s *Store) watch(ctx context.Context) {
	defer close(s.done)
	ticker := time.NewTicker(s.options.Interval)
	defer ticker.Stop()
	var events chan fsnotify.Event
	var errs chan error
	dir := filepath.Dir(s.path)
	notifier, err := fsnotify.NewWatcher()
	if err == nil {
		defer notifier.Close()
		events, errs = notifier.Events, notifier.Errors
		err = notifier.Add(dir)
	}
	if err != nil {
		s.options.Logf("store file %s: no notifications (%v), it is looked at every %s", s.path, err, s.options.Interval)
	}
	// The file may have changed between Open's read and the watch.
	s.look()
	quiet := time.NewTimer(0)
	quiet.Stop()
	defer quiet.Stop()
	var since time.Time // first event that was not followed by a look
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			quiet.Reset(max(0, min(settle, since.Add(maxSettle).Sub(now))))
		case _, ok := <-errs: // events were lost: as if there had been one
			if !ok {
				errs = nil
				continue
			}
			quiet.Reset(settle)
		case <-quiet.C:
			since = time.Time{}
			s.look()
		case <-ticker.C:
			if !since.IsZero() {
				continue // a look is due
			}
			if s.young() {
				since = time.Now()
				quiet.Reset(settle)
				continue
			}
			// A directory that was removed and made again is another one.
			if notifier != nil && len(notifier.WatchList()) == 0 {
				_ = notifier.Add(dir)
			}
			s.look()
		}
	}
}

// young reports whether the file was written to a moment ago, so that its writer may be at work.
func (s *Store) young() bool {
	info, err := os.Stat(s.path)
	if err != nil {
		return false
	}
	age := time.Since(info.ModTime())
	return age >= 0 && age < settle
}
