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
	// attempts is how often an unconditional write is tried when another writer came in between, and a POST with a new id.
	attempts = 4
)

// errTaken says that a generated id names a document already.
var errTaken = errors.New("the generated id is taken")

// write carries out PUT, POST, PATCH and DELETE: the steps of contract section 1.4 that need the request, then the edit.
func (a *API) write(q *request) {
	var result proxy.Result
	var err error
	switch {
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
	a.audit(q, result)
	if q.verb == fasthttp.MethodDelete {
		b := appendText([]byte(`{"deleted":"1","key":`), a.Prefix+"/"+result.Item.Key)
		a.replyDocument(q.ctx, fasthttp.StatusOK, append(b, "}\n"...))
		return
	}
	status := fasthttp.StatusOK
	if result.Old == nil {
		status = fasthttp.StatusCreated
	}
	a.replyDocument(q.ctx, status, append(a.appendKeyValue(nil, result.Item), "}\n"...))
}

// put replaces the document or creates it. The time of creation is that of the document that is replaced.
func (a *API) put(q *request) (proxy.Result, error) {
	doc, refused := resource.CheckBody(q.verb, q.body.doc, q.body.present)
	if refused != nil {
		return proxy.Result{}, refused
	}
	id, refused := resource.CheckID(q.kind, q.verb, q.id, doc)
	if refused == nil {
		refused = resource.CheckTimes(doc)
	}
	if refused != nil {
		return proxy.Result{}, refused
	}
	now := a.seconds()
	return a.apply(attempts, proxy.Change{Key: q.kind.Key(id), TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
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
	doc, refused := resource.CheckBody(q.verb, q.body.doc, q.body.present)
	if refused == nil {
		_, refused = resource.CheckID(q.kind, q.verb, q.id, doc)
	}
	if refused == nil {
		refused = resource.CheckTimes(doc)
	}
	if refused != nil {
		return proxy.Result{}, refused
	}
	var err error
	for range attempts {
		id := a.ids.next(a.Plane)
		next := maps.Clone(doc)
		next["id"], next["create_time"], next["update_time"] = id, a.seconds(), a.seconds()
		var result proxy.Result
		result, err = a.apply(1, proxy.Change{Key: q.kind.Key(id), TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
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
	if _, refused := resource.CheckID(q.kind, q.verb, q.id, nil); refused != nil {
		return proxy.Result{}, refused
	}
	now := a.seconds()
	return a.apply(1, proxy.Change{Key: q.kind.Key(q.id), TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
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
		if _, refused := resource.CheckID(q.kind, q.verb, q.id, next); refused != nil {
			return nil, refused
		}
		return resource.Encode(next)
	}})
}

// remove deletes a document.
func (a *API) remove(q *request) (proxy.Result, error) {
	if _, refused := resource.CheckID(q.kind, q.verb, q.id, nil); refused != nil {
		return proxy.Result{}, refused
	}
	force := string(q.ctx.QueryArgs().Peek("force")) == "true"
	return a.apply(attempts, proxy.Change{Key: q.kind.Key(q.id), Force: force, Edit: func(old *store.Item) ([]byte, error) {
		if old == nil {
			return nil, resource.KeyNotFound()
		}
		return nil, nil
	}})
}

// apply hands c to the config path, again while another writer comes in between and tries are left.
func (a *API) apply(tries int, c proxy.Change) (proxy.Result, error) {
	if reason := a.Plane.ReadOnly(c.Key); reason != "" {
		return proxy.Result{}, &resource.Error{Status: fasthttp.StatusMethodNotAllowed, Msg: reason}
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
		}
		return result, err
	}
}

// audit writes down who changed what. The body stays out: it may hold secrets.
func (a *API) audit(q *request, result proxy.Result) {
	done := "changed"
	switch {
	case q.verb == fasthttp.MethodDelete:
		done = "deleted"
	case result.Old == nil:
		done = "created"
	}
	a.Logf("admin audit: key=%q peer=%s %s %s: %s, revision %d", q.who, q.peer, q.verb, result.Item.Key, done, result.Revision)
}

func (a *API) auditRefusal(q *request, status int) {
	name := strings.Join(append([]string{q.kind.Segment, q.id}, q.sub...), "/")
	a.Logf("admin audit: key=%q peer=%s %s %q: refused with status %d", q.who, q.peer, q.verb, name, status)
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
