package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"headgate/bench/load"
	"headgate/bench/upstream"
)

// writeFile writes the world as the file of the file provider.
func (r *scaleRun) writeFile() error {
	var b bytes.Buffer
	for i := range scaleUpstreams {
		fmt.Fprintf(&b, "[[upstreams]]\nid = \"u%d\"\ntype = \"roundrobin\"\nnodes = {%q = 1}\n\n", i, r.simulator)
	}
	for i := range r.Routes {
		pattern, _ := r.world.path(i)
		fmt.Fprintf(&b, "[[routes]]\nid = \"r%d\"\nuri = %q\nhost = %q\nupstream_id = \"u%d\"\n\n", i, pattern, r.world.host(i), i%scaleUpstreams)
	}
	return os.WriteFile(filepath.Join(r.params.Dir, "resources.toml"), b.Bytes(), 0o600)
}

// batchSize is how many operations etcd takes in one transaction by default.
const batchSize = 128

// fillEtcd starts an etcd and writes the world into it, through its JSON gateway.
func (r *scaleRun) fillEtcd(ctx context.Context) error {
	addrs, err := freeAddrs(2)
	if err != nil {
		return err
	}
	client, peer := "http://"+addrs[0], "http://"+addrs[1]
	argv := []string{
		"etcd", "--data-dir", filepath.Join(r.params.Dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer, "--log-level", "error",
	}
	if r.gateway, err = r.rig.start(ctx, "etcd", addrs[0], argv, nil); err != nil {
		return fmt.Errorf("%w (apt-get install etcd-server)", err)
	}
	r.params.Etcd = addrs[0]
	var ops [][]byte
	flush := func() {
		if err != nil || len(ops) == 0 {
			return
		}
		body := append(append([]byte(`{"success":[`), bytes.Join(ops, []byte(","))...), "]}"...)
		var status int
		var text string
		if status, text, err = r.call(ctx, http.MethodPost, client+"/v3/kv/txn", body); err == nil && status != http.StatusOK {
			err = fmt.Errorf("etcd: status %d: %.500s", status, text)
		}
		ops = ops[:0]
	}
	r.world.each(func(key string, doc []byte) {
		encode := base64.StdEncoding.EncodeToString
		ops = append(ops, fmt.Appendf(nil, `{"requestPut":{"key":%q,"value":%q}}`, encode([]byte("/apisix/"+key)), encode(doc)))
		if len(ops) == batchSize {
			flush()
		}
	})
	flush()
	r.gateway = nil // the rig stops etcd, after the gateway
	return err
}

// consumers measures requests that show a key, and edits of one consumer, with
// few consumers and with all.
func (r *scaleRun) consumers(ctx context.Context) error {
	most := r.world.Consumers
	for _, r.world.Consumers = range []int{max(most/100, 1), most} {
		n := r.world.Consumers
		if err := r.empty(ctx); err != nil {
			return err
		}
		if err := r.replace(ctx); err != nil {
			return err
		}
		var latency load.Histogram
		next := func(b []byte, k uint64) []byte { return r.world.askAs(b, pick(k, n)) }
		if err := r.requests(ctx, &latency, len(upstream.Body()), next); err != nil {
			return err
		}
		r.result.latencies(r.step, fmt.Sprintf("request with a key, %d consumers", n), &latency, 0)
		if err := r.consumerEdits(ctx, n); err != nil {
			return err
		}
		r.stop()
	}
	return nil
}

func (r *scaleRun) consumerEdits(ctx context.Context, n int) error {
	writer, err := load.Dial(r.params.Admin, answerLimit)
	if err != nil {
		return err
	}
	defer writer.Close()
	var latency load.Histogram
	var b []byte
	for k := range r.Edits {
		if err := ctx.Err(); err != nil {
			return err
		}
		b = r.world.editConsumer(b[:0], pick(uint64(k), n), k+1)
		d, status, answer, err := timed(writer, b)
		if err != nil || status != http.StatusOK {
			return errors.Join(fmt.Errorf("edit of a consumer: status %d: %.500s (%v)", status, answer, err), r.gateway.alive())
		}
		latency.Record(d)
	}
	r.result.latencies(r.step, fmt.Sprintf("edit, %d consumers", n), &latency, editLimit)
	return nil
}
