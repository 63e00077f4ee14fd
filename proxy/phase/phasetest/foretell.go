package phasetest

import (
	"fmt"
	"testing"

	"headgate/proxy/phase"
)

// Foretell asks instance, a phase.Answerer, what it would answer x with, has it answer, and fails t unless that is what it does and
// asking has left no trace. It returns "status share: why", and "" when x passes.
func Foretell(t testing.TB, instance any, x *phase.Exchange) string {
	t.Helper()
	before := Answer(x)
	f := instance.(phase.Answerer).Foretell(x)
	if after := Answer(x); after != before {
		t.Errorf("to ask has answered: %s", after)
	}
	verdict := phase.Continue
	switch p := instance.(type) {
	case phase.Rewriter:
		verdict = p.Rewrite(x)
	case phase.Accessor:
		verdict = p.Access(x)
	}
	switch {
	case f == nil:
		if verdict == phase.Stop {
			t.Errorf("answers with %d, and has not said so", x.Response.Status)
		}
		return ""
	case f.Share <= 0 || f.Share > 1 || f.Why == "":
		t.Errorf("says %+v", f)
	case f.Share == 1 && verdict != phase.Stop:
		t.Errorf("lets pass what it would answer: %+v", f)
	case verdict == phase.Stop && f.Status != 0 && f.Status != x.Response.Status:
		t.Errorf("answers with %d, and has said %+v", x.Response.Status, f)
	}
	return fmt.Sprintf("%d %v: %s", f.Status, f.Share, f.Why)
}
