package resource

import (
	"errors"
	"strings"
)

// Merge lays patch over old as a PATCH does (contract section 1.5): objects merge member by member, null deletes a member, anything
// else replaces. A patch that is not an object replaces old altogether, except that an empty array over an object changes nothing at
// the top level, where the contract takes it for an empty object. Neither argument is changed; the result shares parts with both.
// Merging the same patch twice gives what merging it once gives.
func Merge(old, patch any) any {
	if list, ok := patch.([]any); ok && len(list) == 0 {
		if _, ok := old.(map[string]any); ok {
			return old
		}
	}
	return merge(old, patch)
}

func merge(old, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	from, _ := old.(map[string]any)
	merged := make(map[string]any, len(from)+len(changes))
	for name, v := range from {
		merged[name] = v
	}
	for name, change := range changes {
		if change == nil {
			delete(merged, name)
			continue
		}
		merged[name] = merge(from[name], change)
	}
	return merged
}

// SetPath assigns value at path inside doc, making the objects that are missing on the way. doc is changed, also when an error is
// returned: work on a copy that can be thrown away. The text of the error is the contract's, whose gateway joins the segments from the
// first one that leads nowhere with "1" (apisix-observed on section 1.5).
func SetPath(doc map[string]any, path []string, value any) error {
	if len(path) == 0 {
		return errors.New("invalid sub-path: /")
	}
	at := doc
	for i, name := range path[:len(path)-1] {
		next, ok := at[name]
		if !ok {
			next = map[string]any{}
		}
		obj, ok := asObject(next)
		if !ok {
			return errors.New("invalid sub-path: /" + strings.Join(path[i:], "1"))
		}
		at[name] = obj
		at = obj
	}
	at[path[len(path)-1]] = value
	return nil
}
