package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"headgate/conf/schema"
)

// DecodeRoute returns the typed form of a stored route. The document need not have been validated: every field of a wrong type is an
// error that names the field. raw is not kept.
func DecodeRoute(raw []byte) (*Route, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return RouteFrom(doc)
}

// RouteFrom is DecodeRoute for a document that is decoded already. The route refers to parts of doc, which must not be changed.
func RouteFrom(doc map[string]any) (*Route, error) { return routeFrom(fields{doc: doc}) }

// DecodeService does for services what DecodeRoute does for routes.
func DecodeService(raw []byte) (*Service, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return serviceFrom(doc)
}

// DecodeUpstream does for upstreams what DecodeRoute does for routes.
func DecodeUpstream(raw []byte) (*Upstream, error) {
	doc, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return upstreamFrom(doc)
}

// DecodeObject decodes a stored document of any kind. raw is not kept.
func DecodeObject(raw []byte) (map[string]any, error) {
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, err
	}
	obj, ok := asObject(doc)
	if !ok {
		return nil, errors.New("the document is not an object")
	}
	return obj, nil
}

func routeFrom(f fields) (*Route, error) {
	r := &Route{
		ID: f.id("id"), Name: f.text("name"), Desc: f.text("desc"), Labels: f.labels(),
		URIs:        f.oneOrMany("uri", "uris"),
		Hosts:       f.oneOrMany("host", "hosts"),
		Methods:     f.texts("methods"),
		RemoteAddrs: f.oneOrMany("remote_addr", "remote_addrs"),
		Priority:    f.integer("priority", 0),
		Status:      f.integer("status", 1),
		Plugins:     f.plugins(),
		Upstream:    f.upstream(),
		UpstreamID:  f.id("upstream_id"), ServiceID: f.id("service_id"), PluginConfigID: f.id("plugin_config_id"),
		Timeout:         f.timeout(),
		EnableWebsocket: f.boolean("enable_websocket"),
		FinishAborted:   f.text("on_client_abort") == "finish",
		FilterFunc:      f.text("filter_func"), Script: f.text("script"),
	}
	if vars := f.list("vars"); len(vars) > 0 {
		r.Vars = f.raw("vars", vars)
	}
	return r, f.err
}

func serviceFrom(doc map[string]any) (*Service, error) {
	f := fields{doc: doc}
	s := &Service{
		ID: f.id("id"), Name: f.text("name"), Desc: f.text("desc"), Labels: f.labels(),
		Hosts:           f.texts("hosts"),
		Plugins:         f.plugins(),
		Upstream:        f.upstream(),
		UpstreamID:      f.id("upstream_id"),
		EnableWebsocket: f.boolean("enable_websocket"),
		Script:          f.text("script"),
	}
	return s, f.err
}

// fields reads the members of one object. The first mistake is kept in err, with the path of the member; after it every method
// returns something harmless.
type fields struct {
	doc     map[string]any
	path    string // "upstream." or ""
	judging bool   // only mistakes are of interest: JSON text is not made
	err     error
}

func (f *fields) fail(name, want string) {
	if f.err == nil {
		f.err = fmt.Errorf("%s%s: expected %s", f.path, name, want)
	}
}

func (f *fields) text(name string) string {
	v, ok := f.doc[name]
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		f.fail(name, "a string")
	}
	return s
}

func (f *fields) textOr(name, def string) string {
	if _, ok := f.doc[name]; !ok {
		return def
	}
	return f.text(name)
}

