package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"headgate/bench/load"
	"headgate/bench/peers"
	"headgate/bench/upstream"
)

// scaleRun is one step of a run at scale: a folder, a store in it, and one
// gateway at a time on both.
type scaleRun struct {
	scaleSettings
	rig       *rig
	step      string
	simulator string
	notes     io.Writer
	result    *scaleResult

	world   world
	params  peers.Params
	gateway *process
	admin   http.Client
}

func (r *scaleRun) do(ctx context.Context) error {
	params, err := newParams(filepath.Join(r.rig.dir, r.step), r.simulator)
	if err != nil {
		return err
	}
	status, err := freeAddrs(1)
	if err != nil {
		return err
	}
	if err := os.Mkdir(params.Dir, 0o700); err != nil {
		return err
	}
	params.Status, params.Store = status[0], "embedded"
	r.params = params
	r.world = world{Routes: r.Routes, Hosts: r.Hosts, Plugins: true, upstream: r.simulator, key: params.Key}
	r.admin = http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{}}
	defer r.admin.CloseIdleConnections()
	defer r.stop()
	switch r.step {
	case stepPlain:
		r.world.Plugins = false
		return r.loaded(ctx)
	case stepPlugins:
		if err := r.loaded(ctx); err != nil {
			return err
		}
		return r.changing(ctx, 0)
	case stepMem:
		r.params.Store = "mem"
		if err := r.empty(ctx); err != nil {
			return err
		}
		if err := r.replace(ctx); err != nil {
			return err
		}
		return r.changing(ctx, editLimit)
	case stepFile:
		r.params.Store, r.world.Plugins = "file", false
		if err := r.writeFile(); err != nil {
			return err
		}
		return r.starts(ctx, nil)
	case stepEtcd:
		r.params.Store = "etcd"
		if err := r.fillEtcd(ctx); err != nil {
			return err
		}
		if err := r.starts(ctx, nil); err != nil {
			return err
		}
		return r.edits(ctx, 0)
	default:
		r.params.Store = "mem"
		r.world = world{Routes: 1, Hosts: 1, Consumers: r.Consumers, upstream: r.simulator, key: params.Key}
		return r.consumers(ctx)
	}
}

// loaded fills the store through the Admin API, measures starts on it and what
// memory a route takes, and leaves a gateway running.
func (r *scaleRun) loaded(ctx context.Context) error {
	if err := r.empty(ctx); err != nil {
		return err
	}
	before, err := r.memory(ctx)
	if err != nil {
		return err
	}
	if err := r.replace(ctx); err != nil {
		return err
	}
	r.stop()
	return r.starts(ctx, &before)
}

// empty starts the gateway on what its store holds.
func (r *scaleRun) empty(ctx context.Context) error {
	_, err := r.start(ctx)
	return err
}

// start starts the gateway and returns how long it took until it was ready.
func (r *scaleRun) start(ctx context.Context) (time.Duration, error) {
	peer := peers.Scale(r.Headgate)
	argv, err := peer.Prepare(r.params)
	if err != nil {
		return 0, err
	}
	if r.result.Version == "" {
		r.result.Version = peer.Version(ctx)
	}
	began := time.Now()
	if r.gateway, err = r.rig.start(ctx, peer.Name+"-"+r.step, r.params.Status, argv, nil); err != nil {
		return 0, err
	}
	status, text, err := r.call(ctx, http.MethodGet, "http://"+r.params.Status+"/status/ready", nil)
	took := time.Since(began)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("not ready: status %d: %s", status, text)
	}
	return took, err
}

func (r *scaleRun) stop() {
	if r.gateway != nil {
		r.gateway.stop()
	}
	r.admin.CloseIdleConnections()
}

// starts measures cold starts; the last gateway stays. before, when not nil, is
// the memory of an empty one.
func (r *scaleRun) starts(ctx context.Context, before *memory) error {
	best, cpu := time.Duration(math.MaxInt64), time.Duration(0)
	for range r.Starts {
		r.stop()
		took, err := r.start(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.notes, "bench: scale: %s: ready after %v\n", r.step, took.Round(time.Millisecond))
		if took < best {
			best = took
			if cpu, err = treeCPU(r.gateway.cmd.Process.Pid); err != nil {
				return err
			}
		}
	}
	r.result.add(figure{Step: r.step, Name: "cold start until ready", Value: best.Seconds(), Unit: "s", Limit: startLimit.Seconds()})
	r.result.add(figure{Step: r.step, Name: "CPU time of it", Value: cpu.Seconds(), Unit: "s"})
	if before == nil {
		return nil
	}
	return r.compareMemory(ctx, *before)
}

func (r *scaleRun) compareMemory(ctx context.Context, before memory) error {
	atStart, err := r.readMemory(ctx)
	if err != nil {
		return err
	}
	now, err := r.memory(ctx)
	if err != nil {
		return err
	}
	limit := 0.0
	if !r.world.Plugins {
		limit = heapLimit
	}
	documents, n := 0, float64(r.Routes)
	r.world.each(func(key string, doc []byte) { documents += len(key) + len(doc) })
	r.result.add(figure{Step: r.step, Name: "live heap per route", Value: (now.live - before.live) / n, Unit: "bytes", Limit: limit})
	r.result.add(figure{Step: r.step, Name: "of it the document", Value: float64(documents) / n, Unit: "bytes"})
	r.result.add(figure{Step: r.step, Name: "RSS per route at the start, without the file", Value: (atStart.anonymous - before.anonymous) / n, Unit: "bytes"})
	r.result.add(figure{Step: r.step, Name: "RSS at the start", Value: atStart.resident / (1 << 20), Unit: "MiB"})
	return nil
}

