package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNothingPrintsSecrets(t *testing.T) {
	const secret = "inline-plugin-secret"
	c := mustParse(t, "[[admin.keys]]\nname='deploy'\nkey='${KEY}'\nexpires=2030-01-01\n[[routes]]\nid='r'\nplugins.x.password='"+secret+"'\n")
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("start", "config", c, "value", *c, "keys", c.Admin.Keys, "key", c.Admin.Keys[0].Key)
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "config", c, "keys", c.Admin.Keys, "admin", c.Admin)
	encoded, err := json.Marshal([]any{c, *c, c.Admin})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{c.String(), log.String(), string(encoded), strings.Join(c.Warnings(time.Now()), "\n")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{c, *c, c.Admin, &c.Admin, c.Admin.Keys, c.Admin.Keys[0], c.Admin.Keys[0].Key} {
			out = append(out, fmt.Sprintf(verb, v))
		}
	}
	hexKey := fmt.Sprintf("%x", testKey)
	for _, s := range out {
		if strings.Contains(s, testKey) || strings.Contains(s, hexKey) || strings.Contains(s, secret) {
			t.Errorf("a secret is shown:\n%s", s)
		}
	}
	for _, want := range []string{`admin.keys[0].name = "deploy"`, "admin.keys[0].key = (secret)", "gateway.max_body_size = 64MiB", "upstream.keepalive_idle = 4s", "routes = (1 inline)"} {
		if !strings.Contains(c.String(), want+"\n") {
			t.Errorf("String lacks %s:\n%s", want, c.String())
		}
	}
}

func TestSecretEqual(t *testing.T) {
	s := Secret(testKey)
	for candidate, want := range map[string]bool{testKey: true, testKey[:31]: false, testKey + "x": false, "": false, otherKey: false} {
		if s.Equal(candidate) != want {
			t.Errorf("%q: want %v", candidate, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	now := time.Date(2030, 1, 10, 0, 0, 0, 0, time.UTC)
	f := func(name, text string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, mustParse(t, text).Warnings(now)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	f("default", "")
	f("open to all", "admin.allow = ['127.0.0.1', '0.0.0.0/0']", "DANGER: admin.allow contains 0.0.0.0/0: every address may talk to the Admin API")
	f("open to all, IPv6", "admin.allow = ['::/0']", "DANGER: admin.allow contains ::/0: every address may talk to the Admin API")
	f("no key", "admin.key_required = false", "DANGER: admin.key_required is false: whoever reaches 127.0.0.1:9180 may change all routes without a key")
	f("public without keys", "admin.listen = ':9180'", "DANGER: admin.listen :9180 is reachable from other machines and no [[admin.keys]] is configured")
	f("public with a key", "admin.listen = ':9180'\n[[admin.keys]]\nname='a'\nkey='${KEY}'")
	f("keys", "[[admin.keys]]\nname='old'\nkey='${KEY}'\nexpires=2030-01-09\n[[admin.keys]]\nname='soon'\nkey='${KEY}1'\nexpires=2030-01-22\n"+
		"[[admin.keys]]\nname='later'\nkey='${KEY}2'\nexpires=2030-01-24\n[[admin.keys]]\nname='guide'\nkey='edd1c9f034335f136f87ad84b625c8f1'",
		`admin key "old" expired at 2030-01-10T00:00:00Z and is refused`,
		`admin key "soon" expires at 2030-01-23T00:00:00Z, in 13.0 days`,
		`DANGER: admin key "guide" is printed in APISIX's documentation: everybody knows it`)
	f("others", "control.listen='0.0.0.0:9090'\ngateway.trusted_addresses=['0.0.0.0/0']\nupstream.tls_verify=false",
		"control.listen 0.0.0.0:9090 is reachable from other machines and asks for no key",
		"gateway.trusted_addresses contains 0.0.0.0/0: every client may choose the address that is logged and limited",
		"upstream.tls_verify is false: whoever sits between the gateway and an upstream can read and change traffic")
	f("disabled", "admin = {enabled = false, key_required = false, allow = ['::/0']}\ncontrol = {enabled = false, listen = ':1'}")
}

func TestParsePrefix(t *testing.T) {
	for s, want := range map[string]string{
		"10.1.2.3": "10.1.2.3/32", "10.1.2.3/8": "10.0.0.0/8", "::1": "::1/128", "::ffff:10.1.2.3": "10.1.2.3/32",
		"::ffff:10.1.2.3/104": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "fe80::1%eth0": "", "10.1/8": "", "": "", "::/129": "",
	} {
		p, err := ParsePrefix(s)
		if want == "" {
			if err == nil {
				t.Errorf("%q: got %v, want an error", s, p)
			}
			continue
		}
		if err != nil || p != netip.MustParsePrefix(want) {
			t.Errorf("%q: got %v, %v, want %s", s, p, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]Size{"0B": 0, "16KiB": 16384, "64MiB": 64 << 20, "3GiB": 3 << 30, "1500B": 1500} {
		got, err := ParseSize(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: got %d (%s), %v", s, got, got, err)
		}
	}
	for _, s := range []string{"", "16", "KiB", "16KB", "16 KiB", "-1KiB", "1.5KiB", "9999999999999GiB", "16kib", "1KiBKiB", "+1B"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
}

func TestListenersOverlap(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{":1", "127.0.0.1:1"}:          true,
		{"0.0.0.0:1", "127.0.0.1:1"}:   true,
		{"[::]:1", "127.0.0.1:1"}:      true,
		{"[::]:1", "[::1]:1"}:          true,
		{"localhost:1", "127.0.0.1:1"}: true,
		{"0.0.0.0:1", "[::1]:1"}:       false,
		{"127.0.0.2:1", "127.0.0.1:1"}: false,
		{":1", ":2"}:                   false,
		{":0", ":0"}:                   false,
	} {
		a, errA := parseListen(pair[0])
		b, errB := parseListen(pair[1])
		if errA != nil || errB != nil || a.overlaps(b) != want || b.overlaps(a) != want {
			t.Errorf("%v: want overlap %v (%v, %v)", pair, want, errA, errB)
		}
	}
}
