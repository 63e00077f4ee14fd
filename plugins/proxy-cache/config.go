package proxycache

import (
	"fmt"
	"strings"
	"time"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// config is what the operator writes (contract section 4.4, proxy-cache), with the defaults filled in.
type config struct {
	zone         *zone
	key          []keyPart
	statuses     statusSet
	methods      methodSet
	hide         bool // hide_cache_headers
	control      bool // cache_control
	bypass, skip []keyPart
	ttl          time.Duration
	isolate      bool // consumer_isolation
	cookies      bool // cache_set_cookie
	maxBody      int64
}

// The defaults of members that are not plain zeros.
const (
	defaultZone    = "disk_cache_one"
	defaultTTL     = 300 * time.Second
	defaultMaxBody = 64 << 20
)

// maxTTL bounds how long an answer is kept, in seconds: 68 years (RFC 9111 section 1.2.2).
const maxTTL = 1<<31 - 1

func (c *Cache) validate(conf []byte) error {
	_, err := c.read(conf)
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func (c *Cache) read(conf []byte) (config, error) {
	out := config{ttl: defaultTTL, maxBody: defaultMaxBody}
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return out, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	for _, name := range texts(doc["cache_key"], "$host", "$request_uri") {
		if name == "$request_method" {
			return out, fmt.Errorf("cache_key variable %s unsupported", name)
		}
		out.key = append(out.key, parsePart(name))
	}
	for _, name := range texts(doc["cache_bypass"]) {
		out.bypass = append(out.bypass, parsePart(name))
	}
	for _, name := range texts(doc["no_cache"]) {
		out.skip = append(out.skip, parsePart(name))
	}
	for _, name := range texts(doc["cache_method"], "GET", "HEAD") {
		out.methods.add(name)
	}
	if list, ok := doc["cache_http_status"].([]any); ok {
		for _, s := range list {
			n, _ := split.Integer(s)
			out.statuses.add(int(n))
		}
	} else {
		for _, s := range [...]int{200, 301, 404} {
			out.statuses.add(s)
		}
	}
	out.hide, out.control, out.cookies = doc["hide_cache_headers"] == true, doc["cache_control"] == true, doc["cache_set_cookie"] == true
	out.isolate = doc["consumer_isolation"] != false
	if n, ok := split.Integer(doc["cache_ttl"]); ok {
		out.ttl = time.Duration(min(int64(n), maxTTL)) * time.Second
	}
	if n, ok := split.Integer(doc["max_resp_body_size"]); ok {
		out.maxBody = int64(n)
	}
	strategy, name := "disk", defaultZone
	if s, ok := doc["cache_strategy"].(string); ok {
		strategy = s
	}
	if s, ok := doc["cache_zone"].(string); ok {
		name = s
	}
	out.zone = c.zones[name]
	switch {
	case out.zone == nil:
		return out, fmt.Errorf("cache_zone %s not found", name)
	case out.zone.Path == "" != (strategy == "memory"):
		return out, fmt.Errorf("invalid or empty cache_zone for cache_strategy: %s", strategy)
	}
	return out, nil
}

func texts(v any, otherwise ...string) []string {
	list, ok := v.([]any)
	if !ok {
		return otherwise
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// keyPart is an element of cache_key, cache_bypass or no_cache: a text, or a variable.
type keyPart struct {
	text  string // "" for a variable
	v     vars.Var
	path  bool // the variable has the path in it,
	query bool // and the query
}

func parsePart(s string) keyPart {
	name, variable := strings.CutPrefix(s, "$")
	if !variable {
		return keyPart{text: s}
	}
	v, _ := vars.Parse(name) // one that is not known never has a value
	id := v.ID()
	return keyPart{v: v, path: id == vars.URI || id == vars.RequestURI, query: id == vars.RequestURI}
}

// holds says whether the values of parts, one behind the other, are neither empty nor "0".
func holds(parts []keyPart, x *phase.Exchange, scratch []byte) bool {
	zeros := 0
	for i := range parts {
		p := &parts[i]
		if p.text != "" {
			if p.text != "0" {
				return true
			}
			zeros++
			continue
		}
		switch value, ok := p.v.Value(scratch[:0], x); {
		case !ok || len(value) == 0:
		case string(value) != "0":
			return true
		default:
			zeros++
		}
	}
	return zeros > 1 // "00"
}

// statusSet is a set of statuses below 640.
type statusSet [10]uint64

func (s *statusSet) add(status int) {
	if status >= 0 && status < 64*len(s) {
		s[status>>6] |= 1 << (status & 63)
	}
}

func (s *statusSet) has(status int) bool {
	return status >= 0 && status < 64*len(s) && s[status>>6]>>(status&63)&1 != 0
}

// methodSet is which of the methods that can be kept are.
type methodSet struct{ get, head, post bool }

func (m *methodSet) add(name string) {
	switch name {
	case "GET":
		m.get = true
	case "HEAD":
		m.head = true
	case "POST":
		m.post = true
	}
}

func (m *methodSet) has(method []byte) bool {
	switch string(method) {
	case "GET":
		return m.get
	case "HEAD":
		return m.head
	case "POST":
		return m.post
	}
	return false
}

// safe: methods that change nothing (RFC 9110 section 9.2.1). Of an unknown one the opposite is taken to be true.
func safe(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}
