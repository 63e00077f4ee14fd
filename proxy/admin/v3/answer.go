package v3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy/phase"
)

const typeTOML = "application/toml"

// reply answers with JSON text; ctx keeps body.
func reply(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.SetStatusCode(status)
	ctx.SetContentType(phase.TypeJSON)
	ctx.Response.SetBodyRaw(body)
}

// replyDocument answers with body, a JSON object and a newline, in the form that the client accepts. Only documents are translated:
// errors are always JSON.
func (a *API) replyDocument(ctx *fasthttp.RequestCtx, status int, body []byte) {
	if !wantsTOML(ctx) {
		reply(ctx, status, body)
		return
	}
	text, err := toTOML(body)
	if err != nil {
		a.replyError(ctx, &resource.Error{Status: fasthttp.StatusNotAcceptable, Msg: "cannot be written as TOML: " + err.Error()})
		return
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType(typeTOML)
	ctx.Response.SetBodyRaw(text)
}

func toTOML(body []byte) ([]byte, error) {
	decoded, err := schema.DecodeJSON(body)
	if err != nil {
		return nil, err
	}
	doc, ok := decoded.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	text, err := resource.ToTOML(doc)
	if err == nil {
		return text, nil
	}
	// Name the document: its place in a list means nothing to the client.
	items, isList := doc["list"].([]any)
	if !isList {
		items = []any{doc}
	}
	for _, item := range items {
		if obj, ok := item.(map[string]any); ok && obj["key"] != nil {
			if _, err := resource.ToTOML(obj); err != nil {
				return nil, fmt.Errorf("%v: %w", obj["key"], err)
			}
		}
	}
	return nil, err
}

func wantsTOML(ctx *fasthttp.RequestCtx) bool {
	for part := range strings.SplitSeq(string(ctx.Request.Header.Peek("Accept")), ",") {
		if isTOML(part) {
			return true
		}
	}
	return false
}

func isTOML(mediaType string) bool {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), typeTOML)
}

// fail answers with what an edit ended with and returns the status.
func (a *API) fail(ctx *fasthttp.RequestCtx, err error) int {
	var refused *resource.Error
	var crashed crash
	switch {
	case errors.As(err, &crashed):
		a.replyCrash(ctx, crashed.refused)
		return ctx.Response.StatusCode()
	case errors.As(err, &refused):
	case errors.Is(err, store.ErrConflict):
		refused = &resource.Error{Status: 503, Msg: store.ErrConflict.Error()}
	case errors.Is(err, store.ErrTooLarge):
		refused = &resource.Error{Status: 413, Msg: err.Error()}
	case errors.Is(err, store.ErrUnavailable):
		refused = &resource.Error{Status: 503, Msg: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		refused = &resource.Error{Status: 503, Msg: "no answer from the configuration path in time, the change may still come into force"}
	default:
		a.Logf("admin: %s %q failed: %v", ctx.Method(), ctx.Path(), err)
		refused = &resource.Error{Status: 500, Msg: "internal error, see the log"}
	}
	a.replyError(ctx, refused)
	return refused.Status
}

func (a *API) replyError(ctx *fasthttp.RequestCtx, refused *resource.Error) {
	member := `{"error_msg":`
	if refused.NotFound {
		member = `{"message":`
	}
	reply(ctx, refused.Status, append(appendText([]byte(member), refused.Msg), "}\n"...))
}

func appendText(b []byte, s string) []byte {
	text, err := resource.Encode(s)
	if err != nil { // a string always encodes
		return append(b, `""`...)
	}
	return append(b, text...)
}
