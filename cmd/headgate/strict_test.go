package main

import (
	"reflect"
	"strings"
	"testing"

	"headgate/conf"
	"headgate/proxy"
)

// TestStrictSettings: every setting of [gateway.strict] loosens one thing, of its own, and all of it is strict without the table.
func TestStrictSettings(t *testing.T) {
	if got := lenient(conf.Default()); got != (proxy.Lenient{}) {
		t.Errorf("the default is %+v", got)
	}
	settings, seen := reflect.TypeFor[conf.GatewayStrict](), map[proxy.Lenient]string{}
	for i := range settings.NumField() {
		key := settings.Field(i).Tag.Get("toml")
		c, err := conf.Parse("x.toml", []byte("[gateway.strict]\n"+key+" = false\n"), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		l := lenient(c)
		loose := 0
		for n := range reflect.TypeOf(l).NumField() {
			if reflect.ValueOf(l).Field(n).Bool() {
				loose++
			}
		}
		if loose != 1 || seen[l] != "" {
			t.Errorf("%s = false makes %+v, as %q", key, l, seen[l])
		}
		seen[l] = key
		if _, err = conf.Parse("x.toml", []byte("[gateway.strict]\n"+key+" = 'no'\n"), nil, nil); err == nil ||
			!strings.Contains(err.Error(), "x.toml:2: gateway.strict."+key+": expected true or false, got a string") {
			t.Errorf("%s = 'no': %v", key, err)
		}
	}
	if n := reflect.TypeFor[proxy.Lenient]().NumField(); len(seen) != n {
		t.Errorf("%d settings for %d fields", len(seen), n)
	}
}
