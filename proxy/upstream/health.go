package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/health"
)

// HealthOptions are what the health checks of a hub work with.
type HealthOptions struct {
	// Meter gets the metrics; nil: nobody does.
	Meter *meter.Registry
	// Prefix stands before the keys of documents in the contract's metrics; default "/apisix".
	Prefix string
	// Logf gets a line for every server whose health changes; nil drops it.
	Logf func(format string, args ...any)
}

// CheckHealth makes the upstreams that are compiled from now on have the health checks of their documents; it is called once, before the
// first one. A hub without it probes nobody and judges nobody, as it is right for the trial of a configuration.
func (h *Hub) CheckHealth(o HealthOptions) {
	h.monitor = health.New(health.Options{Dial: h.dialProbe, Meter: o.Meter, Prefix: o.Prefix, Logf: o.Logf})
}

// check prepares the health checks of doc for the nodes of u. Nothing is probed before Publish.
func (u *Upstream) check(doc *resource.Upstream, security TLSOptions, prev *Upstream) {
	if u.hub.monitor == nil || doc.Checks == nil || doc.Checks.Active == nil { // passive checks alone could never bring a server back
		return
	}
	spec := health.Spec{Checks: doc.Checks, PassHost: doc.PassHost, UpstreamHost: doc.UpstreamHost}
	spec.TLS = func(serverName string, verify bool) *tls.Config {
		o := security
		o.ServerName, o.Verify = serverName, verify
		if _, err := netip.ParseAddr(serverName); err == nil && doc.ServiceName != "" {
			o.ServerName = serviceIdentity(doc.ServiceName)
		}
		return o.config()
	}
	for _, n := range u.nodes {
		spec.Nodes = append(spec.Nodes, health.Node{Host: n.Host, Port: int(n.Port), Weight: n.Weight})
	}
	var before *health.Checker
	if prev != nil {
		before = prev.checks
	}
	u.checks = u.hub.monitor.Prepare(spec, before)
	for i, n := range u.nodes {
		n.target = u.checks.Target(i)
		n.Judge(n.target.Health())
	}
}

// inherit makes the nodes of u share what is under way at those of prev, which may be nil, and leave alone who has asked for it.
func (u *Upstream) inherit(prev *Upstream) {
	if prev == nil {
		return
	}
	old := make(map[string]*node, len(prev.nodes))
	for _, n := range prev.nodes {
		old[n.ID()] = n
	}
	for _, n := range u.nodes {
		if before := old[n.ID()]; before != nil {
			n.Succeed(before.Endpoint)
			n.rest.succeed(&before.rest)
		}
	}
	u.resting.Store(u.anyRests())
}

// Publish starts the health checks, in the place of those of the version that u was compiled after, and keeps the addresses behind names
// fresh. key is that of the document that holds u ("upstreams/1"), under which operators find it. It is called when exchanges can reach
// u.
func (u *Upstream) Publish(key string) {
	if u.service != nil {
		u.service.publish(key)
		return
	}
	if u.checks != nil {
		u.hub.monitor.Start(u.checks, key)
	}
	if len(u.names) > 0 && u.watching.CompareAndSwap(false, true) {
		for _, n := range u.names {
			n.Watch()
		}
	}
}

// Withdraw undoes Publish: u is not in force any more, though exchanges may still use it. What another version has taken over goes on.
func (u *Upstream) Withdraw() {
	if u.service != nil {
		u.service.withdraw()
		return
	}
	if u.checks != nil {
		u.hub.monitor.Withdraw(u.checks)
	}
	if len(u.names) > 0 && u.watching.CompareAndSwap(true, false) {
		for _, n := range u.names {
			n.Unwatch()
		}
	}
}

// Health returns what is known about the upstreams in force that have health checks, in any order.
func (h *Hub) Health() []health.Checked {
	if h.monitor == nil {
		return nil
	}
	return h.monitor.Checked()
}

// dialProbe connects to a server as requests do, without a pool.
func (h *Hub) dialProbe(ctx context.Context, host string, port int) (net.Conn, error) {
	d := &dialer{place: h.placeOf(host), host: host, port: portText(port)}
	defer d.release()
	addrs, _, err := d.addresses(ctx)
	if err != nil {
		return nil, err
	}
	return d.dialOne(ctx, addrs)
}

// Passive checks count the final status, and every failure that was followed by another attempt (contract section 3.4). What the
// gateway or the client broke says nothing of the server.

// answered counts an answer. One that is still arriving is no success before it has come whole.
func (u *Upstream) answered(n *node, r *phase.Response) {
	if u.checks == nil {
		return
	}
	if s, ok := r.Stream.(*stream); ok && u.checks.Good(r.Status) {
		s.checks, s.status = u.checks, r.Status
		return
	}
	u.checks.Answered(n.target, r.Status)
}

// gaveUp counts the failure of the last attempt, which the client sees as the status that it stands for.
func (u *Upstream) gaveUp(n *node, f *fault.Fault) {
	if u.checks != nil && f.Side == fault.Upstream {
		u.checks.Answered(n.target, f.Status)
	}
}

func (u *Upstream) failed(n *node, f *fault.Fault) {
	if u.checks != nil && f.Side == fault.Upstream {
		u.checks.Failed(n.target, f.Status == fault.HeadTimeout.Status)
	}
}
