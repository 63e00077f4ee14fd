// Package redirect is the redirect plugin: it sends the client to another address (contract section 4.4 and the corrections of
// apisix-observed).
package redirect

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase"
	"headgate/proxy/phase/rewrite"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes: one of URI, RegexURI and HTTPToHTTPS.
type Config struct {
	// RetCode is the status; HTTPToHTTPS has its own.
	RetCode int
	// URI is a template for the address.
	URI string
	// RegexURI has a PCRE pattern for the client's path and a replacement with $1, $2, ...; a path that doesn't match goes on.
	RegexURI []string
	// HTTPToHTTPS sends clients that came without TLS to the same address with it, on the gateway's own TLS port, or on 443 when it
	// has none.
	HTTPToHTTPS bool
	// EncodeURI percent-encodes the path of the address.
	EncodeURI bool
	// AppendQueryString adds the client's query.
	AppendQueryString bool
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "redirect",
		Priority: 900,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

var (
	//lint:ignore ST1005 the contract's text
	errAppend      = errors.New("only one of `http_to_https` and `append_query_string` can be configured.")
	errReplacement = errors.New("invalid capturing variable in the replacement")
)

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c.RetCode = 302
	if n, ok := split.Integer(doc["ret_code"]); ok {
		c.RetCode = int(n)
	}
	c.URI, _ = doc["uri"].(string)
	c.HTTPToHTTPS, _ = doc["http_to_https"].(bool)
	c.EncodeURI, _ = doc["encode_uri"].(bool)
	c.AppendQueryString, _ = doc["append_query_string"].(bool)
	pair, _ := doc["regex_uri"].([]any)
	for _, item := range pair {
		s, _ := item.(string)
		c.RegexURI = append(c.RegexURI, s)
	}
	if c.HTTPToHTTPS && c.AppendQueryString {
		err = errAppend
	}
	return c, err
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
	p := &plugin{status: c.RetCode, toHTTPS: c.HTTPToHTTPS, encode: c.EncodeURI, appendQuery: c.AppendQueryString}
	switch {
	case c.HTTPToHTTPS:
		if p.uri, err = vars.Compile("https://$host"); err == nil {
			p.rest, err = vars.Compile("$request_uri")
		}
	case c.URI != "":
		p.uri, err = vars.Compile(c.URI)
	case len(c.RegexURI) == 2:
		p.regex, err = rewrite.NewSubstitution(c.RegexURI[0], c.RegexURI[1])
		if errors.Is(err, rewrite.ErrReplacement) {
			err = errReplacement
		}
		if err != nil {
			err = fmt.Errorf("invalid regex_uri (%s, %s), err:%w", c.RegexURI[0], c.RegexURI[1], err)
		}
	}
	return p, err
}

// plugin is immutable. Without uri and regex it does nothing.
type plugin struct {
	status  int
	uri     *vars.Template
	rest    *vars.Template // behind the port, of toHTTPS
	regex   *rewrite.Substitution
	toHTTPS bool

	encode, appendQuery bool
}

var nameLocation = []byte("Location")

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	status, address, err := p.answer(x)
	switch {
	case status == 0:
		return phase.Continue
	case err == nil:
		x.Response.Header.Set(nameLocation, address)
	}
	x.AnswerPage(status)
	return phase.Stop
}

// answer returns with which status and address the client is answered; status 0 is not at all, and after an error there is no address.
func (p *plugin) answer(x *phase.Exchange) (status int, address []byte, err error) {
	status = p.status
	switch {
	case p.uri == nil && p.regex == nil, p.toHTTPS && secure(x):
		return 0, nil, nil
	case p.toHTTPS:
		status = 308 // keeps method and body
		if m := string(x.Request.Method); m == "GET" || m == "HEAD" {
			status = 301
		}
	}
	address, ok, err := p.address(x)
	switch {
	case err != nil:
		return 500, nil, err
	case !ok:
		return 0, nil, nil
	}
	return status, address, nil
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	status, address, err := p.answer(x)
	switch {
	case status == 0:
		return nil
	case err != nil:
		return &phase.Foretold{Status: status, Share: 1, Why: "the pattern of regex_uri takes too long"}
	}
	return &phase.Foretold{Status: status, Share: 1, Why: "it sends the client to " + string(address)}
}

// secure says whether the client came over TLS. The line is the gateway's own word, or that of a peer it trusts.
func secure(x *phase.Exchange) bool {
	if proto, ok := x.Request.Header.Get("X-Forwarded-Proto"); ok {
		return string(proto) != "http"
	}
	return x.Request.TLS
}

// address returns where the client should go; false when the path does not match.
func (p *plugin) address(x *phase.Exchange) (address []byte, ok bool, err error) {
	b := x.Arena()
	start := len(b)
	if p.uri != nil {
		b, _ = p.uri.Append(b, x)
		if p.rest != nil {
			if port := x.Settings().HTTPSPort; port != 0 && port != 443 {
				b = strconv.AppendUint(append(b, ':'), uint64(port), 10)
			}
			b, _ = p.rest.Append(b, x)
		}
	} else {
		var groups [expr.MaxGroups][]byte
		var n int
		if b, n, err = p.regex.Append(b, x.Request.Path, &groups); n == 0 {
			return nil, false, err
		}
	}
	from := len(b)
	b = p.appendLocation(b, b[start:from], x.Request.Query)
	if built := b[from:]; !harmless(built) {
		from = len(b)
		b = appendHarmless(b, built)
	}
	return x.Commit(b)[from-start:], true, nil
}

// appendLocation completes the address raw. Its first "?" starts a query, which is never encoded.
func (p *plugin) appendLocation(dst, raw, query []byte) []byte {
	separator := byte('?')
	path, own := raw, []byte(nil)
	if i := bytes.IndexByte(raw, '?'); i >= 0 {
		path, own, separator = raw[:i], raw[i:], '&'
	}
	if p.encode {
		dst = wire.AppendPath(dst, path)
	} else {
		dst = append(dst, path...)
	}
	dst = append(dst, own...)
	if p.appendQuery && len(query) > 0 {
		dst = append(append(dst, separator), query...)
	}
	return dst
}

// harmless says whether b can be the value of a header line and means to browsers what it says: they take a backslash for a slash, with
// which a path would become the name of a host.
func harmless(b []byte) bool {
	return wire.ValidValue(b) && bytes.IndexByte(b, '\\') < 0
}

// appendHarmless percent-encodes what is not. Decoded variables bring it along.
func appendHarmless(dst, b []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range b {
		if c < ' ' || c == 0x7f || c == '\\' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

var (
	_ phase.Rewriter = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
