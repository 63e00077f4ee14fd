package main

import (
	"net/netip"

	"headgate/conf"
)

// serverHeader: in the compatible mode the gateway shows itself as APISIX, as long as the operator has not chosen a name.
func serverHeader(c *conf.Config) string {
	if c.Compat.On(conf.APISIXServerHeader) && c.Gateway.ServerHeader == conf.Default().Gateway.ServerHeader {
		return "APISIX/" + c.Compat.APIVersion
	}
	return c.Gateway.ServerHeader
}

// realIPFrom is APISIX's default of real_ip_from, where it is wanted.
func realIPFrom(c *conf.Config) []netip.Prefix {
	if c.Compat.On(conf.RealIPFromLoopback) {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	}
	return nil
}
