package conf

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// expirySoon is how long before its end a key is worth a warning.
const expirySoon = 14 * 24 * time.Hour

// Warnings lists, for the log at start-up, what is allowed but dangerous, and keys that expired or soon will. Call it after
// EnsureAdminKey. No secret appears in it.
func (c *Config) Warnings(now time.Time) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if c.Admin.Enabled {
		if open := openRange(c.Admin.Allow); open != "" {
			warn("DANGER: admin.allow contains %s: every address may talk to the Admin API", open)
		}
		if !c.Admin.KeyRequired {
			warn("DANGER: admin.key_required is false: whoever reaches %s may change all routes without a key", c.Admin.Listen)
		}
		if !isLoopback(c.Admin.Listen) && c.Admin.KeyRequired && len(c.Admin.Keys) == 0 {
			warn("DANGER: admin.listen %s is reachable from other machines and no [[admin.keys]] is configured", c.Admin.Listen)
		}
		for _, k := range c.Admin.Keys {
			if k.published() {
				warn("DANGER: admin key %q is printed in APISIX's documentation: everybody knows it", k.Name)
			}
			switch days, limited := k.DaysLeft(now); {
			case k.Expired(now):
				warn("admin key %q expired at %s and is refused", k.Name, k.Expires.Format(time.RFC3339))
			case limited && k.Expires.Sub(now) < expirySoon:
				warn("admin key %q expires at %s, in %.1f days", k.Name, k.Expires.Format(time.RFC3339), days)
			}
		}
	}
	if c.Control.Enabled && !isLoopback(c.Control.Listen) {
		warn("control.listen %s is reachable from other machines and asks for no key", c.Control.Listen)
	}
	if open := openRange(c.Gateway.TrustedAddresses); open != "" {
		warn("gateway.trusted_addresses contains %s: every client may choose the address that is logged and limited", open)
	}
	if c.Status.Enabled && !isLoopback(c.Status.Listen) {
		warn("status.listen %s is reachable from other machines and asks for no key", c.Status.Listen)
	}
	c.storeWarnings(warn)
	for _, name := range c.Compat.AcceptInert {
		warn("compat.accept_inert contains %q: what documents ask of this plugin does not happen", name)
	}
	switch {
	case !c.Upstream.TLSVerify:
		warn("upstream.tls_verify is false: whoever sits between the gateway and an upstream can read and change traffic")
	case c.Compat.On(UnverifiedUpstreamTLS):
		warn("compat.unverified_upstream_tls is on: whoever sits between the gateway and an upstream can read and change traffic")
	}
	return out
}

// openRange returns the first element that covers a whole address family, or "".
func openRange(list []string) string {
	for _, s := range list {
		if p, err := ParsePrefix(s); err == nil && p.Bits() == 0 {
			return s
		}
	}
	return ""
}

func isLoopback(listen string) bool {
	l, err := parseListen(listen)
	return err == nil && l.host != (netip.Addr{}) && l.host.IsLoopback()
}

// String returns the settings as TOML-like lines, one per setting. Secrets are replaced, and of inline resources only the number is
// shown because their plugins may hold secrets.
func (c Config) String() string {
	var b strings.Builder
	printTable(&b, "", reflect.ValueOf(c))
	return b.String()
}

// GoString implements fmt.GoStringer, so that %#v does not reach the fields.
func (c Config) GoString() string { return c.String() }

// MarshalText keeps encoding/json and slog from walking the fields.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func printTable(b *strings.Builder, path string, table reflect.Value) {
	for i := range table.NumField() {
		f := table.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		key := childKey(path, f.Tag.Get("toml"))
		switch v := table.Field(i).Interface().(type) {
		case []map[string]any:
			fmt.Fprintf(b, "%s = (%d inline)\n", key, len(v))
		case []AdminKey:
			for j := range v {
				printTable(b, indexKey(key, j), reflect.ValueOf(v[j]))
			}
		case []CacheZone:
			for j := range v {
				printTable(b, indexKey(key, j), reflect.ValueOf(v[j]))
			}
		case []string, string:
			fmt.Fprintf(b, "%s = %q\n", key, v)
		case []Secret:
			fmt.Fprintf(b, "%s = (%d secret)\n", key, len(v))
		case bool, int, Size, Duration, Secret, Toggle:
			fmt.Fprintf(b, "%s = %v\n", key, v)
		case time.Time:
			if !v.IsZero() {
				fmt.Fprintf(b, "%s = %s\n", key, v.Format(time.RFC3339))
			}
		default:
			printTable(b, key, table.Field(i))
		}
	}
}
