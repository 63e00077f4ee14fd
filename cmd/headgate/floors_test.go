package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// floors are the rooms of the house, lowest first: a room imports only rooms on lower floors. Sub-rooms belong to the room with the
// longest path that fits; rooms inside one room may use each other.
var floors = [][]string{
	{"proxy/fault", "proxy/route", "proxy/expr", "proxy/vars", "balancer", "proxy/meter", "proxy/llm", "proxy/netpoll", "proxy/accesslog",
		"proxy/overload", "proxy/leaktest"},
	{"conf", "proxy/phase"},
	{"proxy/upstream", "proxy/offload", "conf/store"},
	{"plugins/*"},
	{"proxy/snapshot"},
	{"proxy"},
	{"proxy/admin"},
	{"plugins"},
	{"cmd", "bench"},
}

// walls stand inside the floors: who may import what, and why.
var walls = []struct {
	target string // an import path, or a prefix that ends in "/"
	only   []string
	why    string
}{
	{"headgate/proxy/admin", []string{"cmd", "proxy/admin"}, "only cmd wires the operators' listeners"},
	{"headgate/plugins", []string{"cmd"}, "only cmd knows which plugins there are"},
	{"headgate/proxy/leaktest", nil, "it is for tests, whose imports are not listed here"},
	{"headgate/conf/store/", []string{"cmd", "conf/store"}, "which store provider runs is wiring; everybody else sees the interface"},
	{"github.com/VictoriaMetrics/metrics", []string{"proxy/meter"}, "metric names and handles live in one room"},
	{"github.com/panjf2000/ants/v2", []string{"proxy/offload"}, "background work is bounded in one room"},
	{"go.etcd.io/bbolt", []string{"conf/store"}, "the file format is the embedded store's own"},
	{"go.etcd.io/etcd/", []string{"conf/store"}, "etcd is one provider among others"},
	{"github.com/redis/go-redis/v9", []string{"proxy/phase"}, "counters that gateways share are kept in one room"},
	{"github.com/goccy/go-yaml", []string{"conf", "conf/store", "proxy/admin"}, "YAML is a form of configurations"},
	{"github.com/BurntSushi/toml", []string{"conf"}, "TOML is read in one room"},
}

type listedPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "headgate/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []listedPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// room returns the room and the floor of a package of ours.
func room(path string) (name string, floor int) {
	path = strings.TrimPrefix(path, "headgate/")
	floor = -1
	for i, names := range floors {
		for _, n := range names {
			fits := path == n || strings.HasPrefix(path, n+"/")
			if prefix, each := strings.CutSuffix(n, "*"); each {
				fits = strings.HasPrefix(path, prefix)
				n = path
			}
			if fits && len(n) > len(name) {
				name, floor = n, i
			}
		}
	}
	return name, floor
}

func TestFloors(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 20 {
		t.Fatalf("go list shows %d packages, that cannot be all", len(packages))
	}
	for _, p := range packages {
		from, floor := room(p.ImportPath)
		if floor < 0 {
			t.Errorf("%s is in no room: give it a place in the table of floors", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, "headgate/") {
				continue
			}
			to, below := room(imported)
			if to != from && below >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): a room imports only rooms below it", p.ImportPath, floor, imported, below)
			}
		}
	}
}

func TestWalls(t *testing.T) {
	for _, p := range listPackages(t) {
		from, _ := room(p.ImportPath)
		for _, imported := range p.Imports {
			for _, w := range walls {
				behind := imported == w.target || strings.HasSuffix(w.target, "/") && strings.HasPrefix(imported, w.target)
				allowed := false
				for _, o := range w.only {
					allowed = allowed || o == from
				}
				if behind && !allowed {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, w.why)
				}
			}
		}
	}
}
