// Package resource knows the documents that operators store (routes, services, upstreams): what they may look like, what they mean
// once defaults are applied, and the exact words in which a wrong one is refused (Admin API contract sections 1.2 to 1.7, 3.1, 3.4).
// It is pure: no IO, no run-time state. Documents are judged as they were sent; defaults exist on the typed forms only.
package resource

// Kind is one sort of document.
type Kind struct {
	Segment string // in paths and keys: "routes"
	Word    string // in messages: "route"
}

// Kinds lists every kind, sorted by Segment.
func Kinds() []Kind {
	return []Kind{
		{Segment: segmentRoutes, Word: "route"},
		{Segment: segmentServices, Word: "service"},
		{Segment: segmentUpstreams, Word: "upstream"},
	}
}

const (
	segmentRoutes    = "routes"
	segmentServices  = "services"
	segmentUpstreams = "upstreams"
)

// KindOf finds the kind by its path segment.
func KindOf(segment string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Segment == segment {
			return k, true
		}
	}
	return Kind{}, false
}

// Key returns the store key of the document id: "routes/1".
func (k Kind) Key(id string) string { return k.Segment + "/" + id }
