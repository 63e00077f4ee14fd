package apisix

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"headgate/conf"
	"headgate/proxy/vars"
)

// address carries {ip, port}.
func address(key, ip string, port int) rule {
	return func(im *importer, at string, v any) string {
		m, ok := v.(map[string]any)
		if !ok {
			if v == nil {
				return ""
			}
			return wrongType
		}
		host, why := hostPort(m, ip, strconv.Itoa(port))
		if why == "" {
			im.set(key, at, host)
		}
		return why
	}
}

// hostPort joins the members ip and port of m.
func hostPort(m map[string]any, ip, port string) (out, why string) {
	if v, ok := m["ip"]; ok {
		ip, _ = scalar(v)
	}
	if v, ok := m["port"]; ok {
		port, _ = scalar(v)
	}
	if ip, why = expanded(ip); why != "" {
		return "", why
	}
	if port, why = expanded(port); why != "" {
		return "", why
	}
	return net.JoinHostPort(strings.Trim(ip, "[]"), port), ""
}

func nodeListen(im *importer, at string, v any) string {
	return listeners(im, at, v, "gateway.listen", "9080", "HTTP/2 is offered over TLS only, and HTTP/3 is not", "enable_http2", "enable_http3")
}

// sslListen carries the TLS listeners, unless TLS is switched off.
func sslListen(im *importer, at string, v any) string {
	if im.lookup("apisix", "ssl", "enable") == false {
		return ""
	}
	return listeners(im, at, v, "gateway.tls.listen", "9443", "HTTP/3 is not offered to clients", "enable_http3")
}

// sslProtocols carries the lowest version.
func sslProtocols(im *importer, at string, v any) string {
	s, ok := scalar(v)
	if !ok {
		return wrongType
	}
	lowest := ""
	for _, version := range strings.Fields(s) {
		switch version {
		case "TLSv1.2":
			lowest = conf.TLS12
		case "TLSv1.3":
			if lowest == "" {
				lowest = conf.TLS13
			}
		default:
			im.note(at, version+" is not offered; an ssl resource may still ask for TLSv1.1")
		}
	}
	if lowest != "" {
		im.set("gateway.tls.min_version", at, lowest)
	}
	return ""
}

// listeners carries a list of ports or of {ip, port}. Members that ask for what is not offered get a note.
func listeners(im *importer, at string, v any, key, port, missing string, asks ...string) string {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	ip := "" // every address of the machine
	if six := im.lookup("apisix", "enable_ipv6"); six == false {
		ip = "0.0.0.0"
	}
	var addresses []string
	for i, e := range items {
		m, ok := e.(map[string]any)
		if !ok {
			m = map[string]any{"port": e}
		}
		for _, member := range asks {
			if m[member] == true {
				im.note(fmt.Sprintf("%s[%d]", at, i), missing)
				break
			}
		}
		a, why := hostPort(m, ip, port)
		if why != "" {
			return why
		}
		addresses = append(addresses, a)
	}
	im.set(key, at, addresses)
	return ""
}

func status(im *importer, at string, v any) string {
	if m, ok := v.(map[string]any); !ok || len(m) == 0 {
		return ""
	}
	im.set("status.enabled", at, true)
	return address("status.listen", "127.0.0.1", 7085)(im, at, v)
}

func trustedCertificate(im *importer, at string, v any) string {
	if v == nil || v == "system" {
		return ""
	}
	if s, _ := scalar(v); strings.Contains(s, ",") {
		return "one file with all authorities is expected here"
	}
	if hosts, _ := list(im.lookup("deployment", "etcd", "host")); len(hosts) > 0 && strings.HasPrefix(hosts[0], "https:") {
		if why := text("store.etcd.tls_ca")(im, at, v); why != "" {
			return why
		}
	}
	return text("upstream.ca_file")(im, at, v)
}

func keyring(im *importer, at string, v any) string {
	if v == nil {
		return ""
	}
	items, why := list(v)
	for _, s := range items {
		if strings.HasPrefix(s, "file:") {
			return "a key begins with file:, which names a file here: write it by hand, into a file"
		}
	}
	if why == "" {
		im.set("store.encryption.keyring", at, items)
	}
	return why
}

// trusted joins the lists of real_ip_from and trusted_addresses, which are one here.
func trusted(im *importer, at string, v any) string {
	if v == nil {
		return ""
	}
	items, why := list(v)
	if why != "" {
		return why
	}
	all, _ := im.get("gateway.trusted_addresses")
	addresses, _ := all.([]string)
	for _, a := range items {
		if a == "unix:" { // clients come by TCP only
			continue
		}
		addresses = append(addresses, a)
	}
	im.set("gateway.trusted_addresses", at, addresses)
	return ""
}

