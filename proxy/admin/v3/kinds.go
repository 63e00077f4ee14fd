package v3

import (
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/store"
)

// The kinds whose paths or ids have rules of their own (contract section 1.2).
const (
	routesSegment      = "routes"
	upstreamsSegment   = "upstreams"
	consumersSegment   = "consumers"
	credentialsSegment = "credentials"
	secretsSegment     = "secrets"
	sslsSegment        = "ssls"
	streamsSegment     = "stream_routes"
)

// streamsOff is the answer to everything about stream routes.
const streamsOff = "stream mode is disabled, can not add stream routes"

// locate reads which document the path names: kind, id, what stands before the id and what behind it. segments is the path below root.
// ok is false when the first one is no kind.
func (q *request) locate(segments []string) (ok bool) {
	kind, ok := resource.KindOf(segments[0])
	if !ok || kind.Parent != "" {
		return false
	}
	rest := segments[1:]
	switch {
	case kind.Segment == consumersSegment && len(rest) > 1 && rest[1] == credentialsSegment:
		if kind, ok = resource.KindOf(credentialsSegment); !ok {
			return false
		}
		q.within, rest = rest[0]+"/"+credentialsSegment, rest[2:]
	case kind.Segment == secretsSegment && len(rest) > 0:
		q.within, rest = rest[0], rest[1:]
	}
	q.kind = kind
	if len(rest) == 0 {
		return true
	}
	q.id = rest[0]
	for _, s := range rest[1:] {
		if s != "" {
			q.sub = append(q.sub, s)
		}
	}
	return true
}

// pathID is what the path says behind the kind, as resource.CheckID takes it.
func (q *request) pathID() string {
	if q.within == "" || q.id == "" {
		return q.within + q.id
	}
	return q.within + "/" + q.id
}

// key is the store key of the document that the path names.
func (q *request) key() string { return q.kind.Key(q.pathID()) }

// path is what the request is about, for the log.
func (q *request) path() string {
	return strings.Join(append([]string{strings.TrimSuffix(q.key(), "/")}, q.sub...), "/")
}

// identify applies the rules for ids to a write (contract section 1.4, step 3) and returns the key of the document, "" for a POST. doc is
// as for resource.CheckID.
func (q *request) identify(doc map[string]any) (string, error) {
	id, refused := resource.CheckID(q.kind, q.verb, q.pathID(), doc)
	if refused != nil {
		if q.kind.Segment == secretsSegment && q.verb == fasthttp.MethodPut && q.id == "" {
			return "", crash{refused}
		}
		return "", refused
	}
	if q.verb == fasthttp.MethodPost {
		return "", nil
	}
	key := q.kind.Key(id)
	if _, _, ok := resource.ParseKey(key); ok || doc == nil {
		return key, nil
	}
	// Nothing can be stored there. What the schema says about the document comes first, as for every document.
	if err := resource.CheckSchema(q.kind, doc); err != nil {
		return "", resource.Invalid("invalid configuration: " + err.Error())
	}
	return "", resource.Invalid(`invalid configuration: property "id" validation failed: object matches none of the required`)
}

// documents returns those that a list request is about. ok is false when there is no such list: an owner that has none.
func (a *API) documents(q *request) (items []store.Item, ok bool) {
	if q.within != "" {
		items = a.Plane.List(q.key())
		return items, len(items) > 0
	}
	items = a.Plane.List(q.kind.Segment)
	if q.kind.Segment == consumersSegment {
		items = slices.DeleteFunc(slices.Clone(items), func(item store.Item) bool {
			kind, _, ok := resource.ParseKey(item.Key)
			return !ok || kind.Segment != consumersSegment
		})
	}
	return items, true
}
