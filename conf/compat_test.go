package conf

import (
	"reflect"
	"testing"
)

func TestCompatOn(t *testing.T) {
	f := func(name, text string, s Switch, want bool) {
		t.Helper()
		if got := mustParse(t, "[compat]\n"+text).Compat.On(s); got != want {
			t.Errorf("%s: %s is %v", name, s, got)
		}
	}
	for _, s := range Switches() {
		f("default", "", s, false)
		f("mode", "mode = 'apisix'", s, true)
		f("on in the safe mode", string(s)+" = true", s, true)
		f("off in the other", "mode = 'apisix'\n"+string(s)+" = false", s, false)
		for _, other := range Switches() {
			if other != s {
				f("beside "+string(other), string(other)+" = true", s, false)
			}
		}
	}
	f("unknown", "mode = 'apisix'", "no_such_switch", false)
}

// Every toggle of the file is a switch, so that none can be set without effect.
func TestSwitchesAreToggles(t *testing.T) {
	known := map[string]bool{}
	for _, s := range Switches() {
		known[string(s)] = true
	}
	n, table := 0, reflect.TypeFor[Compat]()
	for i := range table.NumField() {
		if f := table.Field(i); f.Type == reflect.TypeFor[Toggle]() {
			n++
			if !known[f.Tag.Get("toml")] {
				t.Errorf("%s is in no Switch", f.Name)
			}
		}
	}
	if n != len(known) {
		t.Errorf("%d toggles, %d switches", n, len(known))
	}
}
