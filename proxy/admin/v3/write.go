package v3

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy"
)

const (
	// applyTimeout bounds the wait for an edit, the queue before it included.
	applyTimeout = 30 * time.Second
	// attempts is how often a POST tries a new id.
	attempts = 4
	// races is how often an unconditional write is tried when another writer came in between. As many may be in between as changes of
	// the store are on their way here; every lost race has shown one of them.
	races = 32
)

// errTaken says that a generated id names a document already.
var errTaken = errors.New("the generated id is taken")

// write carries out PUT, POST, PATCH and DELETE: the steps of contract section 1.4 that need the request, then the edit.
func (a *API) write(q *request) {
	var result proxy.Result
	var err error
	switch {
	case q.kind.NoPost && q.verb == fasthttp.MethodPost, q.kind.NoPatch && q.verb == fasthttp.MethodPatch:
		err = &resource.Error{Status: fasthttp.StatusMethodNotAllowed, Msg: "not supported `" + q.verb + "` method for " + q.kind.Word}
	case len(q.sub) > 0 && q.verb != fasthttp.MethodPatch:
		// APISIX ignores the rest of the path, and deletes a route where somebody meant to delete a field of it.
		err = resource.Invalid("a path behind the id is for PATCH only")
	case q.verb == fasthttp.MethodPut:
		result, err = a.put(q)
	case q.verb == fasthttp.MethodPost:
		result, err = a.post(q)
	case q.verb == fasthttp.MethodPatch:
		result, err = a.patch(q)
	default:
		result, err = a.remove(q)
	}
	if err != nil {
		a.auditRefusal(q, a.fail(q.ctx, err))
		return
	}
	if q.verb == fasthttp.MethodDelete {
		b := appendText([]byte(`{"deleted":"1","key":`), a.Prefix+"/"+result.Item.Key)
		a.replyDocument(q.ctx, fasthttp.StatusOK, append(b, "}\n"...))
		return
	}
	status := fasthttp.StatusOK
	if result.Old == nil {
		status = fasthttp.StatusCreated
	}
	a.replyDocument(q.ctx, status, append(a.appendKeyValue(nil, result.Item.Key, a.written(q.kind, result.Item)), "}\n"...))
}

// put replaces the document or creates it. The time of creation is that of the document that is replaced.
func (a *API) put(q *request) (proxy.Result, error) {
	doc, err := checkBody(q)
	if err != nil {
		return proxy.Result{}, err
	}
	key, err := q.identify(doc)
	if refused := resource.CheckTimes(doc); refused != nil && (err == nil || q.kind.NoID) {
		return proxy.Result{}, refused // the body names a consumer, so its id comes after the times
	}
	if err != nil {
		return proxy.Result{}, err
	}
	now := a.seconds()
	return a.apply(q, races, proxy.Change{Key: key, TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
		if q.kind.NoTimes {
			return resource.Encode(doc)
		}
		created := any(now)
		if old != nil {
			if before, err := decodeStored(old); err == nil && before["create_time"] != nil {
				created = before["create_time"]
			}
		}
		next := maps.Clone(doc)
		next["create_time"], next["update_time"] = created, now
		return resource.Encode(next)
	}})
}

// post creates a document under an id of its own.
func (a *API) post(q *request) (proxy.Result, error) {
	doc, err := checkBody(q)
	if err != nil {
		return proxy.Result{}, err
	}
	if _, err := q.identify(doc); err != nil {
		return proxy.Result{}, err
	}
	if refused := resource.CheckTimes(doc); refused != nil {
		return proxy.Result{}, refused
	}
	for range attempts {
		id := a.ids.next(a.Plane)
		next := maps.Clone(doc)
		next["id"], next["create_time"], next["update_time"] = id, a.seconds(), a.seconds()
		var result proxy.Result
		result, err = a.apply(q, 1, proxy.Change{Key: q.kind.Key(id), TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
			if old != nil {
				return nil, errTaken
			}
			return resource.Encode(next)
		}})
		if !errors.Is(err, errTaken) && !errors.Is(err, store.ErrConflict) {
			return result, err
		}
		a.ids.taken()
	}
	return proxy.Result{}, err
}

