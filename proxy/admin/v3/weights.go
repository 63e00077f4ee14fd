package v3

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy"
)

const (
	splitPlugin = "traffic-split"
	// maxQuoted bounds the parts of a body, and the branch names, that an error message repeats.
	maxQuoted = 64
	maxNamed  = 50
)

// weight is what a request asks of one branch. value is as it was sent: a formText, or what JSON or TOML decoded to.
type weight struct {
	branch string
	value  any
}

// formText is a value of a form, where numbers and strings look alike.
type formText string

// isWeights recognises PATCH /apisix/admin/routes/{id}/weights. No route has a field of that name.
func (q *request) isWeights() bool {
	return q.verb == fasthttp.MethodPatch && q.kind.Segment == "routes" && len(q.sub) == 1 && q.sub[0] == "weights"
}

// readWeights decodes the body into q, or answers the request and returns false. The body is TOML when Content-Type says so, JSON
// when it says so or the body begins with a brace (curl calls everything a form), else a form.
func (a *API) readWeights(q *request) bool {
	if !a.capBody(q.ctx) {
		return false
	}
	raw := q.ctx.PostBody()
	contentType := string(q.ctx.Request.Header.ContentType())
	mediaType, _, _ := strings.Cut(contentType, ";")
	text := strings.TrimSpace(string(raw))
	var err error
	switch {
	case len(text) == 0:
		return true
	case isTOML(contentType):
		var doc map[string]any
		if doc, err = resource.FromTOML(raw); err == nil {
			q.weights = listWeights(doc)
		}
	case strings.HasPrefix(text, "{") || strings.EqualFold(strings.TrimSpace(mediaType), "application/json"):
		var decoded any
		if decoded, err = schema.DecodeJSON(raw); err == nil {
			doc, ok := decoded.(map[string]any)
			if !ok {
				err = errors.New(`expected an object such as {"v1":80,"v2":20}`)
			}
			q.weights = listWeights(doc)
		}
	default:
		q.weights, err = parseForm(text)
	}
	if err != nil {
		a.replyMalformed(q.ctx, err, raw)
		return false
	}
	return true
}

// listWeights sorts by branch, so that of several mistakes always the same one is told.
func listWeights(doc map[string]any) []weight {
	weights := make([]weight, 0, len(doc))
	for branch, value := range doc {
		weights = append(weights, weight{branch, value})
	}
	slices.SortFunc(weights, func(a, b weight) int { return strings.Compare(a.branch, b.branch) })
	return weights
}

// parseForm reads "v1=80&v2=20". Names and values may be percent-encoded; a branch that is named twice is an error.
func parseForm(text string) ([]weight, error) {
	var weights []weight
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		branch, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if !ok || err != nil {
			return nil, fmt.Errorf("expected branch=weight pairs such as v1=80&v2=20, got %s", quoted(pair))
		}
		if seen[branch] {
			return nil, fmt.Errorf("branch %s is given twice", quoted(branch))
		}
		seen[branch] = true
		weights = append(weights, weight{branch, formText(value)})
	}
	return weights, nil
}

// patchWeights sets the weights of branches of the route's traffic-split by name and leaves everything else as it is, the moment of
// expiry included. It answers with the weights of all branches before and after.
func (a *API) patchWeights(q *request) {
	result, err := a.setWeights(q)
	if err != nil {
		a.auditRefusal(q, a.fail(q.ctx, err))
		return
	}
	answer, err := a.weightsAnswer(result)
	if err != nil {
		a.fail(q.ctx, err)
		return
	}
	a.replyDocument(q.ctx, fasthttp.StatusOK, answer)
}

