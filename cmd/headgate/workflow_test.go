package main

import (
	"fmt"
	"testing"

	"headgate/conf"
)

// The limit of a rule of workflow stands in for the limit of the same kind that the route has, for the requests of the rule (contract
// section 4.4).
func TestWorkflowStandsInForTheRoutesLimit(t *testing.T) {
	up := newUpstream(t, "up", nil)
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{
		"limit-count":{"count":1,"time_window":86400,"rejected_code":429},
		"workflow":{"rules":[{"case":[["arg_a","==","1"]],"actions":[["limit-count",{"count":3,"time_window":86400,"rejected_code":430}]]}]}}}`)
	got := ""
	for _, path := range []string{"/", "/?a=1", "/?a=1", "/", "/?a=1", "/?a=1", "/"} {
		got += fmt.Sprint(g.send("GET", "http://"+g.addr+path, "").status, " ")
	}
	if want := "200 200 200 429 200 430 429 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