// patch merges an object into the document, or assigns any value at a path inside it (contract section 1.5).
func (a *API) patch(q *request) (proxy.Result, error) {
	checked := q.body.doc
	if len(q.sub) > 0 {
		checked = map[string]any{}
	}
	if _, refused := resource.CheckBody(q.verb, checked, q.body.present); refused != nil {
		return proxy.Result{}, refused
	}
	key, err := q.identify(nil)
	if err != nil {
		return proxy.Result{}, err
	}
	now := a.seconds()
	return a.apply(q, 1, proxy.Change{Key: key, TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
		if old == nil {
			return nil, resource.KeyNotFound()
		}
		next, err := decodeStored(old)
		if err != nil {
			return nil, err
		}
		ownTime := false // the patch may set update_time, but only by merging
		if len(q.sub) > 0 {
			if err := resource.SetPath(next, q.sub, q.body.doc); err != nil {
				return nil, resource.Invalid(err.Error())
			}
		} else {
			merged, ok := resource.Merge(next, q.body.doc).(map[string]any)
			if !ok {
				return nil, resource.Invalid("invalid configuration")
			}
			changes, _ := q.body.doc.(map[string]any)
			next, ownTime = merged, changes["update_time"] != nil
		}
		if !ownTime {
			next["update_time"] = now
		}
		if next["create_time"] == nil {
			next["create_time"] = now
		}
		if _, refused := resource.CheckID(q.kind, q.verb, q.pathID(), next); refused != nil {
			return nil, refused
		}
		return resource.Encode(next)
	}})
}

// remove deletes a document, and with a consumer its credentials.
func (a *API) remove(q *request) (proxy.Result, error) {
	key, err := q.identify(nil)
	if err != nil {
		return proxy.Result{}, err
	}
	if q.kind.Segment == consumersSegment {
		return a.removeConsumer(q, key)
	}
	return a.apply(q, races, a.deletion(q, key))
}

func (a *API) deletion(q *request, key string) proxy.Change {
	force := string(q.ctx.QueryArgs().Peek("force")) == "true"
	return proxy.Change{Key: key, Force: force, Edit: func(old *store.Item) ([]byte, error) {
		if old == nil {
			return nil, resource.KeyNotFound()
		}
		return nil, nil
	}}
}

// removeConsumer looks for the credentials again until there are none: one may be stored, or may go, between the look and the deletion.
func (a *API) removeConsumer(q *request, key string) (proxy.Result, error) {
	if _, ok := a.Plane.Get(key); !ok {
		return proxy.Result{}, resource.KeyNotFound()
	}
	var err error
	for range races {
		var changes []proxy.Change
		for _, item := range a.Plane.List(key) {
			changes = append(changes, a.deletion(q, item.Key))
		}
		changes = append(changes, a.deletion(q, key))
		var results []proxy.Result
		results, err = a.applyAll(q, changes)
		if err == nil {
			return results[len(results)-1], nil
		}
		if _, there := a.Plane.Get(key); !there { // somebody else was faster
			return proxy.Result{}, resource.KeyNotFound()
		}
		switch {
		case errors.Is(err, store.ErrTooLarge) && len(changes) > 2: // APISIX deletes them one by one, too
			if _, err = a.applyAll(q, changes[:len(changes)/2]); err != nil && !errors.Is(err, store.ErrTooLarge) {
				return proxy.Result{}, err
			}
		case !errors.Is(err, store.ErrConflict) && !isNotFound(err):
			return proxy.Result{}, err
		}
	}
	return proxy.Result{}, err
}

func isNotFound(err error) bool {
	var refused *resource.Error
	return errors.As(err, &refused) && refused.NotFound
}

// apply hands c to the config path, again while another writer comes in between and tries are left.
func (a *API) apply(q *request, tries int, c proxy.Change) (proxy.Result, error) {
	if err := a.writable(c.Key); err != nil {
		return proxy.Result{}, err
	}
	// Not the context of the request: it ends when the server drains, which must not abandon an edit half-way.
	ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
	defer cancel()
	for {
		result, err := a.Plane.Apply(ctx, c)
		if tries--; tries > 0 && errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			a.ids.observe(result.Revision)
			a.audit(q, result)
		}
		return result, err
	}
}

// applyAll hands changes to the config path as one.
func (a *API) applyAll(q *request, changes []proxy.Change) ([]proxy.Result, error) {
	for _, c := range changes {
		if err := a.writable(c.Key); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
	defer cancel()
	results, err := a.Plane.ApplyAll(ctx, changes)
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		a.ids.observe(result.Revision)
		if !strings.HasPrefix(result.Item.Key, proxy.Internal) {
			a.audit(q, result)
		}
	}
	return results, nil
}

func (a *API) writable(key string) error {
	if reason := a.Plane.ReadOnly(key); reason != "" {
		return &resource.Error{Status: fasthttp.StatusMethodNotAllowed, Msg: reason}
	}
	return nil
}

// seconds is the time as documents carry it.
func (a *API) seconds() json.Number { return json.Number(strconv.FormatInt(a.Now().Unix(), 10)) }

// decodeStored returns a document of its own, so that it may be changed.
func decodeStored(item *store.Item) (map[string]any, error) {
	decoded, err := schema.DecodeJSON(item.Value)
	if err != nil {
		return nil, err
	}
	doc, ok := decoded.(map[string]any)
	if !ok {
		return nil, errors.New("the stored document is not an object")
	}
	return doc, nil
}