func (a *API) setWeights(q *request) (proxy.Result, error) {
	if len(q.weights) == 0 {
		return proxy.Result{}, resource.Invalid("missing new configuration")
	}
	if q.id == "" {
		return proxy.Result{}, resource.Invalid("missing " + q.kind.Word + " id")
	}
	now := a.seconds()
	change := proxy.Change{Key: q.kind.Key(q.id), TTL: q.ttl, Edit: func(old *store.Item) ([]byte, error) {
		if old == nil {
			return nil, resource.KeyNotFound()
		}
		doc, err := decodeStored(old)
		if err != nil {
			return nil, err
		}
		conf, ok := splitOf(doc)
		if !ok {
			return nil, resource.Invalid("route [" + q.id + "] has no " + splitPlugin + " plugin whose weights could be set")
		}
		if refused := assign(conf, q.weights); refused != nil {
			return nil, refused
		}
		doc["update_time"] = now
		return resource.Encode(doc)
	}}
	if item, ok := a.Plane.Get(change.Key); ok && change.TTL == 0 && !item.Expires.IsZero() {
		change.TTL = max(item.Expires.Sub(a.Now()), time.Second)
	}
	return a.apply(q, 1, change)
}

func splitOf(doc map[string]any) (map[string]any, bool) {
	plugins, _ := doc["plugins"].(map[string]any)
	conf, ok := plugins[splitPlugin].(map[string]any)
	return conf, ok
}

// assign writes weights into conf, or says what is wrong with them.
func assign(conf map[string]any, weights []weight) *resource.Error {
	branches := split.Branches(conf)
	position := make(map[string]int, len(branches))
	for i, b := range branches {
		position[b.Name] = i
	}
	changed := make(map[int]bool) // splits
	for _, w := range weights {
		i, known := position[w.branch]
		if !known {
			return resource.Invalid("unknown branch " + quoted(w.branch) + ", known branches: " + names(branches))
		}
		n, ok := wholeNumber(w.value)
		if !ok || n < 0 {
			return resource.Invalid("weight of branch " + quoted(w.branch) + ": expected a whole number from 0, got " + render(w.value))
		}
		split.SetWeight(conf, branches[i], n)
		branches[i].Weight = n
		changed[branches[i].Split] = true
	}
	for _, b := range branches {
		if b.Weight > 0 {
			delete(changed, b.Split)
		}
	}
	if len(changed) > 0 {
		return resource.Invalid("the weights of all branches would be 0, expected at least one above 0")
	}
	return nil
}

func wholeNumber(v any) (int64, bool) {
	if s, ok := v.(formText); ok {
		n, err := strconv.ParseInt(string(s), 10, 64)
		return n, err == nil && s[0] != '+'
	}
	return split.Integer(v)
}

func (a *API) weightsAnswer(result proxy.Result) ([]byte, error) {
	before, err := storedBranches(result.Old)
	if err != nil {
		return nil, err
	}
	after, err := storedBranches(&result.Item)
	if err != nil || len(before) != len(after) {
		return nil, errors.Join(err, errors.New("the stored branches are not those that were written"))
	}
	b := appendText([]byte(`{"key":`), a.Prefix+"/"+result.Item.Key)
	b = append(b, `,"weights":{`...)
	for i := range after {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, after[i].Name), `:{"old":`...)
		b = strconv.AppendInt(b, before[i].Weight, 10)
		b = strconv.AppendInt(append(b, `,"new":`...), after[i].Weight, 10)
		b = append(b, '}')
	}
	b = strconv.AppendUint(append(b, `},"revision":`...), result.Revision, 10)
	return append(b, "}\n"...), nil
}

func storedBranches(item *store.Item) ([]split.Branch, error) {
	if item == nil {
		return nil, errors.New("no document before the change")
	}
	doc, err := decodeStored(item)
	if err != nil {
		return nil, err
	}
	conf, _ := splitOf(doc)
	return split.Branches(conf), nil
}

func names(branches []split.Branch) string {
	if len(branches) == 0 {
		return "none"
	}
	list := make([]string, 0, min(len(branches), maxNamed+1))
	for i, b := range branches {
		if i == maxNamed {
			list = append(list, fmt.Sprintf("and %d more", len(branches)-i))
			break
		}
		list = append(list, b.Name)
	}
	return strings.Join(list, ", ")
}

func quoted(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}

// render shows a value that is no weight.
func render(v any) string {
	if s, ok := v.(formText); ok {
		return quoted(string(s))
	}
	text, err := resource.Encode(v)
	if err != nil {
		return "something else"
	}
	if len(text) > maxQuoted {
		return string(text[:maxQuoted]) + "..."
	}
	return string(text)
}
