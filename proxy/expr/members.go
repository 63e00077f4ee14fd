package expr

import "slices"

// members are the scalars of a literal, which compare strictly: text with text, numbers with numbers.
type members struct {
	texts []string
	// set replaces a long list of texts.
	set     map[string]struct{}
	numbers []float64
	bools   []string // by name
}

// linearMembers is how long a list may be before a set is faster.
const linearMembers = 8

func newMembers(elements []any) members {
	var m members
	for _, element := range elements {
		if num, ok := number(element); ok {
			m.numbers = append(m.numbers, num)
			continue
		}
		s, ok := text(element)
		if !ok {
			continue
		}
		if _, ok := element.(bool); ok {
			m.bools = append(m.bools, s)
		} else {
			m.texts = append(m.texts, s)
		}
	}
	if len(m.texts) > linearMembers {
		m.set = make(map[string]struct{}, len(m.texts))
		for _, s := range m.texts {
			m.set[s] = struct{}{}
		}
	}
	return m
}

func (m *members) contain(value []byte, kind Kind) bool {
	switch kind {
	case Text:
		if m.set != nil {
			_, ok := m.set[string(value)]
			return ok
		}
		return containsText(m.texts, value)
	case Number:
		num, ok := parseNumber(value)
		return ok && slices.Contains(m.numbers, num)
	case Bool:
		return containsText(m.bools, value)
	default:
		return false
	}
}

func containsText(texts []string, value []byte) bool {
	for _, s := range texts {
		if string(value) == s {
			return true
		}
	}
	return false
}
