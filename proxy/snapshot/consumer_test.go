package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

const authNumber = 0 // of the rig's authentication plugin

// who returns who shows key: "name group credential-id", "" for nobody.
func (r *rig) who(key string) string {
	s := r.live.Current()
	c := s.Credential(authNumber, []byte(key))
	if c == nil {
		return ""
	}
	if p := s.Principal(c.Name); p != c.Principal {
		r.t.Errorf("%s is %p by credential and %p by name", c.Name, c.Principal, p)
	}
	return strings.TrimSpace(c.Name + " " + c.Group + " " + c.ID)
}

func TestConsumers(t *testing.T) {
	r := newRig(t)
	r.put("consumers/jack", `{"username":"jack","plugins":{"auth":{"key":"k1"},"low":{"id":"own"}},"labels":{"custom_id":"c-7"}}`)
	if r.who("k1") != "jack" || r.who("k2") != "" {
		t.Fatalf("k1 is %q, k2 is %q", r.who("k1"), r.who("k2"))
	}
	p := r.live.Current().Principal("jack")
	if p.CustomID != "c-7" || !slices.Equal(p.Chain.Names, []string{"low"}) {
		t.Errorf("jack is %+v with %v", p.Consumer, p.Chain.Names)
	}
	// Credentials are documents of their own, and may come before their consumer.
	r.put("consumers/jill/credentials/c1", `{"id":"c1","plugins":{"auth":{"key":"k3"}}}`)
	if r.who("k3") != "" {
		t.Error("a credential without a consumer works")
	}
	r.put("consumers/jill", `{"username":"jill","group_id":"g"}`)
	r.put("consumers/jack/credentials/c1", `{"id":"c1","plugins":{"auth":{"key":"k2"}}}`)
	if r.who("k3") != "jill g c1" || r.who("k2") != "jack  c1" || r.who("k1") != "jack" {
		t.Errorf("k1 %q, k2 %q, k3 %q", r.who("k1"), r.who("k2"), r.who("k3"))
	}
	if r.live.Current().Principal("jill").Chain != nil {
		t.Error("jill has plugins")
	}
	// A key that is changed, switched off or deleted works no longer.
	r.put("consumers/jack", `{"username":"jack","plugins":{"auth":{"key":"k4"}}}`)
	r.put("consumers/jack/credentials/c1", `{"id":"c1","plugins":{"auth":{"key":"k2","_meta":{"disable":true}}}}`)
	if r.who("k1") != "" || r.who("k4") != "jack" || r.who("k2") != "" {
		t.Errorf("k1 %q, k4 %q, k2 %q", r.who("k1"), r.who("k4"), r.who("k2"))
	}
	r.put("consumers/jill/credentials/c1", "", "consumers/jack", "", "consumers/jack/credentials/c1", "")
	r.put("consumers/jill", "")
	if s := r.live.Current(); r.who("k3") != "" || r.who("k4") != "" || s.registry.credentials.size+s.registry.principals.size != 0 {
		t.Errorf("left behind: %d credentials, %d consumers", s.registry.credentials.size, s.registry.principals.size)
	}
	if len(r.c.users)+len(r.c.deps)+len(r.c.folders)+len(r.c.consumers)+len(r.c.state) != 0 {
		t.Errorf("left behind: users %v, deps %v, folders %v", r.c.users, r.c.deps, r.c.folders)
	}
}

