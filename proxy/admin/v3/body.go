package v3

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf"
	"headgate/conf/resource"
	"headgate/conf/schema"
)

// maxTTL keeps the seconds of a ttl within a time.Duration.
const maxTTL = 100 * 365 * 24 * time.Hour

// body is a decoded request body.
type body struct {
	present bool // false for no bytes at all
	doc     any  // as schema.DecodeJSON returns it
}

func tooLarge(size, limit int) *resource.Error {
	return resource.Invalid(fmt.Sprintf("invalid request body: request size %d is greater than the maximum size %d allowed", size, limit))
}

// bodyLimit lets a whole configuration in, when it comes with a right key: nobody else makes the server hold that much. It is 0 for every
// other request.
func (a *API) bodyLimit(head *fasthttp.RequestHeader) int {
	if !head.IsPut() {
		return 0
	}
	path, _, _ := bytes.Cut(head.RequestURI(), []byte("?"))
	if string(path) != root+"/configs" {
		return 0
	}
	if a.KeyRequired {
		values := head.PeekAll("X-API-KEY")
		now := a.Now()
		if len(values) != 1 {
			return 0
		}
		if key := findKey(a.Keys(), values[0], now); key == nil || key.expired(now) || key.Role != conf.RoleAdmin {
			return 0
		}
	}
	// What is somewhat too large gets its answer before the connection closes.
	return a.ConfigsMaxBody + readLimit - MaxBody
}

// capBody answers a request whose body is too large and returns false.
func (a *API) capBody(ctx *fasthttp.RequestCtx) bool {
	if size := len(ctx.PostBody()); size > MaxBody {
		a.replyError(ctx, tooLarge(size, MaxBody))
		return false
	}
	return true
}

// readBody decodes the body into q, or answers the request and returns false. A body is TOML when Content-Type says so and JSON
// otherwise, whatever else Content-Type says.
func (a *API) readBody(q *request) bool {
	if !a.capBody(q.ctx) {
		return false
	}
	raw := q.ctx.PostBody()
	if len(raw) == 0 {
		return true
	}
	var err error
	if isTOML(string(q.ctx.Request.Header.ContentType())) {
		q.body.doc, err = resource.FromTOML(raw)
	} else {
		q.body.doc, err = schema.DecodeJSON(raw)
	}
	if err != nil {
		a.replyMalformed(q.ctx, err, raw)
		return false
	}
	q.body.present = true
	return true
}

// replyMalformed sends the body back, as the contract has it; nobody but its sender sees it.
func (a *API) replyMalformed(ctx *fasthttp.RequestCtx, err error, raw []byte) {
	b := appendText([]byte(`{"error_msg":`), "invalid request body: "+err.Error())
	b = appendText(append(b, `,"req_body":`...), string(raw))
	reply(ctx, fasthttp.StatusBadRequest, append(b, "}\n"...))
}

// readTTL reads the ttl argument into q, or answers the request and returns false. Zero and negative numbers keep the document.
func (a *API) readTTL(q *request) bool {
	args := q.ctx.QueryArgs()
	if !args.Has("ttl") {
		return true
	}
	seconds, err := strconv.ParseFloat(string(args.Peek("ttl")), 64)
	if err != nil || math.IsNaN(seconds) || math.IsInf(seconds, 0) {
		a.replyError(q.ctx, resource.Invalid("invalid argument ttl: should be a number"))
		return false
	}
	if seconds > 0 {
		q.ttl = time.Duration(min(seconds, maxTTL.Seconds()) * float64(time.Second))
	}
	return true
}
