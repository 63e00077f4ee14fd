// Package plugins is the list of all plugins, and nothing but the list.
package plugins

import (
	apibreaker "headgate/plugins/api-breaker"
	basicauth "headgate/plugins/basic-auth"
	clientcontrol "headgate/plugins/client-control"
	consumerrestriction "headgate/plugins/consumer-restriction"
	"headgate/plugins/cors"
	"headgate/plugins/csrf"
	faultinjection "headgate/plugins/fault-injection"
	hmacauth "headgate/plugins/hmac-auth"
	iprestriction "headgate/plugins/ip-restriction"
	jwtauth "headgate/plugins/jwt-auth"
	keyauth "headgate/plugins/key-auth"
	limitconn "headgate/plugins/limit-conn"
	limitcount "headgate/plugins/limit-count"
	limitreq "headgate/plugins/limit-req"
	"headgate/plugins/mocking"
	multiauth "headgate/plugins/multi-auth"
	"headgate/plugins/prometheus"
	proxyrewrite "headgate/plugins/proxy-rewrite"
	realip "headgate/plugins/real-ip"
	"headgate/plugins/redirect"
	refererrestriction "headgate/plugins/referer-restriction"
	requestid "headgate/plugins/request-id"
	responserewrite "headgate/plugins/response-rewrite"
	trafficsplit "headgate/plugins/traffic-split"
	uarestriction "headgate/plugins/ua-restriction"
	uriblocker "headgate/plugins/uri-blocker"
	"headgate/proxy/phase"
)

// List returns every plugin, in the order of execution: by priority, highest first. Call it once for what runs: a kind of limits keeps
// the counters of all its instances.
func List() []phase.Kind {
	return []phase.Kind{
		realip.Kind(),              // 23000
		clientcontrol.Kind(),       // 22000
		requestid.Kind(),           // 12015
		faultinjection.Kind(),      // 11000
		mocking.Kind(),             // 10900
		cors.Kind(),                // 4000
		iprestriction.Kind(),       // 3000
		uarestriction.Kind(),       // 2999
		refererrestriction.Kind(),  // 2990
		csrf.Kind(),                // 2980
		uriblocker.Kind(),          // 2900
		multiauth.Kind(),           // 2600
		hmacauth.Kind(),            // 2530
		basicauth.Kind(),           // 2520
		jwtauth.Kind(),             // 2510
		keyauth.Kind(),             // 2500
		consumerrestriction.Kind(), // 2400
		proxyrewrite.Kind(),        // 1008
		apibreaker.Kind(),          // 1005
		limitconn.Kind(),           // 1003
		limitcount.Kind(),          // 1002
		limitreq.Kind(),            // 1001
		trafficsplit.Kind(),        // 966
		redirect.Kind(),            // 900
		responserewrite.Kind(),     // 899
		prometheus.Kind(),          // 500
	}
}
