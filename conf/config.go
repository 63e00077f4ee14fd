// Package conf is the static configuration of one gateway process: a TOML file that is read strictly, checked as a whole and never
// changed afterwards. What operators change while traffic flows (routes, upstreams, ...) lives in conf/resource and conf/store; the
// file may carry such resources too, and they are then read-only over the Admin API.
//
// The annotated example headgate.toml beside this file describes every setting; a test keeps the two in step.
package conf

import "time"

// DefaultAccessLogFormat is the template of an access log line. Its first fields are those of APISIX's default format (contract
// section 6); upstream address, route and branch follow so that hits per branch can be
// counted with grep, then why the exchange failed.
const DefaultAccessLogFormat = `$remote_addr - $consumer_name [$time_local] $http_host "$request" $status $body_bytes_sent $request_time "$http_referer" "$http_user_agent" $upstream_addr $upstream_status $upstream_response_time route=$route_id branch=$branch split=$split fault=$fault`

// Values of the settings that are a choice.
const (
	RouterHostURI          = "radixtree_host_uri"
	RouterURI              = "radixtree_uri"
	RouterURIWithParameter = "radixtree_uri_with_parameter"

	RoleAdmin  = "admin"
	RoleViewer = "viewer"

	CompatSafe   = "safe"
	CompatAPISIX = "apisix"

	StoreEmbedded = "embedded"
	StoreEtcd     = "etcd"
	StoreFile     = "file"
	StoreMem      = "mem"

	AccessLogStdout = "stdout"
	AccessLogOff    = "off"

	TLS12 = "1.2"
	TLS13 = "1.3"

	AuditStderr = "stderr"
	AuditOff    = "off"
)

// Config is everything the file says, with defaults filled in. It is immutable once Load or Parse returned it, except for
// EnsureAdminKey, which the start-up calls before anything else reads it. Printing a Config never shows a secret.
//
// The tag conf:"template" marks strings in which ${...} belongs to the gateway's own template language and is left alone.
type Config struct {
	Gateway   Gateway   `toml:"gateway"`
	Admin     Admin     `toml:"admin"`
	Metrics   Metrics   `toml:"metrics"`
	Control   Control   `toml:"control"`
	Status    Status    `toml:"status"`
	Compat    Compat    `toml:"compat"`
	Store     Store     `toml:"store"`
	AccessLog AccessLog `toml:"access_log"`
	Audit     Audit     `toml:"audit"`
	Upstream  Upstream  `toml:"upstream"`
	Discovery Discovery `toml:"discovery"`

	ProxyCache ProxyCache `toml:"proxy_cache"`

	// Inline resources: fields as in the Admin API, what names them always present and unique per kind (see DocumentKey). Values are
	// string, bool, int64, float64 (finite), []any and map[string]any only, so encoding/json can write them. Documents gives all of
	// them by store key.
	Routes         []map[string]any `toml:"routes"`
	Services       []map[string]any `toml:"services"`
	Upstreams      []map[string]any `toml:"upstreams"`
	Consumers      []map[string]any `toml:"consumers"`
	Credentials    []map[string]any `toml:"credentials"` // "consumer" names the owner
	ConsumerGroups []map[string]any `toml:"consumer_groups"`
	PluginConfigs  []map[string]any `toml:"plugin_configs"`
	GlobalRules    []map[string]any `toml:"global_rules"`
	PluginMetadata []map[string]any `toml:"plugin_metadata"` // "id" is the name of the plugin
	SSLs           []map[string]any `toml:"ssls"`
	Secrets        []map[string]any `toml:"secrets"` // "id" is manager/name
	Protos         []map[string]any `toml:"protos"`

	source source
}

// Gateway is the data plane's side towards clients.
type Gateway struct {
	Listen []string `toml:"listen"` // host:port each; an empty host means every address
	Router string   `toml:"router"` // contract section 2.1

	MaxHeaderSize  Size `toml:"max_header_size"` // request line and header fields together
	MaxHeaders     int  `toml:"max_headers"`     // number of header fields
	MaxBodySize    Size `toml:"max_body_size"`
	BodyBuffer     Size `toml:"body_buffer"`        // longer request bodies are passed on as they come
	MaxHeldBody    Size `toml:"max_held_body_size"` // longest one that is held for a plugin which needs it whole
	MaxConnections int  `toml:"max_connections"`    // 0 = half of the file descriptors
	MaxPerClient   int  `toml:"max_connections_per_client"`
	MemoryLimit    Size `toml:"memory_limit"` // of the process; 0 = what its control group or GOMEMLIMIT says

	HeaderTimeout Duration `toml:"header_timeout"` // first byte to end of the header
	BodyTimeout   Duration `toml:"body_timeout"`   // between two reads of the body
	IdleTimeout   Duration `toml:"idle_timeout"`   // between two requests of a connection
	WriteTimeout  Duration `toml:"write_timeout"`  // one write that the client does not take; 0 = no limit
	DrainDelay    Duration `toml:"drain_delay"`    // after SIGTERM: keep accepting for this long
	DrainTimeout  Duration `toml:"drain_timeout"`  // then: wait this long for what runs

	ServerHeader string `toml:"server_header"` // "" = what the upstream sent
	// Names of the fields that pass behind request bodies and behind those of answers; "*" = all that may stand there (RFC 9110 section
	// 6.5.1).
	RequestTrailers  []string `toml:"request_trailers"`
	ResponseTrailers []string `toml:"response_trailers"`

	TrustedAddresses   []string `toml:"trusted_addresses"` // CIDRs whose X-Real-IP and X-Forwarded-* are believed
	DeleteURITailSlash bool     `toml:"delete_uri_tail_slash"`
	ShowUpstreamStatus bool     `toml:"show_upstream_status"` // X-APISIX-Upstream-Status on every answer

	MatchURIEncodedSlash    bool `toml:"match_uri_encoded_slash"`    // %2F stays a letter of its segment while routes are matched
	NormalizeURILikeServlet bool `toml:"normalize_uri_like_servlet"` // ;parameters are cut and the path is resolved before matching
	MaxPostArgsSize         Size `toml:"max_post_args_size"`         // largest body in which post_arg variables are looked for

	TLS    GatewayTLS    `toml:"tls"`
	Strict GatewayStrict `toml:"strict"`
}

