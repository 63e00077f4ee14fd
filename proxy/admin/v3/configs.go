package v3

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy"
	"headgate/proxy/phase"
)

const (
	// configsKey is where the store keeps what is known about the last PUT of configs.
	configsKey = "headgate/configs"

	defaultConfigsMaxBody = 64 << 20

	digestHeader   = "X-Digest"
	modifiedHeader = "X-Last-Modified"
	versionSuffix  = "_conf_version"
)

// configs answers what is below /configs: the whole configuration as one document, a view over the documents of the store (contract
// section 1.8). path is what stands behind it.
func (a *API) configs(q *request, path []string) {
	switch what := strings.Join(path, "/"); {
	case what == "validate" && q.verb == fasthttp.MethodPost && a.Checks != nil:
		a.validateConfigs(q)
	case what == "" && (q.verb == fasthttp.MethodGet || q.verb == fasthttp.MethodHead):
		a.getConfigs(q)
	case what == "" && q.verb == fasthttp.MethodPut:
		a.putConfigs(q)
	default:
		a.replyError(q.ctx, &resource.Error{Status: fasthttp.StatusNotFound, Msg: "not found"})
	}
}

// Checks is what resource.Env asks about plugins. It must be safe for concurrent use.
type Checks interface {
	Plugin(name string) resource.PluginState
	IsAuth(name string) bool
	CheckPlugin(name string, conf any, use resource.Use) error
}

// configsEnv judges documents by themselves: resource.ValidateConfigs asks nothing about other documents.
type configsEnv struct {
	Checks
	lenient func(switchName string) bool
}

func (configsEnv) Exists(string) bool { return true }

func (configsEnv) Document(string) []byte { return nil }

func (configsEnv) CredentialOwner(string, map[string]any, string) (attr, owner string) { return "", "" }

func (configsEnv) GlobalRuleWith(string, string) string { return "" }

func (configsEnv) CheckVars(raw any) error {
	_, err := phase.CompilePredicate(raw)
	return err
}

func (e configsEnv) Lenient(switchName string) bool { return e.lenient != nil && e.lenient(switchName) }

var _ resource.Env = configsEnv{}

// validateConfigs tells every mistake of a document and changes nothing.
func (a *API) validateConfigs(q *request) {
	if !a.capBody(q.ctx) {
		return
	}
	doc, refused := decodeConfigs(q.ctx)
	if refused != nil {
		a.replyError(q.ctx, refused)
		return
	}
	mistakes := resource.ValidateConfigs(doc, configsEnv{a.Checks, a.Lenient})
	if len(mistakes) == 0 {
		reply(q.ctx, fasthttp.StatusOK, []byte("{}\n"))
		return
	}
	list := make([]any, len(mistakes))
	for i, m := range mistakes {
		about := map[string]any{"resource_type": m.ResourceType, "index": m.Index, "error": m.Error}
		if m.ResourceID != "" {
			about["resource_id"] = m.ResourceID
		}
		list[i] = about
	}
	a.replyValue(q.ctx, map[string]any{"error_msg": "Configuration validation failed", "errors": list})
	q.ctx.SetStatusCode(fasthttp.StatusBadRequest)
}

// decodeConfigs reads the body: YAML when Content-Type says so, else JSON.
func decodeConfigs(ctx *fasthttp.RequestCtx) (map[string]any, *resource.Error) {
	raw := ctx.PostBody()
	if len(raw) == 0 {
		return nil, resource.Invalid("invalid request body: empty request body")
	}
	var decoded any
	var err error
	if strings.HasPrefix(strings.ToLower(string(ctx.Request.Header.ContentType())), typeYAML) {
		if decoded, err = fromYAML(raw); err != nil {
			err = fmt.Errorf("invalid yaml request body: %w", err)
		}
	} else {
		decoded, err = schema.DecodeJSON(raw)
	}
	if err != nil {
		return nil, resource.Invalid("invalid request body: " + err.Error())
	}
	switch doc := decoded.(type) {
	case map[string]any:
		return doc, nil
	case []any:
		if len(doc) == 0 {
			return map[string]any{}, nil
		}
	}
	return nil, resource.Invalid("invalid request body: expected an object with an array of documents under routes, services, upstreams, ...")
}

