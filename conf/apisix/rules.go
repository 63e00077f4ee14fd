package apisix

// rule carries the value at a key of config.yaml over. It returns why it could not, "" when there is nothing to say.
type rule func(im *importer, at string, v any) (why string)

// Reasons that several keys share.
const (
	noNginx      = "there is no nginx underneath"
	noStream     = "Headgate has no stream proxy"
	noAdminTLS   = "the Admin API has no TLS of its own: keep it on loopback, or terminate TLS in front of it"
	noLua        = "Headgate runs no Lua"
	onePlane     = "one process serves all cores and needs no such setting"
	fromEnviron  = "comes from the environment, which cannot set this kind of value: write it by hand"
	wrongType    = "has a value of another type than APISIX takes"
	resolverNote = "names are looked up as the system is configured (/etc/resolv.conf)"
	noDiscovery  = "service discovery other than DNS is not there"
	dnsOrder     = "SRV records are looked for first, then A, then AAAA"
)

// rules are the keys of config.yaml that mean something here, or need a reason of their own.
func rules() map[string]rule {
	m := map[string]rule{
		"apisix.node_listen":                             nodeListen,
		"apisix.enable_admin":                            flag("admin.enabled"),
		"apisix.enable_ipv6":                             ignored,
		"apisix.enable_server_tokens":                    ignored,
		"apisix.show_upstream_status_in_response_header": flag("gateway.show_upstream_status"),
		"apisix.delete_uri_tail_slash":                   flag("gateway.delete_uri_tail_slash"),
		"apisix.normalize_uri_like_servlet":              flag("gateway.normalize_uri_like_servlet"),
		"apisix.match_uri_encoded_slash":                 flag("gateway.match_uri_encoded_slash"),
		"apisix.max_post_args_readable_size":             mebibytes("gateway.max_post_args_size"),
		"apisix.router.http":                             text("gateway.router"),
		"apisix.router.ssl":                              only("certificates are found by server name", "radixtree_sni"),
		"apisix.proxy_mode":                              only(noStream, "http"),
		"apisix.dns_resolver_valid":                      resolverValid,
		"apisix.dns_resolver":                            nameServers("upstream.dns_servers"),
		"discovery.dns.servers":                          nameServers("discovery.dns.servers"),
		"apisix.enable_http2":                            flag("gateway.tls.http2"),
		"apisix.ssl.enable":                              ignored, // sslListen
		"apisix.ssl.listen":                              sslListen,
		"apisix.ssl.ssl_protocols":                       sslProtocols,
		"apisix.ssl.ssl_session_tickets":                 flag("gateway.tls.session_tickets"),
		"apisix.ssl.fallback_sni":                        text("gateway.tls.fallback_sni"),
		"apisix.ssl.ssl_trusted_certificate":             trustedCertificate,
		"apisix.enable_control":                          flag("control.enabled"),
		"apisix.control":                                 address("control.listen", "127.0.0.1", 9090),
		"apisix.status":                                  status,
		"apisix.proxy_cache.cache_ttl":                   span("proxy_cache.cache_ttl"),
		"apisix.proxy_cache.zones":                       cacheZones,
		"apisix.data_encryption.keyring":                 keyring,
		"apisix.data_encryption.enable_encrypt_fields":   only("with a keyring, secret fields are always stored encrypted", "true"),
		"apisix.trusted_addresses":                       trusted,
		"nginx_config.worker_shutdown_timeout":           span("gateway.drain_timeout"),
		"nginx_config.http.client_max_body_size":         maxBody,
		"nginx_config.http.keepalive_timeout":            span("gateway.idle_timeout"),
		"nginx_config.http.client_header_timeout":        span("gateway.header_timeout"),
		"nginx_config.http.client_body_timeout":          span("gateway.body_timeout"),
		"nginx_config.http.send_timeout":                 span("gateway.write_timeout"),
		"nginx_config.http.underscores_in_headers":       only("headers with underscores are always passed on", "on", "true"),
		"nginx_config.http.real_ip_header":               only("the client's address is taken from X-Real-IP or X-Forwarded-For", "X-Real-IP"),
		"nginx_config.http.real_ip_recursive":            only("the address is looked up once", "off", "false"),
		"nginx_config.http.real_ip_from":                 trusted,
		"nginx_config.http.proxy_ssl_server_name":        only("the server name is always sent", "true", "on"),
		"nginx_config.http.charset":                      charset,
		"nginx_config.http.upstream.keepalive":           number("upstream.keepalive_size"),
		"nginx_config.http.upstream.keepalive_requests":  number("upstream.keepalive_requests"),
		"nginx_config.http.upstream.keepalive_timeout":   span("upstream.keepalive_idle"),
		"nginx_config.http.enable_access_log":            accessLogSwitch,
		"nginx_config.http.access_log":                   accessLog,
		"nginx_config.http.access_log_buffer":            size("access_log.buffer_size"),
		"nginx_config.http.access_log_format":            accessLogFormat,
		"nginx_config.http.access_log_format_escape":     only("values are always escaped for one line of text", "default"),
		"plugin_attr.prometheus.export_uri":              text("metrics.path"),
		"plugin_attr.prometheus.export_addr":             address("metrics.listen", "127.0.0.1", 9091),
		"plugin_attr.prometheus.enable_export_server":    flag("metrics.enabled"),
		"plugin_attr.prometheus.metric_prefix":           only("the prefix is always apisix_", "apisix_"),
		"deployment.role":                                ignored, // importer.deployment
		"deployment.role_traditional.config_provider":    ignored,
		"deployment.role_data_plane.config_provider":     ignored,
		"deployment.role_control_plane.config_provider":  ignored,
		"deployment.admin.admin_key_required":            flag("admin.key_required"),
		"deployment.admin.admin_key":                     adminKeys,
		"deployment.admin.enable_admin_cors":             flag("admin.cors"),
		"deployment.admin.allow_admin":                   allowAdmin,
		"deployment.admin.admin_listen":                  address("admin.listen", "0.0.0.0", 9180),
		"deployment.admin.admin_api_version":             only("the Admin API answers in version 3", "v3"),
		"deployment.etcd.host":                           texts("store.etcd.endpoints"),
		"deployment.etcd.prefix":                         text("store.etcd.prefix"),
		"deployment.etcd.timeout":                        span("store.etcd.timeout"),
		"deployment.etcd.startup_retry":                  number("store.etcd.startup_retry"),
		"deployment.etcd.user":                           text("store.etcd.user"),
		"deployment.etcd.password":                       secret("store.etcd.password"),
		"deployment.etcd.tls.cert":                       text("store.etcd.tls_cert"),
		"deployment.etcd.tls.key":                        text("store.etcd.tls_key"),
		"deployment.etcd.tls.verify":                     flag("store.etcd.tls_verify"),
		"deployment.etcd.tls.sni":                        text("store.etcd.tls_server_name"),
	}
	for why, keys := range map[string][]string{
		"plugins are configured on routes; there is no list that enables them": {"plugins"},
		noStream:     {"stream_plugins", "apisix.stream_proxy", "nginx_config.stream", "xrpc"},
		noLua:        {"nginx_config.http.lua_shared_dict", "nginx_config.meta", "apisix.extra_lua_path", "apisix.extra_lua_cpath", "apisix.lua_module_hook", "apisix.lru", "wasm", "ext-plugin"},
		noAdminTLS:   {"deployment.admin.https_admin", "deployment.admin.admin_api_mtls"},
		onePlane:     {"apisix.enable_reuseport", "nginx_config.worker_processes", "nginx_config.enable_cpu_affinity", "apisix.worker_startup_time_threshold", "apisix.events"},
		resolverNote: {"apisix.resolver_timeout", "apisix.enable_resolv_search_opt"},
		"the watch of etcd ends and recovers by itself": {"deployment.etcd.watch_timeout", "deployment.etcd.resync_delay", "deployment.etcd.health_check_timeout"},
		"cipher suites are chosen by the TLS library":   {"apisix.ssl.ssl_ciphers"},
		"the PROXY protocol is not understood":          {"apisix.proxy_protocol"},
		"Headgate has no dashboard inside":              {"deployment.admin.enable_admin_ui"},
		noDiscovery: {
			"discovery.consul", "discovery.consul_kv", "discovery.eureka", "discovery.kubernetes", "discovery.nacos", "discovery.tars",
		},
		dnsOrder: {"discovery.dns.order"},
		"name the servers in discovery.dns.servers":                         {"discovery.dns.resolv_conf"},
		"metrics are always current":                                        {"plugin_attr.prometheus.refresh_interval"},
		"the environment is Headgate's own, name nothing here":              {"nginx_config.envs"},
		"the log goes to the standard error output":                         {"nginx_config.error_log", "nginx_config.error_log_level"},
		"connections are bounded by gateway.max_connections, if you set it": {"nginx_config.event", "nginx_config.worker_rlimit_nofile"},
	} {
		for _, key := range keys {
			m[key] = func(*importer, string, any) string { return why }
		}
	}
	for _, key := range []string{
		"main_configuration_snippet", "http_configuration_snippet", "http_server_configuration_snippet", "http_server_location_configuration_snippet",
		"http_admin_configuration_snippet", "http_end_configuration_snippet", "stream_configuration_snippet", "user", "max_pending_timers", "max_running_timers",
	} {
		m["nginx_config."+key] = func(_ *importer, _ string, v any) string {
			if v == "" || v == nil {
				return ""
			}
			return noNginx
		}
	}
	return m
}
