package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// killRoundsEnv overrides how often TestKillLoop kills the gateway.
	killRoundsEnv     = "HEADGATE_KILL_ROUNDS"
	defaultKillRounds = 100
	// killAfter bounds how long the writers are left alone before a kill.
	killAfter = 120 * time.Millisecond
	// killPairs is how many services and upstreams killConfigs writes at a time.
	killPairs = 6
)

// markers are what the gateway holds of a writer's documents: the texts in their desc members, by key.
type markers map[string]string

// with returns m with one of them changed; "" removes it.
func (m markers) with(key, marker string) markers {
	next := maps.Clone(m)
	if marker == "" {
		delete(next, key)
	} else {
		next[key] = marker
	}
	return next
}

// killOperation is one request and what it leads to.
type killOperation struct {
	method, path, body string
	after              markers
	fields             []string // of the header
}

// killWriter is one client of the Admin API that is cut off by every kill. It writes documents of its own, one operation after the
// other, and remembers what the gateway must hold.
type killWriter struct {
	prefixes     []string // of the keys of its documents
	acknowledged markers
	trying       markers // what the operation leads to whose answer did not come; nil when there is none
	next         func(acknowledged markers) killOperation
	done         int
}

// run writes until the gateway is gone.
func (w *killWriter) run(t *testing.T, client *http.Client, admin string) {
	for {
		op := w.next(w.acknowledged)
		w.trying = op.after
		a, err := trySend(client, op.method, "http://"+admin+"/apisix/admin"+op.path, op.body, append(op.fields, "X-API-KEY: "+adminKey)...)
		if err != nil {
			return
		}
		if a.status < 200 || a.status > 299 {
			t.Errorf("%s %s %s: %v", op.method, op.path, op.body, a)
			return
		}
		w.acknowledged, w.trying = op.after, nil
		w.done++
	}
}

// settle compares what is there with what may be there, and takes it for the truth from then on.
func (w *killWriter) settle(t *testing.T, all markers) {
	t.Helper()
	stored := markers{}
	for key, marker := range all {
		for _, prefix := range w.prefixes {
			if strings.HasPrefix(key, prefix) {
				stored[key] = marker
			}
		}
	}
	switch {
	case maps.Equal(stored, w.acknowledged):
	case w.trying != nil && maps.Equal(stored, w.trying): // carried out, only the answer did not arrive
	default:
		t.Fatalf("there is      %v\nacknowledged: %v\ntried:        %v", stored, w.acknowledged, w.trying)
	}
	w.acknowledged, w.trying = stored, nil
}

// answering is a plugin that answers with text, which shows from outside which document is in force.
func answering(text string) string {
	return fmt.Sprintf(`"plugins":{"fault-injection":{"abort":{"http_status":200,"body":%q}}}`, text)
}

// killRoutes writes single documents: PUT, PATCH and DELETE of routes.
func killRoutes(name string, random *rand.Rand, marker func() string) *killWriter {
	return &killWriter{prefixes: []string{"routes/" + name}, acknowledged: markers{}, next: func(now markers) killOperation {
		id := fmt.Sprintf("%s-%d", name, random.IntN(8))
		key, m := "routes/"+id, marker()
		if now[key] != "" {
			switch random.IntN(4) {
			case 0:
				return killOperation{"DELETE", "/" + key, "", now.with(key, ""), nil}
			case 1:
				return killOperation{"PATCH", "/" + key, fmt.Sprintf(`{"desc":%q,%s}`, m, answering(m)), now.with(key, m), nil}
			}
		}
		return killOperation{"PUT", "/" + key, fmt.Sprintf(`{"uri":"/%s","desc":%q,%s}`, id, m, answering(m)), now.with(key, m), nil}
	}}
}

// killConsumer writes a consumer with its credentials, which go together with it.
func killConsumer(random *rand.Rand, marker func() string) *killWriter {
	const consumer = "consumers/jack"
	return &killWriter{prefixes: []string{consumer}, acknowledged: markers{}, next: func(now markers) killOperation {
		m := marker()
		switch {
		case now[consumer] == "":
			return killOperation{"PUT", "/consumers", fmt.Sprintf(`{"username":"jack","desc":%q}`, m), now.with(consumer, m), nil}
		case len(now) == 4:
			return killOperation{"DELETE", "/" + consumer, "", markers{}, nil}
		}
		key := fmt.Sprintf("%s/credentials/c%d", consumer, random.IntN(3))
		return killOperation{"PUT", "/" + key, fmt.Sprintf(`{"desc":%q,"plugins":{"key-auth":{"key":%q}}}`, m, key), now.with(key, m), nil}
	}}
}