// configsState is what the last PUT of configs left behind. The zero value stands for none.
type configsState struct {
	Digest       string `json:"digest"`
	LastModified int64  `json:"last_modified"` // Unix seconds
	// Versions are the *_conf_version numbers by key ("routes").
	Versions map[string]int64 `json:"versions"`
	// Plugins is the plugins member of the document. It is kept for the client; which plugins there are is not for documents to say.
	Plugins json.RawMessage `json:"plugins,omitempty"`
	// Fingerprint is that of all documents after the PUT. Another one means that something was changed through another door.
	Fingerprint string `json:"fingerprint"`
}

func (a *API) configsState() (configsState, error) {
	var state configsState
	item, ok := a.Plane.Get(configsKey)
	if !ok {
		return state, nil
	}
	err := json.Unmarshal(item.Value, &state)
	return state, err
}

// fingerprint covers the documents that PUT configs is about, wherever they come from, byte for byte.
func fingerprint(parts []part) string {
	h := xxhash.New()
	for _, p := range parts {
		for _, item := range p.items {
			_, _ = h.WriteString(item.Key) // hashes take everything
			_, _ = h.Write([]byte{0})
			_, _ = h.Write(item.Value)
			_, _ = h.Write([]byte{0})
		}
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// getConfigs answers with the whole configuration, for HEAD with its headers.
func (a *API) getConfigs(q *request) {
	state, err := a.configsState()
	if err != nil {
		a.fail(q.ctx, err)
		return
	}
	setConfigsHeaders(q.ctx, state)
	if q.verb == fasthttp.MethodHead {
		q.ctx.SetContentType(phase.TypeJSON)
		return
	}
	doc := make(map[string]any)
	if state.Digest != "" {
		doc[digestHeader], doc[modifiedHeader] = state.Digest, state.LastModified
	}
	for _, p := range a.parts() {
		doc[p.key+versionSuffix] = state.Versions[p.key]
		if len(p.items) == 0 {
			continue
		}
		list := make([]any, 0, len(p.items))
		for _, item := range p.items {
			member, err := configsItem(item)
			if err != nil {
				a.Logf("admin: %s cannot be shown: %v", item.Key, err)
				continue
			}
			list = append(list, member)
		}
		doc[p.key] = list
	}
	doc["stream_routes"+versionSuffix] = state.Versions["stream_routes"]
	doc["plugins"+versionSuffix] = state.Versions["plugins"]
	if len(state.Plugins) > 0 {
		doc["plugins"] = state.Plugins
	}
	if strings.Contains(strings.ToLower(string(q.ctx.Request.Header.Peek("Accept"))), typeYAML) {
		text, err := toYAML(doc)
		if err != nil {
			a.fail(q.ctx, err)
			return
		}
		q.ctx.SetContentType(typeYAML)
		q.ctx.Response.SetBodyRaw(text)
		return
	}
	a.replyValue(q.ctx, doc)
}

func setConfigsHeaders(ctx *fasthttp.RequestCtx, state configsState) {
	if state.Digest == "" {
		return
	}
	ctx.Response.Header.Set(digestHeader, state.Digest)
	ctx.Response.Header.Set(modifiedHeader, strconv.FormatInt(state.LastModified, 10))
}

// configsItem is a stored document as configs shows it: a credential stands among the consumers, under its long id.
func configsItem(item store.Item) (map[string]any, error) {
	doc, err := decodeStored(&item)
	if err != nil {
		return nil, err
	}
	kind, id, ok := resource.ParseKey(item.Key)
	if !ok {
		return nil, errors.New("no document has this key")
	}
	if kind.Segment == credentialsSegment {
		doc["id"] = id
	}
	return doc, nil
}

// putConfigs replaces the documents of every key whose version is newer, all of them or none.
func (a *API) putConfigs(q *request) {
	status, err := a.replaceConfigs(q)
	if err != nil {
		a.auditConfigsRefusal(q, a.fail(q.ctx, err))
		return
	}
	q.ctx.SetStatusCode(status)
	q.ctx.SetContentType(phase.TypeJSON)
	if state, err := a.configsState(); err == nil && status == fasthttp.StatusAccepted {
		setConfigsHeaders(q.ctx, state)
	}
}

func (a *API) auditConfigsRefusal(q *request, status int) {
	a.Logf("admin audit: key=%q peer=%s %s configs: refused with status %d", q.who, q.peer, q.verb, status)
}

func (a *API) replaceConfigs(q *request) (status int, err error) {
	digest := string(q.ctx.Request.Header.Peek(digestHeader))
	if digest == "" {
		return 0, resource.Invalid("missing digest header")
	}
	if size := len(q.ctx.PostBody()); size > a.ConfigsMaxBody {
		return 0, tooLarge(size, a.ConfigsMaxBody)
	}
	doc, refused := decodeConfigs(q.ctx)
	if refused != nil {
		return 0, refused
	}
	a.replacing.Lock() // two documents at once would each be judged by the versions before both
	defer a.replacing.Unlock()
	for try := 1; ; try++ {
		status, err := a.replaceOnce(q, digest, doc)
		if !errors.Is(err, store.ErrConflict) || try == races {
			return status, err
		}
	}
}

// replaceOnce works out what doc changes and carries it out. store.ErrConflict says that somebody changed a document meanwhile.
func (a *API) replaceOnce(q *request, digest string, doc map[string]any) (status int, err error) {
	state, err := a.configsState()
	if err != nil {
		return 0, err
	}
	parts := a.parts()
	if state.Digest == digest && state.Fingerprint == fingerprint(parts) {
		return fasthttp.StatusNoContent, nil
	}
	next, err := nextVersions(state, doc)
	if err != nil {
		return 0, err
	}
	p := plan{api: a, now: parts, wanted: doc, replace: map[string]bool{}}
	for key, version := range next {
		p.replace[key] = version != state.Versions[key]
	}
	changes, after, err := p.make()
	if err != nil {
		return 0, err
	}
	state.Digest, state.Versions, state.LastModified = digest, next, a.Now().Unix()
	state.Fingerprint = fingerprint(after)
	if p.replace[pluginsMember] {
		if state.Plugins, err = encodeMember(doc, pluginsMember); err != nil {
			return 0, err
		}
	}
	return fasthttp.StatusAccepted, a.saveConfigs(q, changes, state)
}

func encodeMember(doc map[string]any, name string) (json.RawMessage, error) {
	v, ok := doc[name]
	if !ok {
		return nil, nil
	}
	return resource.Encode(v)
}

// nextVersions returns the version of every key once doc is in force.
func nextVersions(state configsState, doc map[string]any) (map[string]int64, error) {
	next := make(map[string]int64)
	for _, key := range configsMembers {
		current := state.Versions[key]
		v, given := doc[key+versionSuffix]
		if !given {
			next[key] = current + 1
			continue
		}
		n, ok := v.(json.Number)
		if !ok {
			return nil, resource.Invalid(key + versionSuffix + " must be a number")
		}
		f, err := n.Float64()
		if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return nil, resource.Invalid(key + versionSuffix + " must be a whole number of at most 53 bits")
		}
		if int64(f) < current {
			return nil, resource.Invalid(fmt.Sprintf("%s must be greater than or equal to (%d)", key+versionSuffix, current))
		}
		next[key] = int64(f)
	}
	return next, nil
}

// saveConfigs carries changes out together with the state that they lead to.
func (a *API) saveConfigs(q *request, changes []change, state configsState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	_, err = a.applyAll(q, append(toPlane(changes), stateChange(text)))
	var of *proxy.ChangeError
	var refused *resource.Error
	if errors.As(err, &of) && errors.As(err, &refused) { // the client has to know of which document
		return &resource.Error{Status: refused.Status, Msg: of.Key + ": " + refused.Msg}
	}
	return err
}
