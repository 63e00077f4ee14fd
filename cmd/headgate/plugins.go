package main

import (
	"bytes"

	"headgate/conf"
	"headgate/plugins"
	apibreaker "headgate/plugins/api-breaker"
	proxymirror "headgate/plugins/proxy-mirror"
	publicapi "headgate/plugins/public-api"
	"headgate/proxy/phase"
)

// pluginOptions is what the plugins of a running gateway get of the process.
func (p *process) pluginOptions(c *conf.Config) plugins.Options {
	const dropped = "headgate_mirror_dropped_total"
	lost := p.meter.Counter(dropped)
	p.meter.Describe(dropped, "Copies of requests that proxy-mirror did not send, or that did not reach their server.")
	o := plugins.Options{Breaker: apibreaker.Options{RetryAfter: !c.Compat.On(conf.BreakerNoRetryAfter)}, Mirror: proxymirror.Options{Background: p.mirrors.Try, Dropped: func() { lost.Inc() }}}
	if !c.Metrics.Enabled { // else they have a listener of their own (contract section 5)
		o.PublicAPI = map[string]publicapi.Handler{c.Metrics.Path: p.answerMetrics}
	}
	return o
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
