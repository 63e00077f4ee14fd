package conf

import (
	"reflect"
	"strings"
)

// unknownKey says that name is not a key of the table at path and what was probably meant.
func unknownKey(path, name string, table reflect.Type) string {
	if ours := apisixName(name); ours != "" {
		return unknown + "; what APISIX calls " + name + " is " + ours + " here"
	}
	known := fieldNames(table)
	if path == "" && nearest(name, known) == "" {
		if homes := sectionsWith(name, table); len(homes) > 0 {
			return unknown + " outside a section, did you mean " + strings.Join(homes, " or ") + "?"
		}
	}
	return UnknownKey(path, name, known)
}

const unknown = "unknown key"

// UnknownKey says that name is not among the known keys of the table at path, and which of them was probably meant.
func UnknownKey(path, name string, known []string) string {
	if hint := DidYouMean(path, name, known); hint != "" {
		return unknown + hint
	}
	return unknown + "; known here: " + strings.Join(known, ", ")
}

// DidYouMean asks for the known key of the table at path that name is probably a misspelling of; "" when there is none.
func DidYouMean(path, name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return ", did you mean " + childKey(path, best) + "?"
	}
	return ""
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			names = append(names, f.Tag.Get("toml"))
		}
	}
	return names
}

// sectionsWith lists the sections of the file that have a key called name.
func sectionsWith(name string, config reflect.Type) []string {
	var out []string
	for i := range config.NumField() {
		f := config.Field(i)
		if !f.IsExported() || f.Type.Kind() != reflect.Struct {
			continue
		}
		if _, ok := fieldByName(f.Type, name); ok {
			out = append(out, f.Tag.Get("toml")+"."+name)
		}
	}
	return out
}

// nearest returns the candidate that name most probably is a misspelling of, or "".
func nearest(name string, candidates []string) string {
	// A third of the letters may differ. Longer names are not worth a matrix.
	if len(name) > 64 {
		return ""
	}
	best, limit := "", len(name)/3+1
	for _, c := range candidates {
		if n := editDistance(strings.ToLower(name), c); n < limit {
			best, limit = c, n
		}
	}
	return best
}

// editDistance counts the insertions, deletions and replacements of bytes between a and b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 0; i < len(a); i++ {
		diagonal := row[0]
		row[0] = i + 1
		for j := 0; j < len(b); j++ {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// apisixName translates the keys of APISIX's config.yaml (contract section 6) that people will try first.
func apisixName(name string) string {
	switch name {
	case "node_listen":
		return "gateway.listen"
	case "show_upstream_status_in_response_header":
		return "gateway.show_upstream_status"
	case "client_max_body_size":
		return "gateway.max_body_size"
	case "keepalive_timeout":
		return "gateway.idle_timeout"
	case "client_body_buffer_size":
		return "gateway.body_buffer"
	case "client_header_timeout":
		return "gateway.header_timeout"
	case "client_body_timeout":
		return "gateway.body_timeout"
	case "admin_listen":
		return "admin.listen"
	case "admin_key":
		return "[[admin.keys]]"
	case "admin_key_required":
		return "admin.key_required"
	case "allow_admin":
		return "admin.allow"
	case "enable_admin":
		return "admin.enabled"
	case "enable_admin_cors":
		return "admin.cors"
	case "enable_control":
		return "control.enabled"
	case "config_provider":
		return "store.provider"
	case "access_log_format":
		return "access_log.format"
	case "ssl_trusted_certificate":
		return "upstream.ca_file"
	case "max_post_args_readable_size":
		return "gateway.max_post_args_size"
	case "data_encryption":
		return "store.encryption"
	case "dns_resolver_valid":
		return "upstream.dns_max_ttl"
	case "dns_resolver":
		return "upstream.dns_servers"
	}
	return ""
}
