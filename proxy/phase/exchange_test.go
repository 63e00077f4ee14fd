package phase

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
	"headgate/proxy/route"
)

func TestKeptBytesStayApart(t *testing.T) {
	var x Exchange
	var kept [][]byte
	var want []string
	note := func(b []byte, text string) { kept, want = append(kept, b), append(want, text) }
	for i := range 200 { // the arena grows and moves several times
		text := string(bytes.Repeat([]byte{byte('a' + i%26)}, i%37))
		note(x.Keep([]byte(text)), text)
		note(x.Commit(append(x.Arena(), "<"+text+">"...)), "<"+text+">")
	}
	for i, b := range kept {
		if string(b) != want[i] {
			t.Fatalf("piece %d became %q, want %q", i, b, want[i])
		}
	}
	// Appending to a piece must not run into the next one.
	for i := range kept {
		_ = append(kept[i], "!!!!!!!!"...)
	}
	for i, b := range kept {
		if string(b) != want[i] {
			t.Fatalf("after appends piece %d became %q, want %q", i, b, want[i])
		}
	}
}

func TestArenaThatIsNotCommittedIsFree(t *testing.T) {
	var x Exchange
	first := x.Keep([]byte("first"))
	_ = append(x.Arena(), "given up"...)
	second := x.Keep([]byte("second"))
	if string(first) != "first" || string(second) != "second" {
		t.Errorf("got %q and %q", first, second)
	}
}

// fill sets everything that can be set in v, at any depth, to something that is not zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			if !f.CanSet() {
				f = reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem()
			}
			fill(t, f)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range 3 {
			fill(t, v.Index(i))
		}
	case reflect.String:
		v.SetString("left behind")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(77)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(77)
	case reflect.Pointer:
		switch v.Interface().(type) {
		case *Settings, *Chain, *Route, *Principal, *fault.Fault, *time.Location:
			v.Set(reflect.New(v.Type().Elem()))
		}
	case reflect.Interface:
		switch {
		case v.NumMethod() == 0:
			v.Set(reflect.ValueOf("left behind"))
		case reflect.TypeOf(&countedStream{}).Implements(v.Type()):
			v.Set(reflect.ValueOf(&countedStream{}))
		case reflect.TypeOf(fakeUpstream{}).Implements(v.Type()):
			v.Set(reflect.ValueOf(fakeUpstream{}))
		}
	}
}

// countedStream is a response body that counts its closings.
type countedStream struct{ closed int }

func (*countedStream) Next() ([]byte, error) { return nil, nil }
func (s *countedStream) Close()              { s.closed++ }

type fakeUpstream struct{}

func (fakeUpstream) Name() string                   { return "fake" }
func (fakeUpstream) Forward(*Exchange) *fault.Fault { return nil }

func TestResetLeavesNothingBehind(t *testing.T) {
	x := &Exchange{}
	fill(t, reflect.ValueOf(x).Elem())
	x.Reset()

	// What may stay is memory without content, and the text of the present second.
	for name, b := range map[string][]byte{"arena": x.arena, "held": x.held, "Wire.Out": x.Wire.Out, "Wire.In": x.Wire.In} {
		if len(b) != 0 || cap(b) == 0 {
			t.Errorf("%s: length %d, capacity %d", name, len(b), cap(b))
		}
	}
	if x.Request.Header.Len()+x.Response.Header.Len()+len(x.slots[RouteSlots])+len(x.captures) != 0 {
		t.Error("headers, slots or captures have content")
	}
	for _, class := range x.slots {
		for _, s := range class[:cap(class)] {
			if s != (Slot{}) {
				t.Errorf("a slot holds %v", s)
			}
		}
	}
	for _, c := range x.captures[:cap(x.captures)] {
		if c != nil {
			t.Errorf("a capture holds %q", c)
		}
	}
	x.arena, x.held, x.Wire.Out, x.Wire.In, x.captures = nil, nil, nil, nil, nil
	x.slots = [slotClasses][]Slot{}
	if x.Response.Trailers.Announced.Len()+x.Response.Trailers.Fields.Len() != 0 {
		t.Error("trailers are left")
	}
	x.Request.Header, x.Response.Header, x.Response.Trailers = Header{}, Header{}, Trailers{}
	x.clock = localTime{}
	v := reflect.ValueOf(x).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; name != "Scratch" && !v.Field(i).IsZero() {
			t.Errorf("%s is %v", name, v.Field(i))
		}
	}
}

func TestResetDropsLargeBuffers(t *testing.T) {
	x := &Exchange{}
	x.Keep(make([]byte, maxKept+1))
	x.Wire.In, x.Wire.Out = make([]byte, maxKept+1), make([]byte, 100)
	x.Reset()
	if cap(x.arena) != 0 || cap(x.Wire.In) != 0 || cap(x.Wire.Out) != 100 {
		t.Errorf("kept: arena %d, in %d, out %d", cap(x.arena), cap(x.Wire.In), cap(x.Wire.Out))
	}
}

func TestSlotsKeepTheirContentWhenTheRouteBecomesKnown(t *testing.T) {
	var x Exchange
	global := SlotRange{Class: GlobalSlots}
	ofGlobal := global.Reserve()
	x.Enter(NewChainOf(nil, nil, global), nil)
	x.Slot(ofGlobal).Int = 5
	var own SlotRange
	first, last := own.Reserve(), own.Reserve()
	x.Enter(NewChainOf(nil, nil, global), NewChainOf(nil, nil, own))
	if x.Slot(ofGlobal).Int != 5 || *x.Slot(first) != (Slot{}) || *x.Slot(last) != (Slot{}) {
		t.Errorf("slots: %v", x.slots)
	}
	x.Slot(last).Int = 7
	x.Reset()
	x.Enter(NewChainOf(nil, nil, global), NewChainOf(nil, nil, own))
	for _, i := range []int{ofGlobal, first, last} {
		if *x.Slot(i) != (Slot{}) {
			t.Errorf("slot %d of the next exchange holds %v", i, *x.Slot(i))
		}
	}
}

