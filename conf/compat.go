package conf

// Toggle is a setting that is on, off, or as another setting says.
type Toggle uint8

// Values of Toggle. The zero value is what a file that does not mention the setting means.
const (
	ToggleUnset Toggle = iota
	ToggleOff
	ToggleOn
)

func (t Toggle) String() string {
	switch t {
	case ToggleOff:
		return "false"
	case ToggleOn:
		return "true"
	}
	return "(as mode says)"
}

// Compat decides between APISIX's behaviour and the safer one where they differ. Each Toggle is one behaviour of APISIX; On answers
// whether it is in force.
type Compat struct {
	Mode       string `toml:"mode"`
	APIVersion string `toml:"api_version"` // Server header of the Admin API: APISIX/<api_version>

	UpstreamRawPath        Toggle `toml:"upstream_raw_path"`
	ForwardedForFromAnyone Toggle `toml:"forwarded_for_from_anyone"`
	UnverifiedUpstreamTLS  Toggle `toml:"unverified_upstream_tls"`
	SSLKeyMismatch         Toggle `toml:"ssl_key_mismatch"`
	HTMLErrorPages         Toggle `toml:"html_error_pages"`
	ConnectionNamedHeaders Toggle `toml:"connection_named_headers"`
	ResponseCharset        Toggle `toml:"response_charset"`
	CountOnlyWithPlugin    Toggle `toml:"count_only_with_plugin"`
	APISIXServerHeader     Toggle `toml:"apisix_server_header"`
	GlobalTwinsStop        Toggle `toml:"global_twins_stop"`
	BreakerNoRetryAfter    Toggle `toml:"breaker_no_retry_after"`
	UndiscoveredUpstreams  Toggle `toml:"undiscovered_upstreams"`
	RefusedNodes           Toggle `toml:"refused_nodes"`
	NoRestForNodes         Toggle `toml:"no_rest_for_nodes"`
	HopHeaders             Toggle `toml:"hop_headers"`
	AccelHeadersEnd        Toggle `toml:"accel_headers_end"`
	NginxHeadLimits        Toggle `toml:"nginx_head_limits"`
	LongRestUnmatched      Toggle `toml:"long_rest_unmatched"`
	UnmadeAttemptStatus    Toggle `toml:"unmade_attempt_status"`
	UnknownBalancers       Toggle `toml:"unknown_balancers"`
	UnservedSchemes        Toggle `toml:"unserved_schemes"`
	SplitHostWithoutPort   Toggle `toml:"split_host_without_port"`
	RealIPFromLoopback     Toggle `toml:"real_ip_from_loopback"`

	// AcceptInert names plugins that APISIX has and Headgate has not: documents that use them are stored, and the plugins do not run.
	AcceptInert []string `toml:"accept_inert"`
}

// Switch names one behaviour of Compat, as the file does.
type Switch string

