package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
)

// Breakers is how operators see what breakers have found out, and how they shut a route, a branch or an endpoint themselves.
type Breakers struct {
	a     *Applier
	gates *balancer.Gates
	audit func(line string)
}

// NewBreakers returns the breakers of gates, which the documents that a has put into force use. audit gets a line for every quarantine that
// is imposed or lifted.
func NewBreakers(a *Applier, gates *balancer.Gates, audit func(line string)) *Breakers {
	return &Breakers{a, gates, audit}
}

// BreakerTarget is a balancer.Target in the form in which the control API shows it.
type BreakerTarget struct {
	Scope string `json:"scope"` // route, branch or endpoint
	// In is the key of the document whose route or split it is, "" for an endpoint and for a branch wherever it is.
	In   string `json:"in,omitempty"`
	Name string `json:"name,omitempty"` // of the branch, or "host:port"
}

// BreakerView is one target in that form.
type BreakerView struct {
	BreakerTarget
	State string `json:"state"` // closed, open, half-open or recovering
	// Share is what it gets of the requests that its weight gives it, 0 to 1.
	Share float64 `json:"share"`
	// Until is when it stops being open, and lets probes pass.
	Until *time.Time `json:"until,omitempty"`
	// Since and Why are of the last change of the state.
	Since      *time.Time      `json:"since,omitempty"`
	Why        string          `json:"why,omitempty"`
	Quarantine *QuarantineView `json:"quarantine,omitempty"`
}

// QuarantineView is a quarantine in that form.
type QuarantineView struct {
	ID string `json:"id"`
	BreakerTarget
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	// Replaces is the quarantine of the same target that was in force before; only the answer to the one that imposes has it.
	Replaces *QuarantineView `json:"replaces,omitempty"`
}

func targetView(t balancer.Target) BreakerTarget {
	return BreakerTarget{t.Scope.String(), t.Owner, t.Name}
}

func quarantineView(q *balancer.Quarantine) *QuarantineView {
	return &QuarantineView{ID: q.ID, BreakerTarget: targetView(q.Target), Reason: q.Reason, Since: q.Since.UTC(), Until: q.Until().UTC()}
}

// List returns the targets that a breaker watches, that are not closed, or that are in quarantine.
func (b *Breakers) List() []BreakerView {
	list := []BreakerView{}
	for _, v := range b.gates.Views() {
		one := BreakerView{BreakerTarget: targetView(v.Target), State: v.State.String(), Share: v.Share}
		if !v.Until.IsZero() {
			until := v.Until.UTC()
			one.Until = &until
		}
		if v.Last != nil {
			since := time.Unix(0, v.Last.At).UTC()
			one.Since, one.Why = &since, v.Last.Why.String()
		}
		if v.Quarantine != nil {
			one.Quarantine = quarantineView(v.Quarantine)
		}
		list = append(list, one)
	}
	return list
}

// Quarantines returns those in force, in the order in which they were imposed.
func (b *Breakers) Quarantines() []QuarantineView {
	list := []QuarantineView{}
	for _, q := range b.gates.Quarantines() {
		list = append(list, *quarantineView(q))
	}
	return list
}

const (
	// maxQuarantine bounds the ttl of a quarantine: nobody remembers for longer why a target gets nothing.
	maxQuarantine = 24 * time.Hour
	// maxReason bounds its reason in bytes.
	maxReason = 256
	// quarantinePatience bounds the wait for the config path.
	quarantinePatience = 10 * time.Second
)

// order is what Impose is asked for.
type order struct {
	route, branch, endpoint, reason string
	ttl                             time.Duration
}

// Impose shuts what body names, from now on and for every request that begins later: a JSON object of route (id), branch (name; with route: in
// the split that the route uses, else wherever it is) or endpoint ("host:port"), ttl (seconds) and reason. by says who asks, for
// the audit. A *resource.Error names the member that is wrong, with status 400, or the target that nothing in force knows, with status 404.
func (b *Breakers) Impose(body []byte, by string) (*QuarantineView, error) {
	o, err := readOrder(body)
	if err != nil {
		return nil, err
	}
	var q *balancer.Quarantine
	ctx, cancel := context.WithTimeout(context.Background(), quarantinePatience)
	defer cancel()
	// On the config goroutine no change of the documents can come in between.
	if e := b.a.submit(ctx, func() { q, err = b.impose(o) }); e != nil {
		return nil, &resource.Error{Status: 503, Msg: e.Error()}
	}
	if err != nil {
		return nil, err
	}
	line, view := fmt.Sprintf("peer=%s quarantine %s: %v for %v: %s", by, q.ID, q.Target, q.TTL, q.Reason), quarantineView(q)
	if before := q.Replaced; before != nil {
		line += fmt.Sprintf("; it replaces quarantine %s, until %s: %s", before.ID, before.Until().UTC().Format(time.RFC3339), before.Reason)
		view.Replaces = quarantineView(before)
	}
	b.audit(line)
	return view, nil
}

