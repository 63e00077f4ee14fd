package conf

import "testing"

func TestUnderscores(t *testing.T) {
	for text, drops := range map[string]bool{
		"":                          true,
		"[compat]\nmode = 'apisix'": false,
		"[gateway.strict]\nunderscore_names = false":                           false,
		"[gateway.strict]\nunderscore_names = true\n[compat]\nmode = 'apisix'": true,
	} {
		if got := mustParse(t, text).DropsUnderscores(); got != drops {
			t.Errorf("%q: dropped %t, want %t", text, got, drops)
		}
	}
}
