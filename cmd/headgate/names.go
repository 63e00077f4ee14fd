package main

import (
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
