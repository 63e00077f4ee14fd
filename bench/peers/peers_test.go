package peers

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func params(dir string) Params {
	return Params{
		Dir: dir, Listen: "127.0.0.1:1001", Upstream: "127.0.0.1:1002", Workers: 3,
		Admin: "127.0.0.1:1003", Metrics: "127.0.0.1:1004", Control: "127.0.0.1:1005", Key: strings.Repeat("k", 32),
	}
}

// Headgate's files are checked as far as this room can: they are TOML, and say
// what the rig relies on.
func TestHeadgateFilesAreTOML(t *testing.T) {
	type upstream struct{ Nodes map[string]int }
	type file struct {
		Gateway   struct{ Listen []string }
		Admin     struct{ Keys []struct{ Key string } }
		AccessLog struct{ Path string } `toml:"access_log"`
		Routes    []struct {
			URI      string
			Upstream upstream
			Plugins  struct {
				Prometheus *struct{}
				Split      struct {
					Rules []struct {
						Weight   int
						Name     string
						Upstream upstream
						Rewrite  struct{ URI string }
					}
				} `toml:"traffic-split"`
			}
		}
	}
	decode := func(p Peer, params Params) (f file) {
		t.Helper()
		text, err := p.render(params)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := toml.Decode(string(text), &f); err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		if !slices.Equal(f.Gateway.Listen, []string{params.Listen}) || f.Admin.Keys[0].Key != params.Key {
			t.Errorf("%s: listens on %v, key %q", p.Name, f.Gateway.Listen, f.Admin.Keys[0].Key)
		}
		return f
	}
	ps := params("/d")
	split := decode(headgatePeer("headgate", "x", true), ps)
	rules := split.Routes[0].Plugins.Split.Rules
	if len(rules) != 2 || rules[0].Weight != rules[1].Weight || rules[1].Name != "v2" ||
		rules[1].Rewrite.URI != "/v2/chat/completions" || rules[1].Upstream.Nodes[ps.Upstream] != 1 ||
		split.Routes[0].Plugins.Prometheus == nil || split.AccessLog.Path != "/d/headgate.access.log" {
		t.Errorf("the split variant does not split, measure or log: %+v", split)
	}
	bare := decode(headgatePeer("headgate-bare", "x", false), ps)
	if bare.AccessLog.Path != "off" || bare.Routes[0].Upstream.Nodes[ps.Upstream] != 1 {
		t.Errorf("bare variant: %+v", bare)
	}
	ps.Log = true
	if f := decode(headgatePeer("headgate-bare", "x", false), ps); f.AccessLog.Path == "off" {
		t.Error("-log does not reach the bare variant")
	}
	if f := decode(Storm("x"), ps); len(f.Routes) != 0 {
		t.Error("the storm's routes must come through the Admin API")
	}
}

// The chain is all of what it is said to be, and logs no more than the bare route that it is compared with.
func TestChain(t *testing.T) {
	text, err := headgatePeer("headgate-chain", "x", true).render(params("/d"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		AccessLog struct{ Path string } `toml:"access_log"`
		Routes    []struct{ Plugins map[string]any }
	}
	if _, err := toml.Decode(string(text), &f); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(f.Routes[0].Plugins))
	if want := []string{"api-breaker", "key-auth", "limit-count", "prometheus", "traffic-split"}; !slices.Equal(got, want) || f.AccessLog.Path != "off" {
		t.Errorf("the chain is %v, the log %s", got, f.AccessLog.Path)
	}
}

func TestForeignFiles(t *testing.T) {
	for _, log := range []bool{false, true} {
		ps := params("/d")
		ps.Log = log
		for _, p := range All("x")[:2] {
			text, err := p.render(ps)
			if err != nil {
				t.Fatal(err)
			}
			logs := strings.Contains(string(text), "access_log /d/") || strings.Contains(string(text), "log stdout")
			for _, want := range []string{ps.Listen, ps.Upstream, " 3"} {
				if !strings.Contains(string(text), want) {
					t.Errorf("%s: no %q in\n%s", p.Name, want, text)
				}
			}
			if logs != log {
				t.Errorf("%s: log wanted %v, is %v", p.Name, log, logs)
			}
		}
	}
}

func TestPrepare(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "headgate")
	p := headgatePeer("headgate", binary, true)
	if _, err := p.Prepare(params(dir)); err == nil || !strings.Contains(err.Error(), binary) {
		t.Errorf("a missing program: %v, want its path named", err)
	}
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	argv, err := p.Prepare(params(dir))
	want := []string{binary, "run", "-c", filepath.Join(dir, "headgate.toml")}
	if err != nil || !slices.Equal(argv, want) {
		t.Fatalf("%v, %v; want %v", argv, err, want)
	}
	info, err := os.Stat(argv[3])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file with a key in it: %v, %v", info, err)
	}
}