// GatewayTLS is how clients are served over TLS. Certificates are ssl resources.
type GatewayTLS struct {
	Listen           []string `toml:"listen"`      // as gateway.listen
	MinVersion       string   `toml:"min_version"` // TLS12 or TLS13; an ssl resource with ssl_protocols has its own
	HTTP2            bool     `toml:"http2"`
	SessionTickets   bool     `toml:"session_tickets"`
	HandshakeTimeout Duration `toml:"handshake_timeout"` // from the connection to the end of its handshake
	MaxHandshakes    int      `toml:"max_handshakes"`    // under way at the same time
	FallbackSNI      string   `toml:"fallback_sni"`      // what clients ask for that name no server; "" = nothing
	CertFile         string   `toml:"cert_file"`         // for names that no ssl resource has, with KeyFile; "" = they are refused
	KeyFile          string   `toml:"key_file"`
}

// Admin is the Admin API listener (contract section 1.1).
type Admin struct {
	Enabled     bool     `toml:"enabled"`
	Listen      string   `toml:"listen"`
	KeyRequired bool     `toml:"key_required"`
	KeyFile     string   `toml:"key_file"` // where a generated key is kept
	Allow       []string `toml:"allow"`    // CIDRs that may connect; never empty
	CORS        bool     `toml:"cors"`
	// MaxConfigsSize bounds the body of PUT /apisix/admin/configs, the whole configuration in one document (contract section 1.8).
	MaxConfigsSize Size `toml:"max_configs_size"`

	Keys []AdminKey `toml:"keys"`
}

// AdminKey is one credential of the Admin API.
type AdminKey struct {
	Name string `toml:"name"`
	Key  Secret `toml:"key"`
	Role string `toml:"role"` // RoleAdmin or RoleViewer (GET only)
	// Expires is the first moment at which the key is refused; the zero value means never. A plain date in the file is the last
	// day (UTC) on which the key works.
	Expires time.Time `toml:"expires"`
}

// Metrics is the Prometheus listener.
type Metrics struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
	Path    string `toml:"path"` // "/metrics" answers too
}

// Control is the listener of the read-only views (contract section 1.9). It asks for no key.
type Control struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
}

// Status is the listener for probes of other machinery (contract section 1.10): alive, and ready. It asks for no key.
type Status struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
}

// Audit is the log of applied changes: what, by which key, from where, which revisions. It never contains a secret.
type Audit struct {
	Path string `toml:"path"` // AuditStderr, AuditOff or a file
}

// AccessLog is the log of finished exchanges.
type AccessLog struct {
	Path          string   `toml:"path"` // AccessLogStdout, AccessLogOff or a file
	Format        string   `toml:"format" conf:"template"`
	MaskSecrets   bool     `toml:"mask_secrets"`   // *** for what goes by the name of a secret
	BufferSize    Size     `toml:"buffer_size"`    // lines are written when this much has gathered ...
	FlushInterval Duration `toml:"flush_interval"` // ... or after this long
}

