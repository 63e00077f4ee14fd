package conf

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func readExample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("headgate.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The example as it is delivered says what runs without a file.
func TestExampleIsDefault(t *testing.T) {
	got, err := Parse("headgate.toml", []byte(readExample(t)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("headgate.toml differs from Default():\n%s", diff)
	}
}

// Every optional line of the example works when it is uncommented, and every setting appears, with its name, somewhere in the file.
func TestExampleShowsEverything(t *testing.T) {
	text := regexp.MustCompile(`(?m)^#([^ \n])`).ReplaceAllString(readExample(t), "$1")
	c, err := Parse("headgate.toml", []byte(text), env("HEADGATE_ADMIN_KEY", testKey), files("/run/secrets/headgate-viewer.key", otherKey))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Admin.Keys) != 2 || len(c.Documents()) != len(DocumentKinds()) {
		t.Errorf("the optional lines were not all read:\n%s", c)
	}
	shown := locate([]byte(text))
	var walk func(path string, table reflect.Type)
	walk = func(path string, table reflect.Type) {
		for i := range table.NumField() {
			f := table.Field(i)
			if !f.IsExported() {
				continue
			}
			key := childKey(path, f.Tag.Get("toml"))
			if f.Tag.Get("toml") == "" || shown[key] == 0 {
				t.Errorf("headgate.toml does not show %s (%s.%s)", key, table, f.Name)
			}
			switch {
			case f.Type == reflect.TypeFor[[]AdminKey](), f.Type == reflect.TypeFor[[]CacheZone]():
				walk(indexKey(key, 0), f.Type.Elem())
			case f.Type.Kind() == reflect.Struct && f.Type.NumField() > 0 && f.Type.Field(0).IsExported():
				walk(key, f.Type)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}

// The unit must leave the drain its time.
func TestServiceStopsAfterDrain(t *testing.T) {
	unit, err := os.ReadFile("headgate.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^TimeoutStopSec=(\S+)$`).FindSubmatch(unit)
	if m == nil {
		t.Fatal("no TimeoutStopSec")
	}
	stop, err := ParseDuration(string(m[1]))
	g := Default().Gateway
	if err != nil || stop <= g.DrainDelay+g.DrainTimeout {
		t.Errorf("TimeoutStopSec=%s, %v; want more than %s + %s", m[1], err, g.DrainDelay, g.DrainTimeout)
	}
	for _, line := range []string{"User=headgate", "NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory=headgate", "Restart=on-failure", "KillSignal=SIGTERM", "ExecReload=/bin/kill -HUP $MAINPID"} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("headgate.service lacks %s", line)
		}
	}
}
