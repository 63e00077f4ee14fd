package resource

import "testing"

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		`invalid plugin conf "SECRET" for plugin [key-auth]`:                                            `invalid plugin conf ... for plugin [key-auth]`,
		`invalid plugin conf ["a for plugin [x]"] for plugin [key-auth]`:                                `invalid plugin conf ... for plugin [key-auth]`,
		`property "key" validation failed: failed to match pattern "^[a-z\"]+$" with "SEC\"RET with x"`: `property "key" validation failed: failed to match pattern "^[a-z\"]+$" with ...`,
		"expect valid ipv4 format but got: SECRET":                                                      "expect valid ipv4 format but got: ...",
		`property "uri" validation failed: wrong type: expected string, got number`:                     `property "uri" validation failed: wrong type: expected string, got number`,
		"unknown plugin [nope]": "unknown plugin [nope]",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}
