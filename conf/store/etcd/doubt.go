package etcd

import (
	"bytes"
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"headgate/conf/store"
)

// fenceTTL is how long a fence stands, in seconds: far longer than a request can be on its way.
const fenceTTL = 600

// resolve decides what became of a transaction whose answer did not come (why). The request may still be on its way; putting up the
// fence, which the transaction requires to be absent, ends that, and the same transaction of etcd shows the keys as they are then.
func (t *transaction) resolve(why error) ([]store.Item, uint64, error) {
	ctx, cancel := context.WithTimeout(t.store.ctx, t.store.timeout)
	defer cancel()
	for try := 0; ctx.Err() == nil; try++ {
		r, err := t.raiseFence(ctx)
		if err != nil {
			t.store.failed(err)
			pause(ctx, try)
			continue
		}
		t.store.heard(r.Header)
		if items, revision, ok := t.outcome(r); ok {
			return items, revision, nil
		}
		return nil, 0, fmt.Errorf("%w: etcd: %w", store.ErrUnavailable, why)
	}
	return nil, 0, fmt.Errorf("%w: %w: etcd: %w", store.ErrUnavailable, store.ErrUnknown, why)
}

func (t *transaction) raiseFence(ctx context.Context) (*clientv3.TxnResponse, error) {
	lease, err := t.store.client.Grant(ctx, fenceTTL)
	if err != nil {
		return nil, err
	}
	ops := []clientv3.Op{clientv3.OpPut(t.fence, "{}", clientv3.WithLease(lease.ID))}
	for _, w := range t.writes {
		ops = append(ops, clientv3.OpGet(t.store.keys.full(w.Key)))
	}
	return t.store.client.Txn(ctx).Then(ops...).Commit()
}

// outcome reports whether the transaction took effect, and with which result. r shows the fence and then the keys in order.
func (t *transaction) outcome(r *clientv3.TxnResponse) ([]store.Item, uint64, bool) {
	found := make([]*mvccpb.KeyValue, len(t.writes))
	puts, done := 0, false
	revision := r.Header.Revision - 1 // of a deletion this much is known: it was before the fence
	for i, w := range t.writes {
		found[i] = firstKV(r.Responses[i+1])
		if w.Value == nil {
			continue
		}
		puts++
		if kv := found[i]; kv != nil && uint64(kv.ModRevision) > t.before && bytes.Equal(kv.Value, w.Value) {
			done, revision = true, kv.ModRevision
		}
	}
	if puts == 0 {
		done = true
		for _, kv := range found {
			done = done && (kv == nil || uint64(kv.ModRevision) > t.before)
		}
	}
	if !done {
		return nil, 0, false
	}
	items := make([]store.Item, len(t.writes))
	for i := range t.writes {
		created := revision
		if kv := found[i]; kv != nil && kv.ModRevision == revision {
			created = kv.CreateRevision
		}
		items[i] = t.item(i, created, revision)
	}
	return items, uint64(revision), true
}
