// Package realip is the real-ip plugin: it takes the client's address from what a proxy in front of the gateway says (contract section
// 4.4). Whatever runs behind it, and the upstream, see the new address.
package realip

import (
	"bytes"
	_ "embed"
	"errors"
	"net/netip"
	"strings"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// Source is the variable that has the address, with or without a port: http_x_client, arg_ip. Of http_x_forwarded_for the last
	// element counts.
	Source string
	// TrustedAddresses are addresses and networks whose word is taken; none: everybody's.
	TrustedAddresses []string
	// Recursive passes over trusted addresses at the end of X-Forwarded-For.
	Recursive bool
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "real-ip",
		Priority: 23000,
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
	doc, _ := v.(map[string]any)
	c.Source, _ = doc["source"].(string)
	c.Recursive, _ = doc["recursive"].(bool)
	items, _ := doc["trusted_addresses"].([]any)
	for _, item := range items {
		s, _ := item.(string)
		c.TrustedAddresses = append(c.TrustedAddresses, s)
	}
	return c, nil
}

func validate(conf []byte) error {
	_, err := build(conf, nil)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{recursive: c.Recursive}
	p.source, _ = vars.Parse(c.Source) // an unknown one never has a value
	p.list = strings.EqualFold(strings.ReplaceAll(c.Source, "-", "_"), "http_x_forwarded_for")
	for _, text := range c.TrustedAddresses {
		n, ok := parsePrefix(text)
		if !ok {
			return nil, errors.New("invalid ip address: " + text)
		}
		p.trusted = append(p.trusted, n)
	}
	return p, nil
}

func parsePrefix(text string) (netip.Prefix, bool) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), err == nil && a.Zone() == ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// plugin is immutable.
type plugin struct {
	source vars.Var
	// list says that the source is X-Forwarded-For.
	list, recursive bool
	trusted         []netip.Prefix // proxies are few; empty: everybody is trusted
}

// Rewrite implements phase.Rewriter. An address that is missing or cannot be read changes nothing.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if len(p.trusted) > 0 && !p.trusts(x.Client.Addr) {
		return phase.Continue
	}
	value, ok := p.source.Append(x.Arena(), x)
	if !ok {
		return phase.Continue
	}
	text := x.Commit(value)
	if p.list {
		text = p.pick(text, x.Client.Text)
	}
	if a, port, ok := parseClient(text); ok {
		adopt(x, a, port)
	}
	return phase.Continue
}

// pick returns the element of X-Forwarded-For that counts. The last one is the gateway's own addition, the address that it has seen.
func (p *plugin) pick(list, seen []byte) []byte {
	rest, last := cutLast(list)
	if bytes.Equal(last, seen) {
		list = rest
	}
	for {
		rest, last = cutLast(list)
		if !p.recursive || len(p.trusted) == 0 || len(rest) == 0 {
			return last
		}
		if a, _, ok := parseClient(last); !ok || !p.trusts(a) {
			return last
		}
		list = rest
	}
}

// cutLast cuts the last element off a list with commas.
func cutLast(list []byte) (rest, last []byte) {
	comma := bytes.LastIndexByte(list, ',')
	return bytes.TrimRight(list[:max(comma, 0)], " \t"), bytes.Trim(list[comma+1:], " \t")
}

func (p *plugin) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range p.trusted {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

var (
	nameRealIP       = []byte("X-Real-IP")
	nameForwardedFor = []byte("X-Forwarded-For")
)

// adopt makes a the client's address, for the gateway and in the lines by which the upstream learns of it.
func adopt(x *phase.Exchange, a netip.Addr, port uint16) {
	c, h := &x.Client, &x.Request.Header
	seen := c.Text
	c.Addr, c.Port = a, port
	c.Text = x.Commit(a.AppendTo(x.Arena()))
	h.Set(nameRealIP, c.Text)
	list, ok := h.Get("X-Forwarded-For")
	if !ok {
		return
	}
	rest, last := cutLast(list)
	switch {
	case !bytes.Equal(last, seen): // nothing was added
	case len(rest) == 0:
		h.Set(nameForwardedFor, c.Text)
	default:
		b := append(append(x.Arena(), rest...), ", "...)
		h.Set(nameForwardedFor, x.Commit(append(b, c.Text...)))
	}
}

var _ phase.Rewriter = (*plugin)(nil)
