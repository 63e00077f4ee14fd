package main

import (
	"time"

	"headgate/conf"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/upstream"
	"headgate/proxy/upstream/dns"
)

// newHub makes the hub of upstreams, with the resolvers of c. Without logf it is for a trial, which asks no name server.
func newHub(c *conf.Config, m *meter.Registry, failed func(string, *fault.Fault, error), logf func(string, ...any)) (*upstream.Hub, error) {
	u := c.Upstream
	servers, err := nameServers(u.DNSServers)
	if err != nil {
		return nil, err
	}
	discovery, err := nameServers(c.Discovery.DNS.Servers)
	if err != nil {
		return nil, err
	}
	allow, err := conf.ParsePrefixes(u.AllowAddresses)
	if err != nil {
		return nil, err
	}
	o := dns.Options{
		Source: dns.System(dns.SystemOptions{Servers: servers, Refresh: u.DNSRefresh.Std()}),
		MinTTL: u.DNSMinTTL.Std(), MaxTTL: u.DNSMaxTTL.Std(), Stale: u.DNSStale.Std(), Meter: m, Name: "nodes", Logf: logf, OnDemand: logf == nil,
	}
	hub := upstream.NewHub(dns.New(o), failed)
	hub.Restrict(allow, c.Compat.On(conf.RefusedNodes))
	d := upstream.DiscoveryOptions{Store: c.Compat.On(conf.UndiscoveredUpstreams), Logf: logf}
	if len(discovery) > 0 {
		o.Source, o.Name, o.Changed = dns.Services(&dns.Client{Servers: discovery}), "discovery", hub.Discovered
		d.DNS = dns.New(o)
	}
	hub.Discover(d)
	return hub, nil
}

// nameServers returns the addresses of list with their ports.
func nameServers(list []string) ([]string, error) {
	out := make([]string, len(list))
	for i, s := range list {
		at, err := conf.ParseNameServer(s)
		if err != nil {
			return nil, err
		}
		out[i] = at.String()
	}
	return out, nil
}

// servicesDump is what the control API shows of a discovery: the settings, and the nodes of each service that is in use, as the contract's
// dumps have them; and besides until when they hold, and why others are not known.
type servicesDump struct {
	Config   any                      `json:"config"`
	Services map[string][]serviceNode `json:"services"`
	Until    map[string]time.Time     `json:"until"`
	Errors   map[string]string        `json:"errors"`
}

type serviceNode struct {
	Host     string `json:"host"`
	Port     uint16 `json:"port,omitempty"` // none in an answer that has addresses only
	Weight   uint64 `json:"weight"`
	Priority int    `json:"priority"`
}

// discoveries are the dumps of what c configures.
func (p *process) discoveries(c *conf.Config) map[string]func() any {
	if len(c.Discovery.DNS.Servers) == 0 {
		return nil
	}
	settings := map[string]any{"servers": c.Discovery.DNS.Servers}
	return map[string]func() any{"dns": func() any { return dumpServices(settings, p.hub.Services()) }}
}

func dumpServices(settings any, known []dns.Known) *servicesDump {
	d := &servicesDump{settings, map[string][]serviceNode{}, map[string]time.Time{}, map[string]string{}}
	for _, k := range known {
		nodes := []serviceNode{}
		switch a := k.Answer; {
		case a == nil:
			d.Errors[k.Name] = "nothing is known yet"
		case a.Err != nil:
			d.Errors[k.Name] = a.Err.Error()
		default:
			for _, r := range a.Records {
				nodes = append(nodes, serviceNode{r.Addr.String(), r.Port, r.Weight, r.Priority})
			}
			d.Until[k.Name] = k.Fresh.UTC()
		}
		d.Services[k.Name] = nodes
	}
	return d
}