// Upstream is what an upstream gets unless its own document says otherwise.
type Upstream struct {
	TLSVerify         bool     `toml:"tls_verify"`
	CAFile            string   `toml:"ca_file"` // PEM bundle; "" = the system's
	ConnectTimeout    Duration `toml:"connect_timeout"`
	NextNode          Duration `toml:"next_node"`    // for connecting, while another node is left to ask; 0 = ConnectTimeout
	SendTimeout       Duration `toml:"send_timeout"` // one write
	ReadTimeout       Duration `toml:"read_timeout"` // one read: the wait for the header, and every gap in the body
	KeepaliveSize     int      `toml:"keepalive_size"`
	KeepaliveIdle     Duration `toml:"keepalive_idle"`
	KeepaliveRequests int      `toml:"keepalive_requests"`
	KeepaliveAge      Duration `toml:"keepalive_age"` // 0 = no limit
	RetryBudget       int      `toml:"retry_budget"`  // percent of the requests
	MaxResponseHeader Size     `toml:"max_response_header"`
	DNSServers        []string `toml:"dns_servers"` // asked for the names of nodes; empty = those of /etc/resolv.conf
	DNSMinTTL         Duration `toml:"dns_min_ttl"`
	DNSMaxTTL         Duration `toml:"dns_max_ttl"`
	DNSRefresh        Duration `toml:"dns_refresh"`      // of answers without a TTL
	DNSStale          Duration `toml:"dns_stale"`        // how long an answer that cannot be renewed is used
	AllowAddresses    []string `toml:"allow_addresses"`  // CIDRs that are dialled although they are link-local or the like
	UpgradeLifetime   Duration `toml:"upgrade_lifetime"` // of a WebSocket or the like; 0 = no limit
}

// Discovery is where upstreams with a discovery_type find their nodes (contract section 3.6).
type Discovery struct {
	DNS DiscoveryDNS `toml:"dns"`
}

// DiscoveryDNS is that of discovery_type "dns".
type DiscoveryDNS struct {
	Servers []string `toml:"servers"` // addresses, with a port unless it is 53; empty = upstreams cannot be discovered
}

// Default returns what runs without a file. Nothing in it is shared between calls.
func Default() *Config {
	return &Config{
		Gateway: Gateway{
			Listen:           []string{"0.0.0.0:9080"},
			Router:           RouterHostURI,
			MaxHeaderSize:    32 * KiB,
			MaxHeaders:       128,
			MaxBodySize:      64 * MiB,
			BodyBuffer:       64 * KiB,
			MaxHeldBody:      16 * MiB,
			HeaderTimeout:    Duration(10 * time.Second),
			BodyTimeout:      Duration(60 * time.Second),
			IdleTimeout:      Duration(60 * time.Second),
			WriteTimeout:     Duration(60 * time.Second),
			DrainTimeout:     Duration(30 * time.Second),
			ServerHeader:     "Headgate",
			RequestTrailers:  []string{},
			ResponseTrailers: []string{"*"},
			TrustedAddresses: []string{},
			MaxPostArgsSize:  64 * MiB,
			TLS: GatewayTLS{
				Listen:           []string{},
				MinVersion:       TLS12,
				HTTP2:            true,
				SessionTickets:   true,
				HandshakeTimeout: Duration(10 * time.Second),
				MaxHandshakes:    1024,
			},
			Strict: allStrict(),
		},
		Admin: Admin{
			Enabled:     true,
			Listen:      "127.0.0.1:9180",
			KeyRequired: true,
			KeyFile:     "data/admin.key",
			Allow:       []string{"127.0.0.0/24"},
			CORS:        true,

			MaxConfigsSize: 64 * MiB,
		},
		Metrics: Metrics{Enabled: true, Listen: "127.0.0.1:9091", Path: "/apisix/prometheus/metrics"},
		Control: Control{Enabled: true, Listen: "127.0.0.1:9090"},
		Status:  Status{Listen: "127.0.0.1:7085"},
		Compat:  Compat{Mode: CompatSafe, APIVersion: "3.18.0", AcceptInert: []string{}},
		Store: Store{
			Provider: StoreEmbedded,
			Path:     "data/headgate.db",
			Etcd: Etcd{
				Endpoints:    []string{"http://127.0.0.1:2379"},
				Prefix:       "/apisix",
				Timeout:      Duration(5 * time.Second),
				StartupRetry: 2,
				TLSVerify:    true,
			},
			File:       File{Interval: Duration(time.Second)},
			Encryption: Encryption{Keyring: []Secret{}},
		},
		Audit: Audit{Path: AuditStderr},
		AccessLog: AccessLog{
			Path:          AccessLogStdout,
			Format:        DefaultAccessLogFormat,
			MaskSecrets:   true,
			BufferSize:    64 * KiB,
			FlushInterval: Duration(200 * time.Millisecond),
		},
		Upstream: Upstream{
			TLSVerify:         true,
			ConnectTimeout:    Duration(60 * time.Second),
			NextNode:          Duration(time.Second),
			SendTimeout:       Duration(60 * time.Second),
			ReadTimeout:       Duration(60 * time.Second),
			KeepaliveSize:     320,
			KeepaliveIdle:     Duration(4 * time.Second),
			KeepaliveRequests: 1000,
			KeepaliveAge:      Duration(time.Hour),
			RetryBudget:       20,
			MaxResponseHeader: 32 * KiB,
			DNSServers:        []string{},
			DNSMinTTL:         Duration(time.Second),
			DNSMaxTTL:         Duration(5 * time.Minute),
			DNSRefresh:        Duration(30 * time.Second),
			DNSStale:          Duration(time.Hour),
			AllowAddresses:    []string{},
		},
		Discovery:  Discovery{DNS: DiscoveryDNS{Servers: []string{}}},
		ProxyCache: ProxyCache{CacheTTL: Duration(10 * time.Second), Zones: defaultZones()},
	}
}
