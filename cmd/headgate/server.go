package main

import (
	"fmt"
	"os"

	"headgate/conf"
	"headgate/proxy"
	"headgate/proxy/overload"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
	"headgate/proxy/vars"
)

// newServer makes the clients' side.
func (p *process) newServer(c *conf.Config, live *snapshot.Live) (*proxy.Server, error) {
	format, err := vars.Compile(c.AccessLog.Format)
	if err != nil {
		return nil, fmt.Errorf("access_log.format: %w", err)
	}
	trusted, err := conf.ParsePrefixes(c.Gateway.TrustedAddresses)
	if err != nil {
		return nil, fmt.Errorf("gateway.trusted_addresses: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	g := c.Gateway
	memory := overload.Limit(int64(g.MemoryLimit))
	return proxy.NewServer(live, proxy.ServerOptions{
		Settings: phase.Settings{
			Version: version, APIVersion: c.Compat.APIVersion, Hostname: host, AlwaysUpstreamStatus: g.ShowUpstreamStatus,
			MaxHeldBody: g.MaxHeldBody.Int(), MaxPostArgs: g.MaxPostArgsSize.Int(), HTTPSPort: httpsPort(c),
		},
		MaxHead: g.MaxHeaderSize.Int(), MaxLines: g.MaxHeaders, MaxBody: int64(g.MaxBodySize), BodyBuffer: g.BodyBuffer.Int(),
		HeadTimeout: g.HeaderTimeout.Std(), BodyTimeout: g.BodyTimeout.Std(), IdleTimeout: g.IdleTimeout.Std(),
		WriteTimeout: g.WriteTimeout.Std(), MaxConnections: g.MaxConnections, MaxPerClient: g.MaxPerClient,
		Memory: overload.New(memory, p.measure(memory)),
		TLS:    listenerOptions(c), Server: serverHeader(c), Trusted: trusted, TrimSlash: g.DeleteURITailSlash,
		KeepSlash: g.MatchURIEncodedSlash, Servlet: g.NormalizeURILikeServlet, RawTarget: c.Compat.On(conf.UpstreamRawPath), Charset: c.Compat.On(conf.ResponseCharset),
		RequestTrailers: g.RequestTrailers, ResponseTrailers: g.ResponseTrailers,
		PassNamed: c.Compat.On(conf.ConnectionNamedHeaders), PassHops: c.Compat.On(conf.HopHeaders),
		NginxHeadLimits: c.Compat.On(conf.NginxHeadLimits), ShortRest: c.Compat.On(conf.LongRestUnmatched), RealIPFrom: realIPFrom(c),
		KeepForwardedFor: c.Compat.On(conf.ForwardedForFromAnyone) && len(trusted) == 0,
		UpgradeLifetime:  c.Upstream.UpgradeLifetime.Std(),
		Lenient:          lenient(c),
		Log:              p.log, Format: format, ShowSecrets: !c.AccessLog.MaskSecrets, Meter: p.meter, Errorf: p.logf,
	}), nil
}

// measure tells the runtime of the limit, and what is used of it; nil without one.
func (p *process) measure(limit int64) overload.Source {
	if limit == 0 {
		return nil
	}
	p.memory = overload.NewProcess(limit)
	return p.memory
}

// lenient is what the operator has switched off of gateway.strict.
func lenient(c *conf.Config) proxy.Lenient {
	s := &c.Gateway.Strict
	return proxy.Lenient{
		BareLF: !s.BareLF, FoldedLines: !s.FoldedLines, ControlBytes: !s.ControlBytes, RepeatedLength: !s.RepeatedLength,
		LineSpaces: !s.LineSpaces, Fragments: !s.Fragments, Methods: !s.Methods, Trace: !s.Trace,
		Expectations: !s.Expectations, Underscores: !c.DropsUnderscores(),
	}
}
