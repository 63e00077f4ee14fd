package limit

import "headgate/proxy/phase"

// Scope says which requests one limit of a configuration counts, and which of them together.
type Scope struct {
	Identity Identity
	Key      Key
	// Optional limits are for the requests that their key has a value for.
	Optional bool
}

// NewScope makes the scope of limit i of the configuration id, of which it is the only one unless several is set. See NewKey.
func NewScope(id Identity, several bool, i int, kind, key string) (s Scope, err error) {
	s.Identity, s.Optional = id, several
	if several {
		s.Identity = id.Part(i)
	}
	s.Key, err = NewKey(kind, key)
	return s, err
}

// Applies says whether the limit is for x.
func (s *Scope) Applies(x *phase.Exchange) bool {
	if !s.Optional {
		return true
	}
	key, ok := s.Key.Append(x.Arena(), x)
	x.Commit(key)
	return ok
}
