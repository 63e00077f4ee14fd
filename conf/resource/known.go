package resource

import "slices"

// Known is a plugin of the contract (section 4.1).
type Known struct {
	Name string
	// Priority orders plugins inside a phase, highest first.
	Priority int
	// Default says whether the contract's gateway loads the plugin without being told to.
	Default bool
}

// KnownPlugin returns the priority of a plugin that the contract lists, be it one that this gateway has or not.
func KnownPlugin(name string) (priority int, ok bool) {
	for i := range knownPlugins {
		if knownPlugins[i].Name == name {
			return knownPlugins[i].Priority, true
		}
	}
	return 0, false
}

// KnownPlugins lists the plugins of the contract, highest priority first. The caller owns the slice.
func KnownPlugins() []Known { return slices.Clone(knownPlugins[:]) }

// knownPlugins is never written. The contract's internal plugin "ai" is left out: no configuration can name it.
var knownPlugins = [...]Known{
	{"real-ip", 23000, true},
	{"exit-transformer", 22950, false},
	{"client-control", 22000, true},
	{"proxy-buffering", 21991, true},
	{"proxy-control", 21990, true},
	{"request-id", 12015, true},
	{"zipkin", 12011, true},
	{"skywalking", 12010, false},
	{"opentelemetry", 12009, false},
	{"ext-plugin-pre-req", 12000, true},
	{"fault-injection", 11000, true},
	{"mocking", 10900, true},
	{"serverless-pre-function", 10000, true},
	{"batch-requests", 4010, false},
	{"cors", 4000, true},
	{"ip-restriction", 3000, true},
	{"ua-restriction", 2999, true},
	{"referer-restriction", 2990, true},
	{"csrf", 2980, true},
	{"uri-blocker", 2900, true},
	{"request-validation", 2800, true},
	{"chaitin-waf", 2700, true},
	{"multi-auth", 2600, true},
	{"openid-connect", 2599, true},
	{"saml-auth", 2598, true},
	{"cas-auth", 2597, true},
	{"authz-casbin", 2560, true},
	{"authz-casdoor", 2559, true},
	{"wolf-rbac", 2555, true},
	{"ldap-auth-advanced", 2541, true},
	{"ldap-auth", 2540, true},
	{"hmac-auth", 2530, true},
	{"basic-auth", 2520, true},
	{"jwt-auth", 2510, true},
	{"jwe-decrypt", 2509, true},
	{"key-auth", 2500, true},
	{"dingtalk-auth", 2430, true},
	{"feishu-auth", 2420, true},
	{"acl", 2410, true},
	{"consumer-restriction", 2400, true},
	{"attach-consumer-label", 2399, true},
	{"forward-auth", 2002, true},
	{"opa", 2001, true},
	{"authz-keycloak", 2000, true},
	{"data-mask", 1500, true},
	{"error-log-logger", 1091, false},
	{"proxy-cache", 1085, true},
	{"body-transformer", 1080, true},
	{"ai-request-rewrite", 1073, true},
	{"ai-prompt-guard", 1072, true},
	{"ai-prompt-template", 1071, true},
	{"ai-prompt-decorator", 1070, true},
	{"ai-rag", 1060, true},
	{"ai-proxy-multi", 1041, true},
	{"ai-proxy", 1040, true},
	{"ai-cache", 1035, true},
	{"ai-aws-content-moderation", 1031, true},
	{"ai-rate-limiting", 1030, true},
	{"ai-aliyun-content-moderation", 1029, true},
	{"ai-lakera-guard", 1028, true},
	{"proxy-mirror", 1010, true},
	{"graphql-proxy-cache", 1009, true},
	{"proxy-rewrite", 1008, true},
	{"workflow", 1006, true},
	{"api-breaker", 1005, true},
	{"graphql-limit-count", 1004, true},
	{"limit-conn", 1003, true},
	{"limit-count", 1002, true},
	{"limit-req", 1001, true},
	{"node-status", 1000, false},
	{"brotli", 996, false},
	{"gzip", 995, true},
	{"server-info", 990, false},
	{"traffic-label", 967, true},
	{"traffic-split", 966, true},
	{"redirect", 900, true},
	{"response-rewrite", 899, true},
	{"oas-validator", 512, true},
	{"mcp-bridge", 510, true},
	{"degraphql", 509, true},
	{"kafka-proxy", 508, true},
	{"dubbo-proxy", 507, false},
	{"grpc-transcode", 506, true},
	{"grpc-web", 505, true},
	{"http-dubbo", 504, true},
	{"public-api", 501, true},
	{"prometheus", 500, true},
	{"datadog", 495, true},
	{"error-page", 450, false},
	{"lago", 415, true},
	{"loki-logger", 414, true},
	{"elasticsearch-logger", 413, true},
	{"echo", 412, true},
	{"loggly", 411, true},
	{"http-logger", 410, true},
	{"splunk-hec-logging", 409, true},
	{"skywalking-logger", 408, true},
	{"google-cloud-logging", 407, true},
	{"sls-logger", 406, true},
	{"tcp-logger", 405, true},
	{"kafka-logger", 403, true},
	{"rocketmq-logger", 402, true},
	{"syslog", 401, true},
	{"udp-logger", 400, true},
	{"file-logger", 399, true},
	{"clickhouse-logger", 398, true},
	{"tencent-cloud-cls", 397, true},
	{"inspect", 200, true},
	{"log-rotate", 100, false},
	{"example-plugin", 0, true},
	{"gm", -43, false},
	{"ocsp-stapling", -44, false},
	{"aws-lambda", -1899, true},
	{"azure-functions", -1900, true},
	{"openwhisk", -1901, true},
	{"openfunction", -1902, true},
	{"serverless-post-function", -2000, true},
	{"ext-plugin-post-req", -3000, true},
	{"ext-plugin-post-resp", -4000, true},
}