func (b *Breakers) impose(o *order) (*balancer.Quarantine, error) {
	t, err := b.target(o)
	if err != nil {
		return nil, err
	}
	q, err := b.gates.Impose(t, o.ttl, o.reason)
	if err != nil {
		return nil, &resource.Error{Status: 409, Msg: err.Error()}
	}
	return q, nil
}

// target finds what o means. A route gets its gate, which it need not have had before.
func (b *Breakers) target(o *order) (t balancer.Target, err error) {
	unknown := func(format string, args ...any) error {
		return &resource.Error{Status: 404, Msg: fmt.Sprintf(format, args...)}
	}
	key := "routes/" + o.route
	switch {
	case o.endpoint != "":
		t = balancer.Target{Scope: balancer.OfEndpoint, Name: o.endpoint}
		if !b.gates.Has(t) {
			err = unknown("endpoint: no upstream in force has %s", quoted(o.endpoint))
		}
	case o.route != "" && o.branch == "":
		t = balancer.Target{Scope: balancer.OfRoute, Owner: key}
		if !b.a.compiler.GuardRoute(key) {
			err = unknown("route: there is no route %s in force", quoted(o.route))
		}
	case o.route != "":
		for _, owner := range b.holders(key) {
			t = balancer.Target{Scope: balancer.OfBranch, Owner: owner, Name: o.branch}
			if b.gates.Has(t) {
				return t, nil
			}
		}
		err = unknown("branch: route %s has no split with a branch %s", quoted(o.route), quoted(o.branch))
	default:
		t = balancer.Target{Scope: balancer.OfBranch, Name: o.branch}
		if !b.gates.Has(t) {
			err = unknown("branch: no split in force has a branch %s", quoted(o.branch))
		}
	}
	return t, err
}

// holders are the documents that the plugins of the route key may come from, the one that wins first.
func (b *Breakers) holders(key string) []string {
	list := []string{key}
	doc, err := resource.DecodeRoute(b.a.inForce(key))
	if err != nil {
		return list
	}
	if doc.PluginConfigID != "" {
		list = append(list, "plugin_configs/"+doc.PluginConfigID)
	}
	if doc.ServiceID != "" {
		list = append(list, "services/"+doc.ServiceID)
	}
	return list
}

// Lift ends the quarantine id before its time. by says who asks. A *resource.Error of status 404 says that there is none.
func (b *Breakers) Lift(id, by string) (*QuarantineView, error) {
	q := b.gates.Lift(id)
	if q == nil {
		return nil, &resource.Error{Status: 404, Msg: "there is no quarantine " + quoted(id) + " in force"}
	}
	b.audit(fmt.Sprintf("peer=%s quarantine %s of %v is lifted", by, q.ID, q.Target))
	return quarantineView(q), nil
}

// readOrder reads body strictly: what nobody would look at is refused. The error names all mistakes.
func readOrder(body []byte) (*order, error) {
	doc, err := schema.DecodeJSON(body)
	if err != nil {
		return nil, resource.Invalid(err.Error())
	}
	members, ok := doc.(map[string]any)
	if !ok {
		return nil, resource.Invalid(`expected an object like {"endpoint":"10.0.0.1:80","ttl":600,"reason":"maintenance"}`)
	}
	o := &order{}
	var wrong []string
	texts := map[string]*string{"route": &o.route, "branch": &o.branch, "endpoint": &o.endpoint, "reason": &o.reason}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		at := texts[name]
		switch {
		case name == "ttl":
			seconds, ok := split.Integer(members[name])
			if !ok || seconds < 1 || seconds > int64(maxQuarantine/time.Second) {
				wrong = append(wrong, fmt.Sprintf("ttl: expected whole seconds, 1 to %d", maxQuarantine/time.Second))
			}
			o.ttl = time.Duration(seconds) * time.Second
		case at == nil:
			wrong = append(wrong, "unknown member "+quoted(name)+": a quarantine has route, branch, endpoint, ttl and reason")
		default:
			if *at, ok = members[name].(string); !ok || *at == "" {
				wrong = append(wrong, name+": expected a text")
			}
		}
	}
	has := func(name string) bool { _, ok := members[name]; return ok }
	if wrong = append(wrong, o.lacks(has)...); len(wrong) > 0 {
		return nil, resource.Invalid(strings.Join(wrong, "; "))
	}
	return o, nil
}

// lacks says what is wrong with o as a whole; has tells whether a member is there, which may be a wrong one.
func (o *order) lacks(has func(name string) bool) (wrong []string) {
	if !has("ttl") {
		wrong = append(wrong, "ttl: is required")
	}
	switch {
	case !has("reason"):
		wrong = append(wrong, "reason: is required")
	case len(o.reason) > maxReason || strings.ContainsFunc(o.reason, unicode.IsControl):
		wrong = append(wrong, "reason: expected one line of at most "+strconv.Itoa(maxReason)+" bytes")
	}
	switch route, branch, endpoint := has("route"), has("branch"), has("endpoint"); {
	case endpoint && (route || branch):
		wrong = append(wrong, "endpoint: stands alone; it is shut in every route and branch")
	case !route && !branch && !endpoint:
		wrong = append(wrong, "expected one of route, branch and endpoint")
	}
	return wrong
}
