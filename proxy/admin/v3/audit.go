package v3

import (
	"fmt"

	"headgate/conf/resource"
	"headgate/proxy"
)

// audit writes down who changed what: the key, the names of the members that differ, the key's name, the peer, and the revisions of the
// document before and after, 0 for none. Values stay out: they may be secrets.
func (a *API) audit(q *request, result proxy.Result) {
	done, before, after := "changed", []byte(nil), result.Item.Value
	var revision uint64
	if result.Old != nil {
		before, revision = result.Old.Value, result.Old.ModRevision
	}
	switch {
	case after == nil:
		done = "deleted"
	case result.Old == nil:
		done = "created"
	}
	changes := resource.Diff(before, after)
	if changes == "" {
		changes = "in nothing"
	}
	a.Audit(fmt.Sprintf("key=%q peer=%s %s %s: %s %s, revision %d -> %d",
		q.who, q.peer, q.verb, result.Item.Key, done, changes, revision, result.Item.ModRevision))
}

func (a *API) auditRefusal(q *request, status int) {
	a.Logf("admin audit: key=%q peer=%s %s %q: refused with status %d", q.who, q.peer, q.verb, q.path(), status)
}
