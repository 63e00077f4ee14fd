package vars

import "strings"

// ID numbers a variable that has one fixed name (contract section 2.5). The zero ID names nothing.
type ID uint8

// The fixed variables. Times are decimal seconds with three places, sizes are bytes, unless said otherwise.
const (
	URI            ID = iota + 1 // the canonical path: decoded, without query
	RequestURI                   // path and query after normalisation
	RealRequestURI               // the request target as the client sent it
	Args                         // the query, without "?"
	IsArgs                       // "?" when there is a query, else empty
	Host                         // lower case, without port
	Hostname                     // of the machine
	HTTPHost                     // the Host header as sent
	Scheme
	RemoteAddr
	RemotePort
	ServerAddr
	ServerPort
	ServerName
	ServerProtocol
	RequestMethod
	Request // the request line
	RequestLength
	RequestTime
	RequestID
	RemoteUser // the user of basic authentication
	ContentType
	ContentLength
	Status
	BytesSent
	BodyBytesSent
	BytesReceived
	UpstreamAddr
	UpstreamStatus
	UpstreamResponseTime
	UpstreamConnectTime
	UpstreamHeaderTime
	UpstreamHost
	UpstreamURI
	UpstreamName
	BalancerIP
	BalancerPort
	Branch // the choice of a traffic split
	Split  // how it came about: revision:rule:bucket:branch
	Fault  // the code of what went wrong, as in the metric of faults
	TimeLocal
	TimeISO8601
	Msec // wall clock, seconds since 1970
	ConsumerName
	ConsumerGroupID
	RouteID
	RouteName
	ServiceID
	ServiceName
	ConnectionRequests
	PID
	NginxVersion // the version that is imitated
	GatewayVersion
	BinaryRemoteAddr // 4 or 16 bytes
	HTTPS            // "on" over TLS, else empty
	RequestBody
	RespBody    // the whole body of the answer, when it is held in memory
	GraphQLName // empty for an operation without one
	GraphQLOperation
	GraphQLRootFields // in text: with ", " between them

	idCount
)

// idNames is the spelling of every ID; it is read only.
var idNames = [idCount]string{
	URI:                  "uri",
	RequestURI:           "request_uri",
	RealRequestURI:       "real_request_uri",
	Args:                 "args",
	IsArgs:               "is_args",
	Host:                 "host",
	Hostname:             "hostname",
	HTTPHost:             "http_host",
	Scheme:               "scheme",
	RemoteAddr:           "remote_addr",
	RemotePort:           "remote_port",
	ServerAddr:           "server_addr",
	ServerPort:           "server_port",
	ServerName:           "server_name",
	ServerProtocol:       "server_protocol",
	RequestMethod:        "request_method",
	Request:              "request",
	RequestLength:        "request_length",
	RequestTime:          "request_time",
	RequestID:            "request_id",
	RemoteUser:           "remote_user",
	ContentType:          "content_type",
	ContentLength:        "content_length",
	Status:               "status",
	BytesSent:            "bytes_sent",
	BodyBytesSent:        "body_bytes_sent",
	BytesReceived:        "bytes_received",
	UpstreamAddr:         "upstream_addr",
	UpstreamStatus:       "upstream_status",
	UpstreamResponseTime: "upstream_response_time",
	UpstreamConnectTime:  "upstream_connect_time",
	UpstreamHeaderTime:   "upstream_header_time",
	UpstreamHost:         "upstream_host",
	UpstreamURI:          "upstream_uri",
	UpstreamName:         "upstream_name",
	BalancerIP:           "balancer_ip",
	BalancerPort:         "balancer_port",
	Branch:               "branch",
	Split:                "split",
	Fault:                "fault",
	TimeLocal:            "time_local",
	TimeISO8601:          "time_iso8601",
	Msec:                 "msec",
	ConsumerName:         "consumer_name",
	ConsumerGroupID:      "consumer_group_id",
	RouteID:              "route_id",
	RouteName:            "route_name",
	ServiceID:            "service_id",
	ServiceName:          "service_name",
	ConnectionRequests:   "connection_requests",
	PID:                  "pid",
	NginxVersion:         "nginx_version",
	GatewayVersion:       "gateway_version",
	BinaryRemoteAddr:     "binary_remote_addr",
	HTTPS:                "https",
	RequestBody:          "request_body",
	RespBody:             "resp_body",
	GraphQLName:          "graphql_name",
	GraphQLOperation:     "graphql_operation",
	GraphQLRootFields:    "graphql_root_fields",
}

// String returns the name without "$", or "" for an ID that is none.
func (id ID) String() string {
	if id < idCount {
		return idNames[id]
	}
	return ""
}

// lookup finds the ID of a fixed name or of one of its other names.
func lookup(name string) (ID, bool) {
	switch name {
	case "":
		return 0, false
	case "query_string":
		return Args, true
	case "document_uri":
		return URI, true
	case "method":
		return RequestMethod, true
	case "apisix_request_id":
		return RequestID, true
	}
	for id := ID(1); id < idCount; id++ {
		if idNames[id] == name {
			return id, true
		}
	}
	return 0, false
}

// isInert reports whether name is one of the contract's names that never has a value here: configurations that use it are right, and
// their templates have nothing in its place.
func isInert(name string) bool {
	switch name {
	case "connection", "rate_limiting_info", "upstream_unresolved_host", "proxy_rewrite_regex_uri_captures", "apisix_upstream_response_time",
		"upstream_response_length", "upstream_bytes_received", "upstream_bytes_sent", "upstream_cache_status", "request_completion",
		"request_llm_model", "request_type", "pipe":
		return true
	}
	for _, prefix := range [...]string{"llm_", "ssl_", "tcpinfo_", "sent_trailer_", "upstream_trailer_"} {
		if len(name) > len(prefix) && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