// killConfigs writes documents that belong together: whole generations of services and their upstreams through PUT configs.
func killConfigs(marker func() string) *killWriter {
	return &killWriter{prefixes: []string{"services/", "upstreams/"}, acknowledged: markers{}, next: func(markers) killOperation {
		m := marker()
		doc, after := map[string]any{"services_conf_version": json.Number(m), "upstreams_conf_version": json.Number(m)}, markers{}
		for _, kept := range []string{
			"routes", "consumers", "ssls", "global_rules", "plugin_configs", "consumer_groups", "plugin_metadata", "protos", "secrets",
			"stream_routes", "plugins",
		} {
			doc[kept+"_conf_version"] = 0
		}
		var services, upstreams []json.RawMessage
		for i := range killPairs {
			services = append(services, json.RawMessage(fmt.Sprintf(`{"id":"s%d","desc":%q,"upstream_id":"u%d",%s}`, i, m, i, answering(m))))
			upstreams = append(upstreams, json.RawMessage(fmt.Sprintf(`{"id":"u%d","desc":%q,"nodes":{"127.0.0.1:1":1}}`, i, m)))
			after[fmt.Sprintf("services/s%d", i)], after[fmt.Sprintf("upstreams/u%d", i)] = m, m
		}
		doc["services"], doc["upstreams"] = services, upstreams
		body, err := json.Marshal(doc)
		if err != nil {
			panic(err) // there is nothing in it but texts and numbers
		}
		return killOperation{"PUT", "/configs", string(body), after, []string{"X-Digest: " + m}}
	}}
}

// TestKillLoop kills the gateway at random moments while clients write, and looks after every start whether everything that was
// acknowledged is there and in force, and whether what belongs together is there as a whole or not at all.
func TestKillLoop(t *testing.T) {
	rounds := defaultKillRounds
	if text := os.Getenv(killRoundsEnv); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", killRoundsEnv, err)
		}
	}
	var count atomic.Int64
	marker := func() string { return strconv.FormatInt(count.Add(1), 10) }
	source := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(1, n)) }
	k := &killLoop{random: source(0), dir: t.TempDir(), writers: []*killWriter{
		killRoutes("a", source(1), marker), killRoutes("b", source(2), marker), killConsumer(source(3), marker), killConfigs(marker),
	}}
	k.file = childConfig(t, k.dir, "[audit]\npath = \"off\"\n")
	for round := range rounds {
		if !t.Run(strconv.Itoa(round), k.round) {
			return
		}
	}
	total := 0
	for _, w := range k.writers {
		total += w.done
		if w.done < rounds/4 {
			t.Errorf("the writer of %v had only %d operations acknowledged in %d rounds", w.prefixes, w.done, rounds)
		}
	}
	t.Logf("%d kills, %d acknowledged operations", rounds, total)
}

type killLoop struct {
	random    *rand.Rand
	dir, file string
	writers   []*killWriter
}

// round starts the gateway, compares, lets the writers write and kills it.
func (k *killLoop) round(t *testing.T) {
	c := startChild(t, k.dir, "run", "-c", k.file)
	if k.random.IntN(8) == 0 { // a kill during the start
		time.Sleep(time.Duration(k.random.Int64N(int64(killAfter / 2))))
		c.kill()
		c = startChild(t, k.dir, "run", "-c", k.file)
	}
	client := newClient(t)
	stored := k.stored(c, client)
	for _, w := range k.writers {
		w.settle(t, stored)
	}
	k.inForce(c, client)
	var writing sync.WaitGroup
	for _, w := range k.writers {
		admin := c.addr("admin")
		writing.Go(func() { w.run(t, client, admin) })
	}
	time.Sleep(time.Duration(k.random.Int64N(int64(killAfter))))
	c.kill()
	writing.Wait()
}

// stored returns the markers of all documents.
func (k *killLoop) stored(c *child, client *http.Client) markers {
	c.t.Helper()
	all := markers{}
	for _, path := range []string{"/routes", "/consumers", "/consumers/jack/credentials", "/services", "/upstreams"} {
		a := c.at(client, "GET", path, "", adminKey)
		if a.status == http.StatusNotFound && strings.HasSuffix(path, "/credentials") {
			continue
		}
		var list struct {
			List []struct {
				Key   string
				Value struct{ Desc string }
			}
		}
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != http.StatusOK {
			c.t.Fatalf("GET %s: %v, %v", path, a, err)
		}
		for _, item := range list.List {
			all[strings.TrimPrefix(item.Key, "/apisix/")] = item.Value.Desc
		}
	}
	return all
}

// inForce asks for the marker of every route, and through routes to them for that of every service.
func (k *killLoop) inForce(c *child, client *http.Client) {
	c.t.Helper()
	for _, w := range k.writers {
		for key, marker := range w.acknowledged {
			kind, id, _ := strings.Cut(key, "/")
			switch kind {
			case "services":
				if a := c.at(client, "PUT", "/routes/to-"+id, fmt.Sprintf(`{"uri":"/to-%s","service_id":%q}`, id, id), adminKey); a.status > 299 {
					c.t.Errorf("a route to %s: %v", key, a)
				}
				id = "to-" + id
			case "routes":
			default:
				continue
			}
			if a := send(c.t, client, "GET", "http://"+c.addr("gateway")+"/"+id, ""); a.status != http.StatusOK || a.body != marker {
				c.t.Errorf("%s: %v, want %s", key, a, marker)
			}
		}
	}
}
