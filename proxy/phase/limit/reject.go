package limit

import "headgate/proxy/phase"

// Rejection is the answer of a limit: rejected_code and rejected_msg of all three.
type Rejection struct {
	code int
	body []byte // nil: the page of code
}

// NewRejection returns the answer with code, 503 when that is 0, and msg, the page of the code when that is empty.
func NewRejection(code int, msg string) Rejection {
	r := Rejection{code: code}
	if code == 0 {
		r.code = 503
	}
	if msg != "" {
		r.body = phase.MessageBody("error_msg", msg)
	}
	return r
}

// Answer makes r the answer of x.
func (r *Rejection) Answer(x *phase.Exchange) phase.Verdict {
	if r.body == nil {
		x.AnswerPage(r.code)
	} else {
		x.Answer(r.code, phase.TypeText, r.body)
	}
	return phase.Stop
}

// Unable is what becomes of x when a limit cannot be told: it passes if the operator allows that (allow_degradation), else it is answered
// with the page of 500.
func Unable(x *phase.Exchange, pass bool) phase.Verdict {
	if pass {
		return phase.Continue
	}
	x.AnswerPage(500)
	return phase.Stop
}
