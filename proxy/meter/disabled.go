package meter

import "slices"

// Disabled are labels of the per-route metrics whose value is left empty, by metric, so that what differs in nothing else shares a series
// (contract section 5, disabled_labels). The zero value disables none.
type Disabled struct{ Status, Latency, Bandwidth LabelSet }

// LabelSet is a set of the labels that can be disabled.
type LabelSet uint16

// disableable are the labels in the order of the bits of a LabelSet. What gives a metric its structure is not among them.
var disableable = [...]string{
	"route", "matched_uri", "matched_host", "service", "consumer", "node", "request_type", "request_llm_model", "llm_model", "response_source",
}

// LabelSetOf returns the set of names; names that cannot be disabled are passed over.
func LabelSetOf(names []string) (set LabelSet) {
	for _, name := range names {
		if i := slices.Index(disableable[:], name); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// blank empties the values of labels that are in the set, in place.
func (s LabelSet) blank(labels []Label) []Label {
	if s == 0 {
		return labels
	}
	for i := range labels {
		if n := slices.Index(disableable[:], labels[i].Name); n >= 0 && s&(1<<n) != 0 {
			labels[i].Value = ""
		}
	}
	return labels
}