func TestOneIdentityHasOneOwner(t *testing.T) {
	r := newRig(t)
	first, second := `{"username":"a","plugins":{"auth":{"key":"k"}}}`, `{"username":"b","plugins":{"auth":{"key":"k"}}}`
	r.put("consumers/a", first)
	r.refuse("duplicate key found with consumers/a", "consumers/b", second)
	if attr, owner := r.c.CredentialOwner("auth", map[string]any{"key": "k"}, "consumers/b"); attr != "key" || owner != "consumers/a" {
		t.Errorf("the owner is %q, by %q", owner, attr)
	}
	if _, owner := r.c.CredentialOwner("auth", map[string]any{"key": "k"}, "consumers/a"); owner != "" {
		t.Errorf("consumers/a meets itself as %q", owner)
	}
	// From a store it is left out, and comes into force when the other gives the key up.
	if left := r.offer("consumers/b", second, "consumers/c/credentials/1", `{"id":"1","plugins":{"auth":{"key":"k"}}}`, "consumers/c", `{"username":"c"}`); !slices.Equal(left, []string{"consumers/b", "consumers/c/credentials/1"}) {
		t.Errorf("left out %v", left)
	}
	if r.who("k") != "a" || r.live.Current().Principal("c") == nil {
		t.Errorf("k is %q", r.who("k"))
	}
	r.put("consumers/a", "")
	if r.who("k") != "b" {
		t.Errorf("after its owner went, k is %q", r.who("k"))
	}
	r.put("consumers/b", `{"username":"b"}`)
	if r.who("k") != "c  1" {
		t.Errorf("after the next one gave it up, k is %q", r.who("k"))
	}
	// One change may hand it on.
	r.put("consumers/b", second, "consumers/c", "", "consumers/c/credentials/1", "")
	if r.who("k") != "b" {
		t.Errorf("handed on, k is %q", r.who("k"))
	}
}

func TestConsumersThatDoNotCompile(t *testing.T) {
	r := newRig(t)
	good := `{"username":"a","plugins":{"auth":{"key":"k"},"mid":{"id":"1"}}}`
	for _, bad := range []string{
		`{"username":"a","plugins":{"auth":{"key":"unusable"}}}`, `{"username":"a","plugins":{"auth":{"key":7}}}`,
		`{"username":"a","plugins":{"mid":{"fail":true}}}`, `{"username":"a","plugins":{"none":{}}}`, `{"username":7}`,
	} {
		r.refuse("", "consumers/a", bad)
		r.put("consumers/a", good, "consumers/a/credentials/1", `{"id":"1","plugins":{"auth":{"key":"other"}}}`)
		if left := r.offer("consumers/a", bad); len(left) != 1 || r.who("k") != "a" || r.who("other") != "a  1" {
			t.Errorf("%s: left out %v, k is %q", bad, left, r.who("k"))
		}
		// The version in force goes on following its credentials.
		r.offer("consumers/a/credentials/1", `{"id":"1","plugins":{"auth":{"key":"third"}}}`)
		if r.who("other") != "" || r.who("third") != "a  1" {
			t.Errorf("%s: other is %q, third is %q", bad, r.who("other"), r.who("third"))
		}
		if left := r.offer("consumers/a/credentials/1", `{"id":"1","plugins":{"auth":{"key":"unusable"}}}`); !slices.Contains(left, "consumers/a/credentials/1") || r.who("third") != "a  1" {
			t.Errorf("%s: left out %v, third is %q", bad, left, r.who("third"))
		}
		r.offer("consumers/a", "", "consumers/a/credentials/1", "")
		if r.who("k") != "" || len(r.c.left) != 0 {
			t.Errorf("%s: k is %q, left out %v", bad, r.who("k"), r.c.left)
		}
	}
}

// Whoever was to take over what another keeps does not get it, and gets it once the other is gone.
func TestTakeOverOfWhatIsKept(t *testing.T) {
	r := newRig(t)
	r.put("consumers/bb", `{"username":"bb","plugins":{"auth":{"key":"k"}}}`)
	left := r.offer("consumers/aa", `{"username":"aa","plugins":{"auth":{"key":"k"}}}`, "consumers/bb", `{"username":"bb","plugins":{"mid":{"fail":true}}}`)
	slices.Sort(left)
	if !slices.Equal(left, []string{"consumers/aa", "consumers/bb"}) || r.who("k") != "bb" {
		t.Errorf("left out %v, k is %q", left, r.who("k"))
	}
	r.offer("consumers/bb", "")
	if r.who("k") != "aa" {
		t.Errorf("after bb went, k is %q", r.who("k"))
	}
	r.put("consumers/aa", "")
	if r.who("k") != "" || len(r.c.left) != 0 {
		t.Errorf("in the end k is %q, left out %v", r.who("k"), r.c.left)
	}
}

