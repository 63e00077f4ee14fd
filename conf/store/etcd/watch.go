package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"headgate/conf/store"
)

// silences is after how many times Options.Progress without a word a watch counts as dead.
const silences = 3

// errLost says that events after the position of a watch cannot be had.
var errLost = errors.New("events are lost")

// Watch implements store.Store. The watch outlives its connections: it goes on behind the last revision that was delivered as a whole.
// The channel is closed when etcd has compacted what follows that, or is at an older revision (it was put back from a copy).
func (s *Store) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	call, cancelCall := context.WithTimeout(ctx, s.timeout)
	defer cancelCall()
	revision, err := s.head(call)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%w: etcd: %w", store.ErrUnavailable, err)
	case from > revision:
		s.rewound(revision)
		return nil, store.ErrCompacted
	}
	w := &watch{store: s, position: from, out: make(chan store.Event)}
	ctx, cancel := context.WithCancel(ctx)
	unlink := context.AfterFunc(s.ctx, cancel)
	s.watchers.Go(func() {
		defer cancel()
		defer unlink()
		defer close(w.out)
		w.run(ctx)
	})
	return w.out, nil
}

// watch is one call of Watch. It speaks the protocol itself instead of using the client's watcher, which resumes behind progress
// notifications: servers before 3.4.25 and 3.5.8 may send those ahead of events, which would then be lost.
type watch struct {
	store    *Store
	position uint64 // everything up to here was delivered
	out      chan store.Event
}

// run holds session after session until ctx ends or events are lost.
func (w *watch) run(ctx context.Context) {
	for try := 0; ; try++ {
		begun, err := w.session(ctx)
		if ctx.Err() != nil || errors.Is(err, errLost) {
			return
		}
		w.store.failed(err)
		if begun {
			try = 0
		}
		pause(ctx, try)
	}
}

// session is one stream. begun says that etcd accepted the watch; the error is never nil.
func (w *watch) session(ctx context.Context) (begun bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := w.checkHead(ctx); err != nil {
		return false, err
	}
	stream, err := w.open(ctx, cancel)
	if err != nil {
		return false, err
	}
	answers, end := make(chan *pb.WatchResponse), make(chan error, 1)
	go receive(ctx, stream, answers, end)

	tick := time.NewTicker(w.store.progress)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return begun, ctx.Err()
		case err := <-end:
			return begun, err
		case <-tick.C:
			if silence := time.Since(heard); silence > silences*w.store.progress {
				return begun, fmt.Errorf("the watch is silent for %v", silence.Round(time.Millisecond))
			}
			if err := stream.Send(progressRequest()); err != nil {
				return begun, err
			}
		case r := <-answers:
			w.store.heard(r.Header)
			if err := w.answer(ctx, r); err != nil {
				return begun, err
			}
			if r.Created {
				begun = true
				if err := stream.Send(progressRequest()); err != nil {
					return begun, err
				}
			}
			heard = time.Now() // also after a long wait for the receiver of events
		}
	}
}

// checkHead makes sure that etcd has been where the watch is. A watch from a revision in the future would wait for it in silence.
func (w *watch) checkHead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.store.timeout)
	defer cancel()
	revision, err := w.store.head(ctx)
	if err == nil && revision < w.position {
		w.store.rewound(revision)
		err = errLost
	}
	return err
}

// open starts a stream that watches from the position on. cancel ends ctx and thereby the attempt when it takes too long.
func (w *watch) open(ctx context.Context, cancel func()) (pb.Watch_WatchClient, error) {
	limit := time.AfterFunc(w.store.timeout, cancel)
	defer limit.Stop()
	// A member that has lost its leader ends the watch instead of falling behind.
	stream, err := pb.NewWatchClient(w.store.client.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(w.store.keys.prefix), RangeEnd: []byte(w.store.keys.end()), StartRevision: int64(w.position) + 1, ProgressNotify: true,
	}}})
}

func progressRequest() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

// receive hands over what comes until the stream ends, as it does with ctx.
func receive(ctx context.Context, stream pb.Watch_WatchClient, answers chan<- *pb.WatchResponse, end chan<- error) {
	for {
		r, err := stream.Recv()
		if err != nil {
			end <- err
			return
		}
		select {
		case answers <- r:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) answer(ctx context.Context, r *pb.WatchResponse) error {
	switch {
	case r.CompactRevision != 0:
		return errLost
	case r.Canceled:
		return fmt.Errorf("etcd ended the watch: %s", r.CancelReason)
	case len(r.Events) > 0:
		return w.deliver(ctx, r.Events)
	case !r.Created:
		w.store.current()
	}
	return nil
}

// deliver sends the documents among events, which are whole revisions in order.
func (w *watch) deliver(ctx context.Context, events []*mvccpb.Event) error {
	var ready []store.Event
	for _, e := range events {
		if converted, ok := w.convert(e); ok {
			if n := len(ready); n > 0 && ready[n-1].Item.ModRevision == converted.Item.ModRevision {
				ready[n-1].More = true
			}
			ready = append(ready, converted)
		}
	}
	for _, e := range ready {
		select {
		case w.out <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !e.More {
			w.position = e.Item.ModRevision
		}
	}
	w.position = uint64(events[len(events)-1].Kv.ModRevision)
	return nil
}

func (w *watch) convert(e *mvccpb.Event) (store.Event, bool) {
	if e.Type == mvccpb.Event_DELETE {
		key, ok := w.store.keys.key(e.Kv, true)
		return store.Event{Item: store.Item{Key: key, ModRevision: uint64(e.Kv.ModRevision)}, Deleted: true}, ok
	}
	it, ok := w.store.keys.item(e.Kv)
	return store.Event{Item: it}, ok
}
