package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"headgate/conf/store"
)

// writeTries bounds how often a write makes room for itself where something stands that is no document.
const writeTries = 3

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (store.Item, error) {
	items, _, err := s.Batch(ctx, []store.Write{store.NewPut(key, value, ifRevision, expires)})
	if err != nil {
		return store.Item{}, err
	}
	return items[0], nil
}

// Delete implements store.Store. With AnyRevision it also removes what stands under the key and is no document.
func (s *Store) Delete(ctx context.Context, key string, ifRevision uint64) (uint64, error) {
	_, revision, err := s.Batch(ctx, []store.Write{{Key: key, IfRevision: ifRevision}})
	return revision, err
}

// Batch implements store.Store with one transaction. It takes 127 writes and 1.5 MiB unless the server is configured otherwise
// (--max-txn-ops less one, --max-request-bytes); above that it is ErrTooLarge.
//
// ctx counts until the transaction is sent; from then on it is carried to its end, which takes at most twice the timeout. When no
// answer comes, Batch makes sure that the transaction cannot take effect any more and looks whether it did, so that the error is
// ErrUnavailable for nothing written and the result as usual for written. Only when etcd does not answer that either is it
// ErrUnknown. (If another writer has deleted or replaced everything in between, written and not written are the same; it is then
// reported as not written.)
func (s *Store) Batch(ctx context.Context, writes []store.Write) ([]store.Item, uint64, error) {
	if err := store.CheckBatch(writes); err != nil {
		return nil, 0, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	if len(writes) == 0 {
		revision, err := s.head(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: etcd: %w", store.ErrUnavailable, err)
		}
		return nil, revision, nil
	}
	t := transaction{store: s, writes: writes, instead: map[int]int64{}, fence: s.keys.full(ownDir + rand.Text()), before: s.seen()}
	if err := t.grantLeases(ctx); err != nil {
		return nil, 0, refusal(s.failed(err))
	}
	items, revision, err := t.run(ctx)
	if err != nil && !errors.Is(err, store.ErrUnknown) {
		t.revokeLeases()
	}
	return items, revision, err
}

// transaction is one Batch.
type transaction struct {
	store  *Store
	writes []store.Write
	leases []clientv3.LeaseID // by write; 0 = none; nil when there is none at all
	ends   []time.Time        // of the leases
	// instead holds revisions of what is no document and stands under the key of a write that is to create one, by write.
	instead map[int]int64
	// fence is a key that does not exist. The transaction takes effect only as long as that is so.
	fence string
	// before is a revision that is older than the transaction.
	before uint64
}

// grantLeases asks for one lease per expiring document. They end by themselves if they are never used.
func (t *transaction) grantLeases(ctx context.Context) error {
	for i, w := range t.writes {
		if w.Expires.IsZero() || w.Value == nil {
			continue
		}
		ttl := max(1, int64(math.Ceil(time.Until(w.Expires).Seconds())))
		r, err := t.store.client.Grant(ctx, ttl)
		if err != nil {
			return err
		}
		if t.leases == nil {
			t.leases, t.ends = make([]clientv3.LeaseID, len(t.writes)), make([]time.Time, len(t.writes))
		}
		t.leases[i], t.ends[i] = r.ID, time.Now().Add(time.Duration(r.TTL)*time.Second)
	}
	return nil
}

// revokeLeases gives back the leases of a transaction that was not carried out.
func (t *transaction) revokeLeases() {
	ctx, cancel := context.WithTimeout(t.store.ctx, time.Second)
	defer cancel()
	for _, lease := range t.leases {
		if lease != 0 {
			_, _ = t.store.client.Revoke(ctx, lease) // else it ends later
		}
	}
}

func (t *transaction) run(ctx context.Context) ([]store.Item, uint64, error) {
	for range writeTries {
		var compares []clientv3.Cmp
		var changes, looks []clientv3.Op
		for i, w := range t.writes {
			key := t.store.keys.full(w.Key)
			compares = append(compares, t.conditions(i, key)...)
			changes = append(changes, t.change(i, key))
			looks = append(looks, clientv3.OpGet(key))
		}
		compares = append(compares, clientv3.Compare(clientv3.CreateRevision(t.fence), "=", 0))
		r, err := t.store.client.Txn(ctx).If(compares...).Then(changes...).Else(looks...).Commit()
		if err != nil {
			t.store.failed(err)
			if isRefusal(err) {
				return nil, 0, refusal(err)
			}
			return t.resolve(err)
		}
		t.store.heard(r.Header)
		if r.Succeeded {
			return t.items(r), uint64(r.Header.Revision), nil
		}
		if err := t.examine(r); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, store.ErrConflict // with somebody who keeps writing what is no document
}

// conditions returns what must hold for write i.
func (t *transaction) conditions(i int, key string) []clientv3.Cmp {
	w := t.writes[i]
	never := []clientv3.Cmp{clientv3.Compare(clientv3.Version(key), "<", 0)}
	if revision, ok := t.instead[i]; ok {
		return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}
	}
	switch {
	case w.IfRevision == store.AnyRevision && w.Value != nil:
		return nil
	case w.IfRevision == store.AnyRevision:
		return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}
	case w.IfRevision > math.MaxInt64, w.IfRevision == store.Absent && w.Value == nil:
		return never
	case w.IfRevision == store.Absent:
		return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", int64(w.IfRevision))}
}

func (t *transaction) change(i int, key string) clientv3.Op {
	w := t.writes[i]
	if w.Value == nil {
		return clientv3.OpDelete(key)
	}
	options := []clientv3.OpOption{clientv3.WithPrevKV()}
	if t.leases != nil && t.leases[i] != 0 {
		options = append(options, clientv3.WithLease(t.leases[i]))
	}
	return clientv3.OpPut(key, string(w.Value), options...)
}

// items returns what the transaction has stored.
func (t *transaction) items(r *clientv3.TxnResponse) []store.Item {
	items := make([]store.Item, len(t.writes))
	for i := range t.writes {
		created := r.Header.Revision
		if prev := r.Responses[i].GetResponsePut().GetPrevKv(); prev != nil {
			created = prev.CreateRevision
		}
		items[i] = t.item(i, created, r.Header.Revision)
	}
	return items
}

func (t *transaction) item(i int, created, modified int64) store.Item {
	w := t.writes[i]
	it := store.Item{Key: w.Key, ModRevision: uint64(modified)}
	if w.Value != nil {
		it.Value, it.CreateRevision = append([]byte{}, w.Value...), uint64(created)
		if t.ends != nil {
			it.Expires = t.ends[i]
		}
	}
	return it
}

// examine finds out which condition did not hold. Without an error all of them do: what was in the way is no document.
func (t *transaction) examine(r *clientv3.TxnResponse) error {
	for i, w := range t.writes {
		var old *store.Item
		delete(t.instead, i)
		if kv := firstKV(r.Responses[i]); kv != nil {
			if it, ok := t.store.keys.item(kv); ok {
				old = &it
			} else if w.Value != nil && w.IfRevision == store.Absent {
				t.instead[i] = kv.ModRevision
			}
		}
		if _, err := w.Event(old, 0); err != nil {
			return err
		}
	}
	return nil
}

// isRefusal reports whether err is the server's answer, so that nothing was written. Everything else says nothing about that.
func isRefusal(err error) bool {
	switch code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.NotFound, codes.OutOfRange,
		codes.ResourceExhausted:
		return true
	}
	return false
}

// refusal translates an error after which nothing was written.
func refusal(err error) error {
	_, known := errors.AsType[rpctypes.EtcdError](err)
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge), !known && code(err) == codes.ResourceExhausted:
		return fmt.Errorf("%w: etcd: %w", store.ErrTooLarge, err)
	}
	return fmt.Errorf("%w: etcd: %w", store.ErrUnavailable, err)
}

func code(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}

func firstKV(r *pb.ResponseOp) *mvccpb.KeyValue {
	if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}
