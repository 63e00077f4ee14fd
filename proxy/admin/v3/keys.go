package v3

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf"
	"headgate/proxy/admin"
)

// Key is one credential. Only the digest of the key is held.
type Key struct {
	Name   string
	Digest [sha256.Size]byte // SHA-256 of the key
	Role   string            // conf.RoleAdmin may do everything, anything else may only read
	// Expires is the first moment at which the key is refused; the zero value means never.
	Expires time.Time
}

// KeysOf turns the keys of the configuration into those of the API.
func KeysOf(configured []conf.AdminKey) []Key {
	keys := make([]Key, len(configured))
	for i, k := range configured {
		keys[i] = Key{Name: k.Name, Digest: sha256.Sum256([]byte(k.Key.Reveal())), Role: k.Role, Expires: k.Expires}
	}
	return keys
}

func (k *Key) expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

// authorize lets the request in and says who made it, or answers it. A right key is always let in, however many wrong ones came from
// the same address.
func (a *API) authorize(ctx *fasthttp.RequestCtx, peer netip.Addr, verb string) (who string, ok bool) {
	if !a.KeyRequired {
		if admin.CrossSite(ctx) {
			a.refuseCrossSite(ctx, peer)
			return "", false
		}
		return "-", true
	}
	given, source := givenKey(ctx)
	if source == noKey {
		a.refuse(ctx, fasthttp.StatusUnauthorized, "missing apikey")
		return "", false
	}
	// A cookie is the one source that a browser adds by itself.
	if source == cookieKey && admin.CrossSite(ctx) {
		a.refuseCrossSite(ctx, peer)
		return "", false
	}
	now := a.Now()
	key := findKey(a.Keys(), given, now)
	if key == nil || key.expired(now) {
		a.refuseKey(ctx, peer, key, now)
		return "", false
	}
	if key.Role != conf.RoleAdmin && verb != fasthttp.MethodGet {
		a.Logf("admin audit: key=%q peer=%s %s %q refused: the key may only read", key.Name, peer, verb, ctx.Path())
		a.refuse(ctx, fasthttp.StatusUnauthorized, "invalid method for role viewer")
		return "", false
	}
	return key.Name, true
}

type keySource int

const (
	noKey keySource = iota
	queryKey
	headerKey
	cookieKey
)

// givenKey takes the first source that is there, even if it is empty or wrong (contract section 1.1). A header that is there twice
// is no key at all: two readers could take different ones.
func givenKey(ctx *fasthttp.RequestCtx) ([]byte, keySource) {
	if args := ctx.QueryArgs(); args.Has("api_key") {
		return args.Peek("api_key"), queryKey
	}
	if values := ctx.Request.Header.PeekAll("X-API-KEY"); len(values) == 1 {
		return values[0], headerKey
	} else if len(values) > 1 {
		return nil, headerKey
	}
	if value := ctx.Request.Header.Cookie("x_api_key"); len(value) > 0 {
		return value, cookieKey
	}
	return nil, noKey
}

// findKey compares with every key in the same time. Of equal keys one that still works is preferred.
func findKey(keys []Key, given []byte, now time.Time) *Key {
	digest := sha256.Sum256(given)
	var found *Key
	for i := range keys {
		if subtle.ConstantTimeCompare(digest[:], keys[i].Digest[:]) == 1 && (found == nil || found.expired(now)) {
			found = &keys[i]
		}
	}
	return found
}

// refuseKey answers a wrong key (known is nil) or an expired one. The client is told the same in both cases.
func (a *API) refuseKey(ctx *fasthttp.RequestCtx, peer netip.Addr, known *Key, now time.Time) {
	failures, wait := a.brake.fail(peer, now)
	limit := limitOf(peer)
	if failures <= limit {
		if known != nil {
			a.Logf("admin audit: peer=%s %s %q refused: the key %q expired at %s", peer, ctx.Method(), ctx.Path(), known.Name,
				known.Expires.UTC().Format(time.RFC3339))
		} else {
			a.Logf("admin audit: peer=%s %s %q refused: wrong key", peer, ctx.Method(), ctx.Path())
		}
		a.refuse(ctx, fasthttp.StatusUnauthorized, "wrong apikey")
		return
	}
	if failures == limit+1 {
		a.Logf("admin audit: peer=%s sent more than %d wrong keys within a minute: answering 429 to further ones", peer, limit)
	}
	seconds := strconv.Itoa(int((wait + time.Second - 1) / time.Second))
	ctx.Response.Header.Set("Retry-After", seconds)
	a.refuse(ctx, fasthttp.StatusTooManyRequests, "too many wrong keys, try again in "+seconds+" s")
}

func (a *API) refuse(ctx *fasthttp.RequestCtx, status int, description string) {
	b := appendText([]byte(`{"error_msg":"failed to check token","description":`), description)
	reply(ctx, status, append(b, "}\n"...))
}

func (a *API) refuseCrossSite(ctx *fasthttp.RequestCtx, peer netip.Addr) {
	a.Logf("admin audit: peer=%s %s %q refused: made by a web page of another site", peer, ctx.Method(), ctx.Path())
	reply(ctx, fasthttp.StatusForbidden, []byte(`{"error_msg":"requests from web pages of other sites are refused"}`+"\n"))
}