// replace makes the world the configuration with one PUT.
func (r *scaleRun) replace(ctx context.Context) error {
	body := r.world.configs()
	began := time.Now()
	status, text, err := r.call(ctx, http.MethodPut, "http://"+r.params.Admin+"/apisix/admin/configs", body)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("PUT of the configuration: status %d: %.500s", status, text)
	}
	r.result.add(figure{Step: r.step, Name: fmt.Sprintf("PUT of all in one (%d MiB)", len(body)>>20), Value: time.Since(began).Seconds(), Unit: "s"})
	return err
}

func (r *scaleRun) call(ctx context.Context, method, url string, body []byte) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-API-KEY", r.params.Key)
	req.Header.Set("X-Digest", "scale")
	res, err := r.admin.Do(req)
	if err != nil {
		return 0, "", errors.Join(err, r.gateway.alive())
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// changing measures edits one after the other, and requests with and without a storm of them.
func (r *scaleRun) changing(ctx context.Context, limit time.Duration) error {
	if err := r.edits(ctx, limit); err != nil {
		return err
	}
	return r.storms(ctx)
}

// edits makes one edit after the other and looks at each from outside: the
// next request must see it.
func (r *scaleRun) edits(ctx context.Context, limit time.Duration) error {
	writer, err := load.Dial(r.params.Admin, answerLimit)
	if err != nil {
		return err
	}
	defer writer.Close()
	reader, err := load.Dial(r.params.Listen, answerLimit)
	if err != nil {
		return err
	}
	defer reader.Close()
	var latency load.Histogram
	var b []byte
	for n := range r.Edits {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := pick(uint64(n), r.Routes)
		b = r.world.edit(b[:0], i, n+1)
		took, status, answer, err := timed(writer, b)
		if err != nil || status != http.StatusOK {
			return errors.Join(fmt.Errorf("edit of route %d: status %d: %.500s (%v)", i, status, answer, err), r.gateway.alive())
		}
		latency.Record(took)
		b = r.world.ask(b[:0], i)
		status, answer, err = reader.Do(b)
		if want := fmt.Sprintf("X-Edit: %d\r\n", n+1); err != nil || status != http.StatusOK || !bytes.Contains(answer, []byte(want)) {
			r.result.problem("%s: the request after edit %d of route %d: status %d, %v, %.300q", r.step, n+1, i, status, err, answer)
			break
		}
	}
	r.result.latencies(r.step, "edit, alone", &latency, limit)
	return nil
}

func timed(c *load.Client, request []byte) (took time.Duration, status int, answer []byte, err error) {
	began := time.Now()
	status, answer, err = c.Do(request)
	return time.Since(began), status, answer, err
}

// storms measures requests in windows without edits and with them, in turn.
func (r *scaleRun) storms(ctx context.Context) error {
	var quiet, stormy, edits load.Histogram
	var made load.Counts
	version := 1_000_000
	for range r.Rounds {
		if err := r.window(ctx, &quiet); err != nil {
			return err
		}
		version += 1_000_000
		first := version
		fmt.Fprintf(r.notes, "bench: scale: %s: storm\n", r.step)
		g := load.Start(ctx, load.Config{
			Addr: r.params.Admin, Conns: 4, Timeout: answerLimit, WantBody: load.AnyBody, Rate: float64(r.Rate),
			Next: func(b []byte, n uint64) []byte { return r.world.edit(b, pick(n, r.Routes), first+int(n)) },
		})
		g.Measure(true)
		err := r.window(ctx, &stormy)
		counts, latency := g.Stop()
		if err != nil {
			return err
		}
		made = made.Add(counts)
		edits.Merge(latency)
	}
	if made.Errors() > 0 {
		r.result.problem("%s: edits went wrong: %+v", r.step, made)
	}
	r.result.add(figure{Step: r.step, Name: "edits in the storm", Value: float64(made.Done) / (r.Duration.Seconds() * float64(r.Rounds)), Unit: "/s"})
	r.result.latencies(r.step, "edit, in the storm", &edits, 0)
	r.result.latencies(r.step, "request, no edits", &quiet, 0)
	r.result.latencies(r.step, "request, in the storm", &stormy, 0)
	return nil
}

// window sends requests to all routes for a while.
func (r *scaleRun) window(ctx context.Context, into *load.Histogram) error {
	return r.requests(ctx, into, len(upstream.Body()), func(b []byte, n uint64) []byte { return r.world.ask(b, pick(n, r.Routes)) })
}

func (r *scaleRun) requests(ctx context.Context, into *load.Histogram, size int, next func([]byte, uint64) []byte) error {
	g := load.Start(ctx, load.Config{
		Addr: r.params.Listen, Conns: r.Conns, Timeout: answerLimit, WantBody: size, Rate: float64(r.Load), Next: next,
	})
	g.Measure(true)
	err := sleep(ctx, r.Duration)
	counts, latency := g.Stop()
	into.Merge(latency)
	if err == nil && (counts.Errors() > 0 || counts.Done == 0) {
		r.result.problem("%s: requests went wrong: %+v", r.step, counts)
	}
	return errors.Join(err, r.gateway.alive())
}
