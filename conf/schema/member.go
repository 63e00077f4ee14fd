package schema

// Member returns a member of a document, or absent when there is none of type T. Names compare exactly, as they do in a schema. doc may be
// nil.
func Member[T any](doc map[string]any, name string, absent T) T {
	if v, ok := doc[name].(T); ok {
		return v
	}
	return absent
}

// Texts returns the strings in a member that is a list, nil when there are none.
func Texts(doc map[string]any, name string) []string {
	var list []string
	for _, v := range Member[[]any](doc, name, nil) {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list
}