func TestCaptures(t *testing.T) {
	var x Exchange
	x.SetCaptures([][]byte{[]byte("whole"), []byte("one"), []byte("two")})
	x.SetCaptures([][]byte{[]byte("w"), []byte("1")})
	for i, want := range map[int]string{-1: "", 0: "w", 1: "1", 2: "", 99: ""} {
		if got := x.Capture(i); string(got) != want || (want == "") != (got == nil) {
			t.Errorf("group %d is %q", i, got)
		}
	}
}

// TestSleep: a delay lasts as long as it should, and ends when the client leaves, whether that is before it or in its midst.
func TestSleep(t *testing.T) {
	x := sample()
	x.Fault = nil
	begun := time.Now()
	if v := x.Sleep(5 * time.Millisecond); v != Continue || time.Since(begun) < 5*time.Millisecond || x.Fault != nil {
		t.Errorf("%v after %v, %v", v, time.Since(begun), x.Fault)
	}
	x.Presence = &netpoll.Presence{}
	if v := x.Sleep(time.Millisecond); v != Continue || x.Stage != InAttempt {
		t.Errorf("%v, stage %d", v, x.Stage)
	}
	go x.Presence.Leave()
	for range 2 {
		if v := x.Sleep(time.Hour); v != Stop || x.Fault != fault.ClientGone || x.Stage != InPlugin || x.Response.Status != 499 {
			t.Errorf("%v, %v, stage %d, status %d", v, x.Fault, x.Stage, x.Response.Status)
		}
	}
}

func TestAttempts(t *testing.T) {
	var a Attempts
	if got := a.AppendStatuses(nil); len(got) != 0 || a.Took() != 0 {
		t.Errorf("nothing tried: %q, %v", got, a.Took())
	}
	for i := range maxStatuses + 3 {
		a.Note(500 + i)
	}
	if a.Count != maxStatuses+3 || string(a.AppendStatuses(nil)) != "500, 501, 502, 503, 504, 505, 506, 507" {
		t.Errorf("%d attempts, %q", a.Count, a.AppendStatuses(nil))
	}
	a.Begun, a.Connected = 5*time.Millisecond, 9*time.Millisecond
	if a.Took() != 4*time.Millisecond {
		t.Errorf("a connection that was made and nothing more took %v", a.Took())
	}
	if a.Head = 20 * time.Millisecond; a.Took() != 15*time.Millisecond {
		t.Errorf("up to the head: %v", a.Took())
	}
}

// sample is an exchange in its last phase, with every fact set.
func sample() *Exchange {
	x := &Exchange{
		Route:    &Route{ID: "r1", Name: "chat", ServiceID: "s7", ServiceName: "ai", Key: "routes/r1"},
		Upstream: fakeUpstream{},
		Branch:   "v2",
		Decision: Decision{1, Bucket{PlaceBucket, 7}, "v2"},
		Revision: 12,
		Consumer: Consumer{Name: "jack", Group: "gold"},
		Client: Client{
			Addr: netip.MustParseAddr("192.0.2.7"), Text: []byte("192.0.2.7"), Port: 4711,
			ServerAddr: []byte("198.51.100.1"), ServerPort: 9080,
		},
		Start:        time.Date(2026, 3, 9, 8, 7, 6, 54_999_999, time.FixedZone("", -(5*3600+1800))),
		ConnRequests: 3,
	}
	x.Begin(&Settings{Version: "1.2.3", APIVersion: "3.18.0", Hostname: "edge"})
	q := &x.Request
	q.Method, q.RawPath, q.Query, q.Authority = []byte("POST"), []byte("/a%20b/"), []byte("k=v&k=w&e=%41+b&flag"), []byte("API.example.com:9080")
	q.Path, q.Host, q.Length = []byte("/a b/"), []byte("api.example.com"), 321
	q.ContentType, q.Body = []byte("application/x-www-form-urlencoded; charset=utf-8"), []byte("user=J%C3%BC&n=1")
	q.OutTarget, q.OutHost = []byte("/v2/chat"), []byte("up.example.com")
	q.Header = *lines("Accept: a", "X-Tag: 1", "Cookie: a=1; b=2; a=3", "x-tag: 2", "X_Tag: 3", "Cookie: c=4; b=5", "Authorization: bAsIc amFjazpzZWNyZXQ=")
	x.Fault = fault.BadHead
	x.Response.Status, x.Response.Sent = 502, 42
	x.Response.Header = *lines("Server: up", "X-Y: z")
	a := &x.Attempts
	a.Addr = "10.0.0.8:8443"
	a.Note(504)
	a.Addr, a.Node, a.NodePort = "10.0.0.9:8443", "10.0.0.9", 8443
	a.Note(502)
	a.Begun, a.Connected, a.Head, a.End = time.Millisecond, 11*time.Millisecond, 1511*time.Millisecond, 2001*time.Millisecond
	x.Match = route.Match{NParams: 1, URI: "/:x"}
	x.Match.Params[0] = route.Param{Name: "x", Value: []byte("42")}
	return x
}
