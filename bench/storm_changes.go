package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// change is one write to the Admin API and what must hold right after it.
type change struct {
	kind        string // weights, create, edit or delete
	method      string
	path        string
	contentType string
	body        string

	// A request to probe must be answered with this status from the moment the
	// write is acknowledged. Empty: there is nothing to see from outside.
	probe       string
	probeStatus int
}

const (
	stormRoutes = 20 // besides the one under load
	splitPath   = "/apisix/admin/routes/split"
)

// planner makes an endless series of valid changes: every other one shifts the
// weights of the loaded route, the rest create, edit and delete other routes.
// The same seed gives the same series.
type planner struct {
	rand     *rand.Rand
	upstream string // host:port
	exists   [stormRoutes]bool
	n        int
}

func newPlanner(seed uint64, upstream string) *planner {
	return &planner{rand: rand.New(rand.NewPCG(seed, 0)), upstream: upstream}
}

// split is the write that creates the route under load, in the form the
// published guides use.
func (p *planner) split() change {
	branch := func(name string) string {
		return fmt.Sprintf(`{"name":%q,"weight":50,"upstream":%s,"rewrite":{"uri":"/%s/chat/completions"}}`, name, p.upstreamJSON(), name)
	}
	return change{
		kind: "create", method: http.MethodPut, path: splitPath, contentType: "application/json",
		body: fmt.Sprintf(`{"uri":"/chat/completions","plugins":{"prometheus":{},"traffic-split":{"rules":[%s,%s]}}}`,
			branch("v1"), branch("v2")),
		probe: "/chat/completions", probeStatus: http.StatusOK,
	}
}

func (p *planner) upstreamJSON() string {
	return fmt.Sprintf(`{"type":"roundrobin","scheme":"http","nodes":{%q:1}}`, p.upstream)
}

func (p *planner) next() change {
	p.n++
	if p.n%2 == 1 {
		v1 := p.rand.IntN(101)
		return change{
			kind: "weights", method: http.MethodPatch, path: splitPath + "/weights",
			contentType: "application/x-www-form-urlencoded", body: fmt.Sprintf("v1=%d&v2=%d", v1, 100-v1),
		}
	}
	i := p.rand.IntN(stormRoutes)
	c := change{
		kind: "create", method: http.MethodPut, path: fmt.Sprintf("/apisix/admin/routes/storm-%d", i),
		probe: fmt.Sprintf("/storm/%d", i), probeStatus: http.StatusOK,
	}
	switch {
	case p.exists[i] && p.rand.IntN(2) == 0:
		c.kind, c.method, c.probeStatus = "delete", http.MethodDelete, http.StatusNotFound
		p.exists[i] = false
		return c
	case p.exists[i]:
		c.kind = "edit"
	}
	p.exists[i] = true
	c.contentType = "application/json"
	c.body = fmt.Sprintf(`{"uri":%q,"desc":"change %d","upstream":%s,"plugins":{"proxy-rewrite":{"uri":"/v%d/storm"}}}`,
		c.probe, p.n, p.upstreamJSON(), 1+p.n/2%2)
	return c
}
