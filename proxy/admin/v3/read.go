package v3

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
)

const (
	minPageSize = 10
	maxPageSize = 500
)

// get answers with one document. A longer path answers the same: the contract has no part-wise read.
func (a *API) get(q *request) {
	item, ok := a.Plane.Get(q.key())
	if !ok {
		a.replyError(q.ctx, resource.KeyNotFound())
		return
	}
	a.replyDocument(q.ctx, fasthttp.StatusOK, append(a.appendListed(nil, q.kind, item), '\n'))
}

// list answers with the documents of a kind that the filters let through, and the page of them that was asked for.
func (a *API) list(q *request) {
	args := q.ctx.QueryArgs()
	conditions := filterOf(q.kind, args)
	all, ok := a.documents(q)
	if !ok {
		a.replyError(q.ctx, resource.KeyNotFound())
		return
	}
	items := conditions.apply(all)
	total := len(items)
	emptyList := "[]"
	page, havePage := number(args, "page")
	size, haveSize := number(args, "page_size")
	// APISIX takes a page that is not a number for the first one, and ignores both when the size is none.
	if args.Has("page") && haveSize {
		if size < minPageSize || size > maxPageSize {
			reply(q.ctx, fasthttp.StatusBadRequest, []byte("page_size must be between 10 and 500"))
			return
		}
		if !havePage || page < 1 {
			page = 1
		}
		items = slices.Clone(items)
		slices.SortStableFunc(items, func(a, b store.Item) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
		// In floats, because page can be as large as the client likes.
		from := min((page-1)*size, float64(total))
		items = items[int(from):int(min(from+size, float64(total)))]
		emptyList = "{}" // contract section 1.3
		if total == 0 {
			emptyList = "[]"
		}
	}
	a.replyDocument(q.ctx, fasthttp.StatusOK, a.encodeList(q.kind, items, total, emptyList))
}

func (a *API) encodeList(k resource.Kind, items []store.Item, total int, empty string) []byte {
	size := 64
	for _, item := range items {
		size += len(item.Value) + 128
	}
	b := append(make([]byte, 0, size), `{"list":`...)
	if len(items) == 0 {
		b = append(b, empty...)
	} else {
		for i, item := range items {
			if i == 0 {
				b = append(b, '[')
			} else {
				b = append(b, ',')
			}
			b = a.appendListed(b, k, item)
		}
		b = append(b, ']')
	}
	b = strconv.AppendInt(append(b, `,"total":`...), int64(total), 10)
	return append(b, "}\n"...)
}

// appendListed writes a document with its revisions.
func (a *API) appendListed(b []byte, k resource.Kind, item store.Item) []byte {
	b = a.appendKeyValue(b, item.Key, a.shown(k, item))
	b = strconv.AppendUint(append(b, `,"createdIndex":`...), item.CreateRevision, 10)
	b = strconv.AppendUint(append(b, `,"modifiedIndex":`...), item.ModRevision, 10)
	return append(b, '}')
}

// appendKeyValue leaves the object open.
func (a *API) appendKeyValue(b []byte, key string, value []byte) []byte {
	b = appendText(append(b, `{"key":`...), a.Prefix+"/"+key)
	return append(append(b, `,"value":`...), value...)
}

// number reads an argument as a whole number, dropping a fraction.
func number(args *fasthttp.Args, name string) (float64, bool) {
	f, err := strconv.ParseFloat(string(args.Peek(name)), 64)
	if err != nil || f != f {
		return 0, false
	}
	return float64(int64(max(min(f, 1<<53), -1<<53))), true
}

// filter holds the conditions of a list request (contract section 1.3); the zero filter lets everything through.
type filter struct {
	name, uri *regexp.Regexp
	label     string
	fields    map[string]string // members of the document that must be these very strings
	nothing   bool              // a pattern that is no regular expression matches nothing
}

func filterOf(k resource.Kind, args *fasthttp.Args) filter {
	var f filter
	f.name = f.pattern(args.Peek("name"))
	f.uri = f.pattern(args.Peek("uri"))
	f.label = string(args.Peek("label"))
	// Only routes have fields to filter by.
	if conditions := args.Peek("filter"); len(conditions) > 0 && k.Segment == routesSegment {
		var wanted fasthttp.Args
		wanted.ParseBytes(conditions)
		f.fields = make(map[string]string)
		for _, field := range [...]string{"service_id", "upstream_id"} {
			if wanted.Has(field) {
				f.fields[field] = string(wanted.Peek(field))
			}
		}
	}
	return f
}

// pattern takes RE2 alone: an expression that backtracks would let one list request keep a core busy.
func (f *filter) pattern(text []byte) *regexp.Regexp {
	if len(text) == 0 {
		return nil
	}
	re, err := regexp.Compile(string(text))
	if err != nil {
		f.nothing = true
	}
	return re
}

func (f *filter) apply(items []store.Item) []store.Item {
	if f.nothing {
		return nil
	}
	if f.name == nil && f.uri == nil && f.label == "" && len(f.fields) == 0 {
		return items
	}
	var passed []store.Item
	for _, item := range items {
		decoded, err := schema.DecodeJSON(item.Value)
		if doc, ok := decoded.(map[string]any); err == nil && ok && f.match(doc) {
			passed = append(passed, item)
		}
	}
	return passed
}

func (f *filter) match(doc map[string]any) bool {
	if f.name != nil && !matchText(f.name, doc["name"]) {
		return false
	}
	if f.uri != nil && !matchText(f.uri, doc["uri"]) {
		uris, _ := doc["uris"].([]any)
		if !slices.ContainsFunc(uris, func(uri any) bool { return matchText(f.uri, uri) }) {
			return false
		}
	}
	if f.label != "" {
		labels, _ := doc["labels"].(map[string]any)
		if _, ok := labels[f.label]; !ok {
			return false
		}
	}
	for field, want := range f.fields {
		if text, ok := doc[field].(string); !ok || text != want {
			return false
		}
	}
	return true
}

func matchText(re *regexp.Regexp, v any) bool {
	text, ok := v.(string)
	return ok && re.MatchString(text)
}
