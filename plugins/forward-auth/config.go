package forwardauth

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

// config is what the operator writes.
type config struct {
	uri    *url.URL
	method string
	// pass lets requests through that the service cannot be asked about; else they are answered with errorStatus.
	pass        bool
	errorStatus int
	verify      bool
	// Names of header lines, in canonical form.
	request, upstream, client []string
	extra                     []extraLine
	// consumer is the line that names the consumer, "" for none.
	consumer string
	timeout  time.Duration
	// keep is the number of idle connections that are kept for idle, 0 for none.
	keep int
	idle time.Duration
}

// extraLine is a line for the service.
type extraLine struct {
	name  string
	value *vars.Template
}

var errURI = errors.New(`property "uri" validation failed: not an address that begins with http:// or https://`)

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func read(conf []byte) (*config, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	c := &config{method: http.MethodGet, verify: true}
	text, _ := doc["uri"].(string)
	if c.uri, err = url.Parse(text); err != nil || c.uri.Scheme != "http" && c.uri.Scheme != "https" || c.uri.Hostname() == "" {
		return nil, errURI
	}
	if s, ok := doc["request_method"].(string); ok {
		c.method = s
	}
	if b, ok := doc["ssl_verify"].(bool); ok {
		c.verify = b
	}
	c.pass, _ = doc["allow_degradation"].(bool)
	c.errorStatus = number(doc, "status_on_error", 403)
	c.timeout = time.Duration(number(doc, "timeout", 3000)) * time.Millisecond
	c.idle = time.Duration(min(number(doc, "keepalive_timeout", 60000), 1<<31)) * time.Millisecond
	c.keep = number(doc, "keepalive_pool", 5)
	if b, ok := doc["keepalive"].(bool); ok && !b {
		c.keep = 0
	}
	for _, list := range []struct {
		member string
		names  *[]string
	}{{"request_headers", &c.request}, {"upstream_headers", &c.upstream}, {"client_headers", &c.client}} {
		items, _ := doc[list.member].([]any)
		for _, item := range items {
			name, _ := item.(string)
			if name, err = lineName(list.member, name); err != nil {
				return nil, err
			}
			*list.names = append(*list.names, name)
		}
	}
	if name, ok := doc["consumer_header"].(string); ok {
		if c.consumer, err = lineName("consumer_header", name); err != nil {
			return nil, err
		}
	}
	lines, _ := doc["extra_headers"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		value, _ := lines[name].(string)
		l := extraLine{}
		if l.name, err = lineName("extra_headers", name); err != nil {
			return nil, err
		}
		if l.value, err = vars.Compile(value); err != nil {
			return nil, fmt.Errorf("property %q validation failed: %w", "extra_headers", err)
		}
		c.extra = append(c.extra, l)
	}
	return c, nil
}

func number(doc map[string]any, member string, otherwise int) int {
	if n, ok := split.Integer(doc[member]); ok {
		return int(n)
	}
	return otherwise
}

func lineName(member, name string) (string, error) {
	if !wire.ValidName([]byte(name)) {
		return "", fmt.Errorf("property %q validation failed: %q is not the name of a header line", member, name)
	}
	return http.CanonicalHeaderKey(name), nil
}
