package trafficsplit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"headgate/conf/resource/split"
	"headgate/proxy/phase/rewrite"
)

// branchMembers are the members of an item of rules that is a branch, sorted.
func branchMembers() []string {
	return []string{"name", "rewrite", "upstream", "upstream_id", "weight"}
}

// checkForm refuses what would be ignored or renamed without a word: members that no branch has, and names that two branches share.
//
// In the contract's form unknown members are legal. The guides' form is checked, where a misspelled member would move traffic.
func checkForm(doc map[string]any) error {
	items, _ := doc["rules"].([]any)
	for i, item := range items {
		m, _ := item.(map[string]any)
		if err := checkItem(m); err != nil {
			return fmt.Errorf("rules: item %d: %w", i+1, err)
		}
	}
	if name := split.Repeated(doc); name != "" {
		return fmt.Errorf("two branches are named %q: the names of one configuration must differ", name)
	}
	return nil
}

// checkItem passes over rules and whatever mixes the two forms, which has an error of its own. A name alone makes an item no branch,
// but it is enough of one for the rest of it to be a misspelling.
func checkItem(item map[string]any) error {
	if has(item, "match", "weighted_upstreams") || !has(item, branchMembers()...) {
		return nil
	}
	if err := onlyMembers(item, "a branch", branchMembers()); err != nil {
		return err
	}
	r, _ := item["rewrite"].(map[string]any)
	if err := onlyMembers(r, "a rewrite", rewrite.Members()); err != nil {
		return fmt.Errorf("rewrite: %w", err)
	}
	return nil
}

// onlyMembers names the first member of m, in the order of names, that isn't known.
func onlyMembers(m map[string]any, what string, known []string) error {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown member %q; %s has %s", name, what, strings.Join(known, ", "))
		}
	}
	return nil
}
