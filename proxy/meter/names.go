package meter

// Names of the contract (section 5). The registry puts its prefix in front of them ("apisix_" by default).
const (
	HTTPRequests   = "http_requests_total"
	HTTPStatus     = "http_status"
	HTTPLatency    = "http_latency"
	Bandwidth      = "bandwidth"
	Connections    = "nginx_http_current_connections"
	NodeInfo       = "node_info"
	EtcdReachable  = "etcd_reachable"
	EtcdIndexes    = "etcd_modify_indexes"
	UpstreamStatus = "upstream_status"
	MetricOverflow = "metric_overflow_total"
)

// OwnPrefix starts the names of metrics that the contract does not know. The registry leaves them as they are.
const OwnPrefix = "headgate_"

// Names of our own metrics.
const (
	Requests            = OwnPrefix + "requests_total"
	UpstreamConnections = OwnPrefix + "upstream_connections"
	UpgradedConnections = OwnPrefix + "upgraded_connections"
	ConfigRevision      = OwnPrefix + "config_revision"
	ConfigChanges       = OwnPrefix + "config_changes_total"
	AdminKeyExpiryDays  = OwnPrefix + "admin_key_expiry_days"
	AccessLogDropped    = OwnPrefix + "access_log_dropped_total"
	Faults              = OwnPrefix + "faults_total"
	SnapshotPending     = OwnPrefix + "snapshot_pending"
	ClientAborts        = OwnPrefix + "client_aborts_total"
	Panics              = OwnPrefix + "panics_total"
	Handshakes          = OwnPrefix + "tls_handshakes_total"
	HealthProbes        = OwnPrefix + "health_probes_total"
	UpstreamAllDown     = OwnPrefix + "upstream_all_down"
	BreakerState        = OwnPrefix + "breaker_state"
	BreakerTransitions  = OwnPrefix + "breaker_transitions_total"
	BreakerForced       = OwnPrefix + "breaker_forced_total"
	Quarantine          = OwnPrefix + "quarantine_until_seconds"
	DNSResolutions      = OwnPrefix + "dns_resolutions_total"
	DNSOldestAnswer     = OwnPrefix + "dns_oldest_answer_seconds"
	OverloadLevel       = OwnPrefix + "overload_level"
	MemoryLimit         = OwnPrefix + "memory_limit_bytes"
	MemoryUsed          = OwnPrefix + "memory_used_bytes"
	ConnectionsShed     = OwnPrefix + "connections_shed_total"
)

// LatencyBuckets returns the upper bounds of the latency histograms in milliseconds (contract section 5). The caller owns the slice.
func LatencyBuckets() []float64 {
	return []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000}
}

// description is what the exposition says about a family before it has a series.
type description struct {
	name string
	kind kind
	help string
}

// known lists every family that a registry announces from its first exposition on, so that a dashboard can be written before the
// first request.
func known() []description {
	return []description{
		{HTTPRequests, counterKind, "Requests sent to each branch of a route; the label upstream names the branch."},
		{HTTPStatus, counterKind, "Responses by status code and by the party that made them."},
		{HTTPLatency, histogramKind, "Time in milliseconds: the whole request, the share of the upstream, the share of the gateway."},
		{Bandwidth, counterKind, "Bytes received from clients (ingress) and sent to them (egress)."},
		{Connections, gaugeKind, "Client connections and requests by state."},
		{NodeInfo, gaugeKind, "Always 1; the labels tell which host runs which version."},
		{EtcdReachable, gaugeKind, "1 while the configuration store answers, else 0."},
		{EtcdIndexes, gaugeKind, "Store revision of the last change of each kind of resource."},
		{UpstreamStatus, gaugeKind, "1 for an endpoint that passes its health checks, else 0."},
		{MetricOverflow, counterKind, "How often a metric had no room for another series and folded it into the one labelled other."},
		{Requests, counterKind, "Client requests since start, whatever became of them."},
		{UpstreamConnections, gaugeKind, "Connections to upstreams by state."},
		{UpgradedConnections, gaugeKind, "Client connections that have switched to another protocol, such as WebSocket."},
		{ConfigRevision, gaugeKind, "Store revision of the configuration in force."},
		{ConfigChanges, counterKind, "Configuration changes by result."},
		{AdminKeyExpiryDays, gaugeKind, "Days until an admin key expires; negative when it has expired."},
		{AccessLogDropped, counterKind, "Access log lines that were lost because the log could not be written fast enough or at all."},
		{Faults, counterKind, "Requests that failed, by whose fault it was (client, gateway, upstream) and how."},
		{SnapshotPending, gaugeKind, "Replaced configurations that still serve requests."},
		{ClientAborts, counterKind, "Clients that left before they had their answer, by what was under way: request, plugin, queue, connect, wait, answer."},
		{Panics, counterKind, "Panics caught while serving a request."},
		{Handshakes, counterKind, "TLS handshakes with clients by result: full, resumed, failed, timeout."},
		{HealthProbes, counterKind, "Probes of upstream servers by what they showed."},
		{UpstreamAllDown, gaugeKind, "1 for an upstream whose servers all fail their health checks, so that all are used, else 0."},
		{BreakerState, gaugeKind, "State of a route, branch or endpoint that a breaker watches: 0 closed, 1 recovering, 2 half-open, 3 open."},
		{BreakerTransitions, counterKind, "Changes of such a state, by the state that it became."},
		{BreakerForced, counterKind, "Requests that went to a broken branch or endpoint because no other was left."},
		{Quarantine, gaugeKind, "When a quarantine ends, in seconds since 1970; one series for each in force."},
		{DNSResolutions, counterKind, "Questions for the addresses of nodes (resolver nodes or discovery) by result: ok, not_found, timeout, failed."},
		{OverloadLevel, gaugeKind, "How much the gateway gives way because of its memory: 0 not at all, 1 connections end with their answers, 2 new requests are refused."},
		{MemoryLimit, gaugeKind, "Bytes of memory that the process may have; 0 when nobody limits it."},
		{MemoryUsed, gaugeKind, "Bytes of memory in use, garbage included that has not been found yet; 0 when nobody limits it."},
		{ConnectionsShed, counterKind, "Client connections that had to go, by reason: full and per_client were refused, idle and memory had been idle for longest."},
		{DNSOldestAnswer, gaugeKind, "Age in seconds of the oldest answer about names of nodes that is in use."},
	}
}
