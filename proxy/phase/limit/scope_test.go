package limit

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

// One of several limits is for the requests that have its key, and counts apart from the others; the only one is for all.
func TestScope(t *testing.T) {
	id := IdentityOfGroup("g")
	only, err := NewScope(id, false, 0, "var", "arg_k")
	if err != nil {
		t.Fatal(err)
	}
	first, _ := NewScope(id, true, 0, "var", "arg_k")
	second, _ := NewScope(id, true, 1, "constant", "c")
	for _, tt := range []struct {
		request     string
		only, first bool
	}{{"GET /?k=1", true, true}, {"GET /", true, false}} {
		x := phasetest.Exchange(tt.request)
		if only.Applies(x) != tt.only || first.Applies(x) != tt.first || !second.Applies(x) {
			t.Errorf("%s: %v, %v, %v", tt.request, only.Applies(x), first.Applies(x), second.Applies(x))
		}
	}
	if only.Identity != id || first.Identity == id || first.Identity == second.Identity {
		t.Errorf("identities %x, %x, %x", only.Identity, first.Identity, second.Identity)
	}
}
