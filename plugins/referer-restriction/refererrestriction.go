// Package refererrestriction is the referer-restriction plugin: it lets requests pass by the host of the page that they come from (contract
// section 4.4). Browsers say that in Referer (RFC 9110 section 10.1.3); others can write there what they like.
package refererrestriction

import (
	"bytes"
	_ "embed"
	"errors"
	"strings"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes: one of the two lists.
type Config struct {
	// Whitelist and Blacklist hold names of hosts, or their endings behind a "*". Letters of both cases are equal.
	Whitelist, Blacklist []string
	// BypassMissing lets requests pass that have no header or one that is no address.
	BypassMissing bool
	// Message goes to those who are refused.
	Message string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "referer-restriction",
		Priority: 2990,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c.Whitelist, c.Blacklist = schema.Texts(doc, "whitelist"), schema.Texts(doc, "blacklist")
	c.BypassMissing, _ = doc["bypass_missing"].(bool)
	c.Message = "Your referer host is not allowed"
	if s, ok := doc["message"].(string); ok {
		c.Message = s
	}
	if len(c.Whitelist) == 0 && len(c.Blacklist) == 0 {
		err = errors.New("neither whitelist nor blacklist has a host")
	}
	return c, err
}

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{deny: len(c.Whitelist) == 0, bypassMissing: c.BypassMissing, names: make(map[string]struct{})}
	list := c.Whitelist
	if p.deny {
		list = c.Blacklist
	}
	for _, host := range list {
		host = strings.ToLower(host)
		if ending, ok := strings.CutPrefix(host, "*"); ok {
			p.endings = append(p.endings, ending)
		} else {
			p.names[host] = struct{}{}
		}
	}
	p.body = phase.MessageBody("message", c.Message)
	return p, nil
}

// plugin is immutable.
type plugin struct {
	names   map[string]struct{}
	endings []string
	// deny says that the listed hosts are refused; otherwise only they pass.
	deny, bypassMissing bool
	body                []byte
}

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	if p.passes(x) {
		return phase.Continue
	}
	x.Answer(403, phase.TypeText, p.body)
	return phase.Stop
}

func (p *plugin) passes(x *phase.Exchange) bool {
	var referer []byte
	lines := 0
	for _, f := range x.Request.Header.Fields() {
		if phase.EqualName(f.Name, "referer") {
			referer = f.Value
			lines++
		}
	}
	var lower [maxHost]byte
	host := appendHost(lower[:0], referer)
	if lines > 1 { // no browser sends two
		return false
	}
	if len(host) == 0 {
		return p.bypassMissing
	}
	return p.lists(host) != p.deny
}

func (p *plugin) lists(host []byte) bool {
	if _, ok := p.names[string(host)]; ok {
		return true
	}
	for _, ending := range p.endings {
		if len(host) >= len(ending) && string(host[len(host)-len(ending):]) == ending {
			return true
		}
	}
	return false
}

// maxHost is the longest name of a host (RFC 1035 section 2.3.4).
const maxHost = 255

// appendHost appends the host of an absolute http or https address, in lower case; an IPv6 address keeps its brackets. What is no such
// address gives nothing.
func appendHost(dst, address []byte) []byte {
	rest, ok := cutPrefixFold(address, "http:")
	if !ok {
		rest, ok = cutPrefixFold(address, "https:")
	}
	if !ok {
		rest = address // without a scheme it is as good as one with
	}
	if rest, ok = bytes.CutPrefix(rest, []byte("//")); !ok {
		return dst
	}
	if i := bytes.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	rest = rest[bytes.LastIndexByte(rest, '@')+1:]
	if i := bytes.LastIndexByte(rest, ':'); i > bytes.LastIndexByte(rest, ']') {
		rest = rest[:i]
	}
	if len(rest) > maxHost {
		return dst
	}
	for _, c := range rest {
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case c <= ' ' || c == 0x7f || c == ',':
			return dst[:0]
		}
		dst = append(dst, c)
	}
	return dst
}

func cutPrefixFold(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || !phase.EqualName(b[:len(prefix)], prefix) {
		return b, false
	}
	return b[len(prefix):], true
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if p.passes(x) {
		return nil
	}
	return &phase.Foretold{Status: 403, Share: 1, Why: "the Referer is refused"}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