// The behaviours of APISIX that can be chosen one by one.
const (
	// UpstreamRawPath forwards the path as the client wrote it, while another form of it was matched.
	UpstreamRawPath Switch = "upstream_raw_path"
	// ForwardedForFromAnyone keeps the X-Forwarded-For list of every client as long as no trusted addresses are configured
	// (contract section 3.5).
	ForwardedForFromAnyone Switch = "forwarded_for_from_anyone"
	// UnverifiedUpstreamTLS leaves certificates of https upstreams unchecked.
	UnverifiedUpstreamTLS Switch = "unverified_upstream_tls"
	// SSLKeyMismatch accepts an ssl document whose key does not belong to its certificate.
	SSLKeyMismatch Switch = "ssl_key_mismatch"
	// HTMLErrorPages answers some bad bodies of the Admin API with an HTML page of status 500 instead of a 400 with the reason.
	HTMLErrorPages Switch = "html_error_pages"
	// ConnectionNamedHeaders passes headers of requests and answers on that their Connection header names (RFC 9110 section 7.6.1 forbids it).
	ConnectionNamedHeaders Switch = "connection_named_headers"
	// ResponseCharset adds charset=utf-8 to the Content-Type of text answers that name no charset.
	ResponseCharset Switch = "response_charset"
	// CountOnlyWithPlugin counts branches only where the prometheus plugin is enabled.
	CountOnlyWithPlugin Switch = "count_only_with_plugin"
	// APISIXServerHeader names APISIX in the Server header of answers, as long as gateway.server_header has its default.
	APISIXServerHeader Switch = "apisix_server_header"
	// GlobalTwinsStop runs a plugin that stands in two global rules for neither (contract section 2.7), which leaves open what it protects.
	GlobalTwinsStop Switch = "global_twins_stop"
	// BreakerNoRetryAfter leaves Retry-After out of what api-breaker answers without a scope.
	BreakerNoRetryAfter Switch = "breaker_no_retry_after"
	// UndiscoveredUpstreams accepts upstreams whose discovery_type is not configured; they have no nodes.
	UndiscoveredUpstreams Switch = "undiscovered_upstreams"
	// RefusedNodes accepts nodes with an address that is not dialled (see Upstream.AllowAddresses); requests to them fail.
	RefusedNodes Switch = "refused_nodes"
	// NoRestForNodes asks a node that cannot be connected again with the next request, and waits for it as long as its clock says (see
	// Upstream.NextNode).
	NoRestForNodes Switch = "no_rest_for_nodes"
	// HopHeaders passes Proxy-*, Trailer and HTTP2-Settings of requests on, and Proxy-*, TE, Trailer and Upgrade of answers (RFC 9110 section
	// 7.6.1 forbids it).
	HopHeaders Switch = "hop_headers"
	// AccelHeadersEnd keeps X-Accel-* and X-Pad of answers, which tell nginx what to do with them, from clients. Nothing is done with them.
	AccelHeadersEnd Switch = "accel_headers_end"
	// NginxHeadLimits bounds request lines and header lines at 8 KiB each, and answers 414 and 400 where a head is too large.
	NginxHeadLimits Switch = "nginx_head_limits"
	// LongRestUnmatched lets no route serve a path of which a `*` segment would stand for more than 6 KiB.
	LongRestUnmatched Switch = "long_rest_unmatched"
	// UnmadeAttemptStatus shows an attempt for which there was no node or no time left as an empty entry in the list of statuses.
	UnmadeAttemptStatus Switch = "unmade_attempt_status"
	// UnknownBalancers accepts upstreams of a type that does not exist; requests fail where there is more than one node.
	UnknownBalancers Switch = "unknown_balancers"
	// UnservedSchemes accepts upstreams of a scheme that is not served here, such as grpc; requests to them fail.
	UnservedSchemes Switch = "unserved_schemes"
	// SplitHostWithoutPort leaves the port out of the Host of pass_host "node" in http upstreams that stand in traffic-split.
	SplitHostWithoutPort Switch = "split_host_without_port"
	// RealIPFromLoopback believes the X-Real-IP of 127.0.0.1, whose other forwarding headers are believed no more than anybody's.
	RealIPFromLoopback Switch = "real_ip_from_loopback"
)

// Switches lists every Switch, in the order of the file.
func Switches() []Switch {
	return []Switch{
		UpstreamRawPath, ForwardedForFromAnyone, UnverifiedUpstreamTLS, SSLKeyMismatch, HTMLErrorPages, ConnectionNamedHeaders,
		ResponseCharset, CountOnlyWithPlugin, APISIXServerHeader, GlobalTwinsStop, BreakerNoRetryAfter, UndiscoveredUpstreams, RefusedNodes,
		NoRestForNodes,
		HopHeaders, AccelHeadersEnd, NginxHeadLimits, LongRestUnmatched, UnmadeAttemptStatus, UnknownBalancers, UnservedSchemes,
		SplitHostWithoutPort, RealIPFromLoopback,
	}
}

// On reports whether s is in force: as its own setting says, else as mode does. An unknown name is never on.
func (c Compat) On(s Switch) bool {
	switch c.toggle(s) {
	case ToggleOn:
		return true
	case ToggleUnset:
		return c.Mode == CompatAPISIX
	}
	return false
}

func (c Compat) toggle(s Switch) Toggle {
	switch s {
	case UpstreamRawPath:
		return c.UpstreamRawPath
	case ForwardedForFromAnyone:
		return c.ForwardedForFromAnyone
	case UnverifiedUpstreamTLS:
		return c.UnverifiedUpstreamTLS
	case SSLKeyMismatch:
		return c.SSLKeyMismatch
	case HTMLErrorPages:
		return c.HTMLErrorPages
	case ConnectionNamedHeaders:
		return c.ConnectionNamedHeaders
	case ResponseCharset:
		return c.ResponseCharset
	case CountOnlyWithPlugin:
		return c.CountOnlyWithPlugin
	case APISIXServerHeader:
		return c.APISIXServerHeader
	case GlobalTwinsStop:
		return c.GlobalTwinsStop
	case BreakerNoRetryAfter:
		return c.BreakerNoRetryAfter
	case UndiscoveredUpstreams:
		return c.UndiscoveredUpstreams
	case RefusedNodes:
		return c.RefusedNodes
	case NoRestForNodes:
		return c.NoRestForNodes
	case HopHeaders:
		return c.HopHeaders
	case AccelHeadersEnd:
		return c.AccelHeadersEnd
	case NginxHeadLimits:
		return c.NginxHeadLimits
	case LongRestUnmatched:
		return c.LongRestUnmatched
	case UnmadeAttemptStatus:
		return c.UnmadeAttemptStatus
	case UnknownBalancers:
		return c.UnknownBalancers
	case UnservedSchemes:
		return c.UnservedSchemes
	case SplitHostWithoutPort:
		return c.SplitHostWithoutPort
	case RealIPFromLoopback:
		return c.RealIPFromLoopback
	}
	return ToggleOff
}
