package main

import (
	"bytes"

	"headgate/conf"
	"headgate/plugins"
	proxycache "headgate/plugins/proxy-cache"
	proxymirror "headgate/plugins/proxy-mirror"
	publicapi "headgate/plugins/public-api"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis"
)

// pluginOptions is what the plugins of a running gateway get of the process.
func (p *process) pluginOptions(c *conf.Config) plugins.Options {
	const dropped = "headgate_mirror_dropped_total"
	lost := p.meter.Counter(dropped)
	p.meter.Describe(dropped, "Copies of requests that proxy-mirror did not send, or that did not reach their server.")
	p.cache = newCache(c, proxycache.Options{Background: p.cacheDisk.Try, Meter: p.meter, Logf: p.logf})
	o := plugins.Options{
		Mirror: proxymirror.Options{Background: p.mirrors.Try, Dropped: func() { lost.Inc() }},
		Cache:  p.cache, Redis: redis.NewWatch(p.meter, p.logf),
	}
	if !c.Metrics.Enabled { // else they have a listener of their own (contract section 5)
		o.PublicAPI = map[string]publicapi.Handler{c.Metrics.Path: p.answerMetrics}
	}
	return o
}

// checkOptions is what plugins need to say what is wrong with configurations under c.
func checkOptions(c *conf.Config) plugins.Options {
	return plugins.Options{Cache: newCache(c, proxycache.Options{})}
}

// newCache makes the zones of c, which are at rest until they are started.
func newCache(c *conf.Config, o proxycache.Options) *proxycache.Cache {
	o.TTL = c.ProxyCache.CacheTTL.Std()
	for _, z := range c.ProxyCache.Zones {
		o.Zones = append(o.Zones, proxycache.Zone{
			Name: z.Name, Memory: int64(z.MemorySize), Path: z.DiskPath, Disk: int64(z.DiskSize), Levels: z.Levels(),
		})
	}
	return proxycache.New(o)
}

// answerMetrics is the metrics as a route with public-api shows them.
func (p *process) answerMetrics(x *phase.Exchange) {
	if string(x.Request.Method) != "GET" {
		x.AnswerPage(404)
		return
	}
	var text bytes.Buffer
	if err := p.meter.Write(&text); err != nil {
		p.logf("metrics: %v", err)
		x.AnswerPage(500)
		return
	}
	x.Answer(200, phase.TypeText, text.Bytes())
}