// nameServers carries a list of name servers. Those that are named by a name cannot be asked for anything.
func nameServers(key string) rule {
	return func(im *importer, at string, v any) string {
		if v == nil {
			return ""
		}
		items, why := list(v)
		if why == "" {
			im.set(key, at, items)
		}
		return why
	}
}

// resolverValid carries the TTL that stands in the place of every other.
func resolverValid(im *importer, at string, v any) string {
	for _, key := range []string{"upstream.dns_min_ttl", "upstream.dns_max_ttl", "upstream.dns_refresh"} {
		if why := span(key)(im, at, v); why != "" {
			return why
		}
	}
	return ""
}

func maxBody(im *importer, at string, v any) string {
	if s, _ := scalar(v); s == "0" {
		return "0 lifts the limit in APISIX; here there is always one, set gateway.max_body_size"
	}
	return size("gateway.max_body_size")(im, at, v)
}

func charset(im *importer, at string, v any) string {
	switch s, _ := scalar(v); strings.ToLower(s) {
	case "utf-8":
		im.set("compat.response_charset", at, true)
	case "off", "":
		im.set("compat.response_charset", at, false)
	default:
		return "the only charset that can be added is utf-8"
	}
	return ""
}

func accessLogSwitch(im *importer, at string, v any) string {
	if v == false {
		im.set("access_log.path", at, conf.AccessLogOff)
	}
	return ""
}

func accessLog(im *importer, at string, v any) string {
	s, _ := scalar(v)
	if im.lookup("nginx_config", "http", "enable_access_log") == false {
		return ""
	}
	switch {
	case s == "/dev/stdout":
		im.set("access_log.path", at, conf.AccessLogStdout)
		return ""
	case s == "off":
		im.set("access_log.path", at, conf.AccessLogOff)
		return ""
	case strings.HasPrefix(s, "/") && s != "/dev/stderr":
		return text("access_log.path")(im, at, v)
	}
	return "is not an absolute path of a file: set access_log.path"
}

// variable is a reference in a log format.
var variable = regexp.MustCompile(`\$(?:\{([^}]*)\}|([A-Za-z0-9_]+))`)

func accessLogFormat(im *importer, at string, v any) string {
	s, ok := v.(string)
	if !ok {
		return wrongType
	}
	if strings.Contains(s, "${{") {
		return fromEnviron
	}
	for _, m := range variable.FindAllStringSubmatch(s, -1) {
		if _, known := vars.Parse(m[1] + m[2]); !known {
			return "Headgate's log has no variable $" + m[1] + m[2]
		}
	}
	if _, err := vars.Compile(s); err != nil {
		return err.Error()
	}
	im.set("access_log.format", at, template(s))
	return ""
}

func allowAdmin(im *importer, at string, v any) string {
	items, ok := v.([]any)
	if v == nil || ok && len(items) == 0 {
		return `an empty list admits everybody in APISIX: write admin.allow = ["0.0.0.0/0", "::/0"] if you mean it`
	}
	return texts("admin.allow")(im, at, v)
}

func adminKeys(im *importer, at string, v any) string {
	if v == nil {
		return "APISIX asks for no key then; Headgate makes one, unless admin.key_required is false"
	}
	items, ok := v.([]any)
	if !ok {
		return wrongType
	}
	for i, e := range items {
		from := fmt.Sprintf("%s[%d]", at, i)
		m, _ := e.(map[string]any)
		key, _ := scalar(m["key"])
		name, _ := scalar(m["name"])
		role, _ := scalar(m["role"])
		if role == "" {
			role = conf.RoleAdmin
		}
		switch {
		case m == nil:
			im.note(from, wrongType)
			continue
		case key == "":
			im.note(from, "is empty, APISIX makes a key then: Headgate keeps its own in admin.key_file")
			continue
		case strings.HasPrefix(key, "file:"):
			im.note(from, "begins with file:, which names a file here: write it by hand, into a file")
			continue
		}
		k := adminKey{from: from, role: role}
		var why string
		for _, part := range []struct {
			to   *string
			text string
		}{{&k.key, key}, {&k.name, name}, {&k.role, role}} {
			if *part.to, why = expanded(part.text); why != "" {
				break
			}
		}
		if why != "" {
			im.note(from, why)
			continue
		}
		if k.name == "" {
			k.name = "admin"
		}
		k.name = uniqueName(k.name, im.keys)
		k.variable = refers(k.key) || refers(k.name) || refers(k.role)
		im.keys = append(im.keys, k)
	}
	return ""
}
