package upstream

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// hashKey makes the 64-bit key that consistent hashing keeps requests together by (contract section 3.1, hash_on). A request
// without a value is kept together by its client's address.
type hashKey struct {
	value    vars.Var
	template *vars.Template
}

func newHashKey(on, key string) (*hashKey, error) {
	switch on {
	case "vars":
	case "header":
		key = "http_" + key
	case "cookie":
		key = "cookie_" + key
	case "consumer":
		key = "consumer_name"
	case "vars_combinations":
		t, err := vars.Compile(key)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		return &hashKey{template: t}, nil
	default:
		return nil, fmt.Errorf("hash_on is %q, expected vars, header, cookie, consumer or vars_combinations", on)
	}
	v, _ := vars.Parse(key) // an unknown variable never has a value
	return &hashKey{value: v}, nil
}

func (h *hashKey) of(x *phase.Exchange) uint64 {
	scratch := x.Arena()
	if h.template != nil {
		if text, resolved := h.template.Append(scratch, x); resolved > 0 {
			return xxhash.Sum64(text[len(scratch):])
		}
	} else if v, ok := h.value.Append(scratch, x); ok {
		return xxhash.Sum64(v[len(scratch):])
	}
	return xxhash.Sum64(x.Client.Text)
}