func (f *fields) id(name string) string {
	v, ok := f.doc[name]
	if !ok {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	n, ok := toInt(v)
	if !ok {
		f.fail(name, "a string or an integer")
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func (f *fields) list(name string) []any {
	v, ok := f.doc[name]
	if !ok {
		return nil
	}
	list, ok := asList(v)
	if !ok {
		f.fail(name, "an array")
	}
	return list
}

// object returns the fields of a member, or nil when it is absent. Their first mistake must be handed back with adopt.
func (f *fields) object(name string) *fields {
	v, ok := f.doc[name]
	if !ok {
		return nil
	}
	obj, ok := asObject(v)
	if !ok {
		f.fail(name, "an object")
		return nil
	}
	return &fields{doc: obj, path: f.path + name + ".", judging: f.judging}
}

func (f *fields) adopt(sub *fields) {
	if f.err == nil {
		f.err = sub.err
	}
}

func (f *fields) texts(name string) []string {
	list := f.list(name)
	if len(list) == 0 {
		return nil
	}
	texts := make([]string, len(list))
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			f.fail(name, "strings")
		}
		texts[i] = s
	}
	return texts
}

func (f *fields) oneOrMany(one, many string) []string {
	if _, ok := f.doc[one]; ok {
		return append([]string{f.text(one)}, f.texts(many)...)
	}
	return f.texts(many)
}

func (f *fields) boolean(name string) *bool {
	v, ok := f.doc[name]
	if !ok {
		return nil
	}
	b, ok := v.(bool)
	if !ok {
		f.fail(name, "true or false")
		return nil
	}
	return &b
}

// integer refuses what a double can't hold exactly; the contract's numbers are doubles.
func (f *fields) integer(name string, def int) int {
	v, ok := f.doc[name]
	if !ok {
		return def
	}
	n, ok := toInt(v)
	if !ok || n < -1<<53 || n > 1<<53 {
		f.fail(name, "an integer of at most 53 bits")
		return def
	}
	return int(n)
}

// maxSeconds is the longest time that a document can ask for, some 30 years.
const maxSeconds = 1e9

func (f *fields) seconds(name string, def float64) float64 {
	v, ok := f.doc[name]
	if !ok {
		return def
	}
	n, ok := v.(json.Number)
	s, err := strconv.ParseFloat(string(n), 64)
	if !ok || err != nil || s < 0 || s > maxSeconds {
		f.fail(name, "a number of seconds between 0 and 1e9")
		return def
	}
	return s
}

func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

func (f *fields) timeout() *Timeout {
	sub := f.object("timeout")
	if sub == nil {
		return nil
	}
	clock := func(name string) time.Duration {
		if _, ok := sub.doc[name]; !ok {
			sub.fail(name, "a number of seconds")
		}
		return max(duration(sub.seconds(name, 0)), time.Millisecond)
	}
	t := &Timeout{Connect: clock("connect"), Send: clock("send"), Read: clock("read")}
	for name, d := range map[string]*time.Duration{"handshake": &t.Handshake, "head": &t.Head, "first_content": &t.FirstContent, "total": &t.Total} {
		if _, ok := sub.doc[name]; ok {
			*d = clock(name)
		}
	}
	f.adopt(sub)
	return t
}

func (f *fields) labels() map[string]string {
	sub := f.object("labels")
	if sub == nil || len(sub.doc) == 0 {
		return nil
	}
	labels := make(map[string]string, len(sub.doc))
	for _, name := range sortedKeys(sub.doc) {
		labels[name] = sub.text(name)
	}
	f.adopt(sub)
	return labels
}

func (f *fields) plugins() []Plugin {
	sub := f.object("plugins")
	if sub == nil || len(sub.doc) == 0 {
		return nil
	}
	plugins := make([]Plugin, 0, len(sub.doc))
	for _, name := range sortedKeys(sub.doc) {
		conf, ok := asObject(sub.doc[name])
		if !ok {
			sub.fail(name, "an object")
			break
		}
		plugins = append(plugins, Plugin{Name: name, Conf: sub.raw(name, conf), Value: conf})
	}
	f.adopt(sub)
	return plugins
}

func (f *fields) upstream() *Upstream {
	sub := f.object("upstream")
	if sub == nil {
		return nil
	}
	u, err := upstreamFrom(sub.doc)
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%supstream.%w", f.path, err)
	}
	return u
}

func (f *fields) raw(name string, v any) json.RawMessage {
	if f.judging { // what was decoded can be encoded
		return nil
	}
	raw, err := Encode(v)
	if err != nil {
		f.fail(name, "JSON")
	}
	return raw
}

// asObject takes the empty array for an object, as the contract does (section 1.6).
func asObject(v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case []any:
		return map[string]any{}, len(v) == 0
	}
	return nil, false
}

// asList takes the empty object for an array.
func asList(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case map[string]any:
		return nil, len(v) == 0
	}
	return nil, false
}

// toInt reads an integer however it is written: 7, 7.0, 7e0.
func toInt(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return i, true
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