// An edit of a group costs what the group costs, however many consumers it has.
func TestGroups(t *testing.T) {
	r := newRig(t)
	r.put("consumers/a", `{"username":"a","group_id":"g","plugins":{"auth":{"key":"k"}}}`)
	before := r.live.Current().Principal("a")
	if _, ok := r.live.Current().Group("g"); ok {
		t.Error("there is a group")
	}
	r.put("consumer_groups/g", `{"id":"g","plugins":{"low":{"id":"1"}}}`)
	c, ok := r.live.Current().Group("g")
	if !ok || !slices.Equal(c.Names, []string{"low"}) || r.live.Current().Principal("a") != before {
		t.Errorf("group %v, and its consumer was compiled anew", c)
	}
	if left := r.offer("consumer_groups/g", `{"id":"g","plugins":{"low":{"fail":true}}}`); len(left) != 1 {
		t.Error("a group that fails was taken")
	}
	if now, _ := r.live.Current().Group("g"); now != c {
		t.Error("the version before does not stay")
	}
	r.put("consumer_groups/g", "")
	if _, ok := r.live.Current().Group("g"); ok || len(r.c.groups) != 0 {
		t.Error("the group is still there")
	}
}

func TestGlobalRules(t *testing.T) {
	r := newRig(t)
	global := func() string {
		if c := r.live.Current().Global(); c != nil {
			return strings.Join(c.Names, " ")
		}
		return ""
	}
	r.put("global_rules/2", `{"id":"2","plugins":{"high":{"id":"h"}}}`, "global_rules/1", `{"id":"1","plugins":{"low":{"id":"l"}}}`)
	if global() != "high low" {
		t.Errorf("in force: %s", global())
	}
	if id := r.c.GlobalRuleWith(r.lookup, "low", "2"); id != "1" || r.c.GlobalRuleWith(r.lookup, "low", "1") != "" || r.c.GlobalRuleWith(r.lookup, "mid", "") != "" {
		t.Errorf("low is in %q", id)
	}
	// What two rules have runs for the one that was stored first.
	st, err := r.c.Stage(r.lookup, r.edits([]string{"global_rules/3", `{"id":"3","plugins":{"low":{"id":"twin"},"mid":{"id":"m"}}}`}), true)
	if err != nil || len(st.Warnings) != 1 || len(st.Shadowed) != 1 ||
		st.Shadowed["global_rules/3"].Error() != "plugin low runs from global_rules/1, which was stored first" {
		t.Fatalf("%v, warnings %v, shadowed %v", err, st.Warnings, st.Shadowed)
	}
	r.commit(st, []string{"global_rules/3", `{"id":"3","plugins":{"low":{"id":"twin"},"mid":{"id":"m"}}}`})
	if global() != "high mid low" {
		t.Errorf("with twins: %s", global())
	}
	// As the contract has it, it runs for neither.
	r.c.opt.GlobalTwinsStop = true
	r.put("global_rules/2", `{"id":"2","plugins":{"high":{"id":"h"}}}`)
	if global() != "high mid" {
		t.Errorf("with twins that stop: %s", global())
	}
	r.c.opt.GlobalTwinsStop = false
	// A rule that fails keeps its version; the others follow.
	if left := r.offer("global_rules/3", `{"id":"3","plugins":{"mid":{"fail":true}}}`, "global_rules/2", ""); !slices.Equal(left, []string{"global_rules/3"}) || global() != "mid low" {
		t.Errorf("left out %v, in force: %s", left, global())
	}
	r.refuse("told to fail", "global_rules/4", `{"id":"4","plugins":{"high":{"fail":true}}}`)
	if left := r.offer("global_rules/4", `{"id":"4","plugins":{"high":{"fail":true}}}`); !slices.Contains(left, "global_rules/4") || global() != "mid low" {
		t.Errorf("left out %v, in force: %s", left, global())
	}
	// It is not taken for recovered when another rule is edited.
	st, err = r.c.Stage(r.lookup, r.edits([]string{"global_rules/5", `{"id":"5","plugins":{}}`}), true)
	if err != nil || len(st.Recovered) != 0 {
		t.Errorf("%v, recovered %v", err, st.Recovered)
	}
	r.commit(st, []string{"global_rules/5", `{"id":"5","plugins":{}}`})
	if r.c.left["global_rules/4"] == nil {
		t.Errorf("left out: %v", r.c.left)
	}
	r.put("global_rules/5", "")
	r.put("global_rules/3", `{"id":"3","plugins":{"mid":{"id":"again"}}}`)
	r.offer("global_rules/3", "", "global_rules/4", "")
	if global() != "low" || len(r.c.left) != 0 {
		t.Errorf("in the end: %s, left out %v", global(), r.c.left)
	}
	r.put("global_rules/1", "")
	if global() != "" {
		t.Errorf("after all went: %s", global())
	}
}

