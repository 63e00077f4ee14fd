// Package plugins is the list of all plugins, and nothing but the list.
package plugins

import (
	apibreaker "headgate/plugins/api-breaker"
	attachconsumerlabel "headgate/plugins/attach-consumer-label"
	basicauth "headgate/plugins/basic-auth"
	"headgate/plugins/brotli"
	clientcontrol "headgate/plugins/client-control"
	consumerrestriction "headgate/plugins/consumer-restriction"
	"headgate/plugins/cors"
	"headgate/plugins/csrf"
	errorpage "headgate/plugins/error-page"
	faultinjection "headgate/plugins/fault-injection"
	forwardauth "headgate/plugins/forward-auth"
	"headgate/plugins/gzip"
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
	proxybuffering "headgate/plugins/proxy-buffering"
	proxycache "headgate/plugins/proxy-cache"
	proxycontrol "headgate/plugins/proxy-control"
	proxymirror "headgate/plugins/proxy-mirror"
	proxyrewrite "headgate/plugins/proxy-rewrite"
	publicapi "headgate/plugins/public-api"
	realip "headgate/plugins/real-ip"
	"headgate/plugins/redirect"
	refererrestriction "headgate/plugins/referer-restriction"
	requestid "headgate/plugins/request-id"
	requestvalidation "headgate/plugins/request-validation"
	responserewrite "headgate/plugins/response-rewrite"
	trafficlabel "headgate/plugins/traffic-label"
	trafficsplit "headgate/plugins/traffic-split"
	uarestriction "headgate/plugins/ua-restriction"
	uriblocker "headgate/plugins/uri-blocker"
	"headgate/plugins/workflow"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis"
)

// Options are what some plugins need of the process. The zero value lets every configuration be checked and none of them work.
type Options struct {
	// Breaker is how api-breaker answers.
	Breaker apibreaker.Options
	// Mirror is what proxy-mirror sends its copies with.
	Mirror proxymirror.Options
	// Cache has the zones of proxy-cache; nil stands for those that there are by default.
	Cache *proxycache.Cache
	// Redis is told how the servers do in which limits count.
	Redis *redis.Watch
	// PublicAPI are the handlers that public-api can expose, by path.
	PublicAPI map[string]publicapi.Handler
}

// List returns every plugin, in the order of execution: by priority, highest first. Call it once for what runs: a kind of limits keeps
// the counters of all its instances.
func List(o Options) []phase.Kind {
	return []phase.Kind{
		realip.Kind(),               // 23000
		clientcontrol.Kind(),        // 22000
		proxybuffering.Kind(),       // 21991
		proxycontrol.Kind(),         // 21990
		requestid.Kind(),            // 12015
		faultinjection.Kind(),       // 11000
		mocking.Kind(),              // 10900
		cors.Kind(),                 // 4000
		iprestriction.Kind(),        // 3000
		uarestriction.Kind(),        // 2999
		refererrestriction.Kind(),   // 2990
		csrf.Kind(),                 // 2980
		uriblocker.Kind(),           // 2900
		requestvalidation.Kind(),    // 2800
		multiauth.Kind(),            // 2600
		hmacauth.Kind(),             // 2530
		basicauth.Kind(),            // 2520
		jwtauth.Kind(),              // 2510
		keyauth.Kind(),              // 2500
		consumerrestriction.Kind(),  // 2400
		attachconsumerlabel.Kind(),  // 2399
		forwardauth.Kind(),          // 2002
		proxycache.Kind(o.Cache),    // 1085
		proxymirror.Kind(o.Mirror),  // 1010
		proxyrewrite.Kind(),         // 1008
		workflow.Kind(),             // 1006
		apibreaker.Kind(o.Breaker),  // 1005
		limitconn.Kind(o.Redis),     // 1003
		limitcount.Kind(o.Redis),    // 1002
		limitreq.Kind(o.Redis),      // 1001
		brotli.Kind(),               // 996
		gzip.Kind(),                 // 995
		trafficlabel.Kind(),         // 967
		trafficsplit.Kind(),         // 966
		redirect.Kind(),             // 900
		responserewrite.Kind(),      // 899
		publicapi.Kind(o.PublicAPI), // 501
		prometheus.Kind(),           // 500
		errorpage.Kind(),            // 450
	}
}
