package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnsureAdminKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "deep", "admin.key")
	fresh := func() *Config {
		c := Default()
		c.Admin.KeyFile = path
		return c
	}

	first := fresh()
	generated, err := first.EnsureAdminKey()
	if err != nil || generated != path {
		t.Fatalf("got %q, %v", generated, err)
	}
	if len(first.Admin.Keys) != 1 || first.Admin.Keys[0].Name != "generated" || first.Admin.Keys[0].Role != RoleAdmin {
		t.Fatalf("got keys %v", first.Admin.Keys)
	}
	key := first.Admin.Keys[0].Key.Reveal()
	if len(key) != 64 || strings.Trim(key, "0123456789abcdef") != "" {
		t.Errorf("expected 64 hex digits, got %d characters", len(key))
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: got mode %v, %v, want %v", p, info.Mode(), err, want)
		}
	}

	second := fresh()
	if generated, err := second.EnsureAdminKey(); err != nil || generated != "" || second.Admin.Keys[0].Key.Reveal() != key {
		t.Errorf("second start: got %q, %v; want the same key and no path", generated, err)
	}

	other := fresh()
	other.Admin.KeyFile = path + "2"
	if _, err := other.EnsureAdminKey(); err != nil || other.Admin.Keys[0].Key.Reveal() == key {
		t.Errorf("two files got the same key, %v", err)
	}
}

func TestEnsureAdminKeyRefuses(t *testing.T) {
	f := func(name, content string, mode os.FileMode, want string) {
		t.Helper()
		c := Default()
		c.Admin.KeyFile = filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(c.Admin.KeyFile, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.Admin.KeyFile, mode); err != nil {
			t.Fatal(err)
		}
		_, err := c.EnsureAdminKey()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), c.Admin.KeyFile) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		if err != nil && content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
		if len(c.Admin.Keys) != 0 {
			t.Errorf("%s: a key was added", name)
		}
	}
	f("readable by others", testKey, 0o644, "chmod 600")
	f("torn", "", 0o600, "expected at least 32 characters, got 0")
	f("short", "short-key", 0o600, "expected at least 32 characters, got 9")
}

func TestEnsureAdminKeyNotNeeded(t *testing.T) {
	for name, change := range map[string]func(*Admin){
		"disabled":   func(a *Admin) { a.Enabled = false },
		"not asked":  func(a *Admin) { a.KeyRequired = false },
		"configured": func(a *Admin) { a.Keys = []AdminKey{{Name: "a", Key: testKey}} },
	} {
		c := Default()
		c.Admin.KeyFile = filepath.Join(t.TempDir(), "key")
		change(&c.Admin)
		before := len(c.Admin.Keys)
		if path, err := c.EnsureAdminKey(); err != nil || path != "" || len(c.Admin.Keys) != before {
			t.Errorf("%s: got %q, %v, %d keys", name, path, err, len(c.Admin.Keys))
		}
		if _, err := os.Stat(c.Admin.KeyFile); err == nil {
			t.Errorf("%s: a key file was made", name)
		}
	}
}