// The whole order of contract section 2.7 with a consumer and its group.
func TestChainsOfAConsumer(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/x","service_id":"s","plugin_config_id":"p","plugins":{"auth":{}}}`,
		"services/s", `{"plugins":{"low":{"id":"service"},"mid":{"id":"service"},"high":{"id":"service"}}}`,
		"plugin_configs/p", `{"id":"p","plugins":{"mid":{"id":"config"},"high":{"id":"config"}}}`,
		"consumer_groups/g", `{"id":"g","plugins":{"high":{"id":"group"}}}`,
		"consumers/a", `{"username":"a","group_id":"g","plugins":{"auth":{"key":"ka"},"low":{"id":"consumer"}}}`,
		"consumers/b", `{"username":"b","plugins":{"auth":{"key":"kb"},"mid":{"_meta":{"disable":true}}}}`)
	for key, want := range map[string]string{
		"": "high:config mid:config low:service", "ka": "high:group mid:config low:consumer", "kb": "high:config low:service",
	} {
		if got := r.visited("/x", key); got != want {
			t.Errorf("as %q: %s, want %s", key, got, want)
		}
	}
	// An edit of the plugin config is in force for the routes that use it.
	r.put("plugin_configs/p", `{"id":"p","plugins":{"mid":{"id":"edited"}}}`)
	if got := r.visited("/x", ""); got != "high:service mid:edited low:service" {
		t.Errorf("after an edit: %s", got)
	}
}

// visited sends a request through the access phase and returns which instances it met.
func (r *rig) visited(path, key string) string {
	r.t.Helper()
	got := r.must(path)
	s := r.live.Current()
	x := &phase.Exchange{}
	x.Begin(&phase.Settings{})
	x.Registry = s
	x.Request.Header.Add([]byte("Key"), []byte(key))
	x.Enter(s.Global(), got.Chain)
	x.Rewrite()
	var group *phase.Chain
	if p := x.Principal(); p != nil && p.Group != "" {
		group, _ = s.Group(p.Group)
	}
	x.Join(group)
	r.seen = nil
	x.Access()
	return strings.Join(r.seen, " ")
}

func TestLookUpsOfConsumersDoNotAllocate(t *testing.T) {
	r := newRig(t)
	var docs []string
	for i := range 300 {
		docs = append(docs, fmt.Sprintf("consumers/u%d", i), fmt.Sprintf(`{"username":"u%d","plugins":{"auth":{"key":"key-%d"}}}`, i, i))
	}
	r.put(docs...)
	s, key := r.live.Current(), []byte("key-123")
	if n := testing.AllocsPerRun(100, func() {
		if s.Credential(authNumber, key).Name != "u123" || s.Principal("u7") == nil {
			t.Fatal("not found")
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("a look-up allocates %v times", n)
	}
}
