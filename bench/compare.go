package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"headgate/bench/load"
	"headgate/bench/peers"
	"headgate/bench/upstream"
)

const (
	relayName   = "relay"
	epollName   = "relay-epoll"
	checkedName = "headgate" // the target that -check is about
	chainName   = "headgate-chain"
	bareName    = "headgate-bare"
	answerLimit = 10 * time.Second
)

// settings are the flags of a comparison, kept with its result.
type settings struct {
	Targets     string        `json:"targets"`
	Floor       string        `json:"floor"` // the target that ratios refer to
	Rounds      int           `json:"rounds"`
	Duration    time.Duration `json:"duration_ns"`
	Warmup      time.Duration `json:"warmup_ns"`
	Conns       int           `json:"connections"`
	Workers     int           `json:"workers"`    // nginx workers, HAProxy threads
	GoMaxProcs  int           `json:"gomaxprocs"` // of the relays and Headgate; 0: left to the program
	Log         bool          `json:"access_log"`
	Out         string        `json:"-"`
	Check       float64       `json:"check,omitempty"`
	CheckChain  float64       `json:"check_chain,omitempty"`
	Headgate    string        `json:"-"`
	InstallDebs bool          `json:"-"`
}

func (s *settings) parse(args []string, notes io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&s.Targets, "targets", "", "comma-separated `names` to measure (default: all that are installed)")
	fs.StringVar(&s.Floor, "floor", relayName, "`target` that all others are compared with: "+relayName+" or "+epollName)
	fs.IntVar(&s.Rounds, "rounds", 7, "rounds; each measures every target once, in rotated order")
	fs.DurationVar(&s.Duration, "duration", 2*time.Second, "measured time per target and round")
	fs.DurationVar(&s.Warmup, "warmup", 300*time.Millisecond, "load before each measurement")
	fs.IntVar(&s.Conns, "conns", 32, "keep-alive connections")
	fs.IntVar(&s.Workers, "workers", 1, "nginx worker processes and HAProxy threads")
	fs.IntVar(&s.GoMaxProcs, "gomaxprocs", 0, "GOMAXPROCS of the relays and Headgate (0: unset)")
	fs.BoolVar(&s.Log, "log", false, "every proxy writes an access log to a file, not only Headgate with the split")
	fs.StringVar(&s.Out, "out", "", "write the result as JSON to bench/results/`NAME`.json (a value with a slash is a path)")
	fs.Float64Var(&s.Check, "check", 0, "fail when headgate's median `ratio` to the floor is above this")
	fs.Float64Var(&s.CheckChain, "check-chain", 0, "fail when the median `ratio` of "+chainName+" to "+bareName+" is above this")
	fs.StringVar(&s.Headgate, "headgate", "bin/headgate", "Headgate's `binary`")
	fs.BoolVar(&s.InstallDebs, "install", true, "install missing Debian packages when root")
	if err := parse(fs, args, notes); err != nil {
		return err
	}
	if s.Rounds < 1 || s.Conns < 1 || s.Workers < 1 || s.GoMaxProcs < 0 || s.Warmup < 0 || s.Duration < 10*tick {
		return fmt.Errorf("rounds, conns and workers start at 1, gomaxprocs and warmup at 0, duration at %v (CPU time comes in steps of %v)", 10*tick, tick)
	}
	if s.Floor != relayName && s.Floor != epollName {
		return fmt.Errorf("the floor is %s or %s, not %q", relayName, epollName, s.Floor)
	}
	return nil
}

// target is a running proxy.
type target struct {
	name    string
	version string
	addr    string
	splits  bool
	process *process
	samples []sample
}

// sample is one target's part of one round.
type sample struct {
	Requests uint64        `json:"requests"` // while measured
	CPU      time.Duration `json:"cpu_ns"`
	Wall     time.Duration `json:"wall_ns"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	Counts   load.Counts   `json:"counts"` // with the warm-up
	Split    [2]uint64     `json:"split"`  // what the simulator saw on /v1/ and /v2/
	Problem  string        `json:"problem,omitempty"`
}

func (s sample) cpuPerRequest() float64 {
	return float64(s.CPU.Microseconds()) / float64(max(s.Requests, 1))
}

func compare(ctx context.Context, args []string, out, notes io.Writer) error {
	var s settings
	if err := s.parse(args, notes); err != nil {
		return err
	}
	relays, selected, err := choose(ctx, s, notes)
	if err != nil {
		return err
	}
	m := thisMachine()
	r, err := newRig()
	if err != nil {
		return err
	}
	defer r.close()
	c := comparison{settings: s, rig: r}
	if err := c.start(ctx, relays, selected); err != nil {
		return err
	}
	if err := c.run(ctx, notes); err != nil {
		return err
	}
	result := newResult(s, m, c.targets)
	if err := result.print(out); err != nil {
		return err
	}
	if err := writeJSON(s.Out, result); err != nil {
		return err
	}
	return errors.Join(result.verdict(s.Check), result.chainVerdict(s.CheckChain))
}

// choose says what to measure. Targets that were asked for by name must be
// there; of the others, those that are missing are left out with a note.
func choose(ctx context.Context, s settings, notes io.Writer) (relays []string, selected []peers.Peer, err error) {
	all := peers.All(s.Headgate)
	names := strings.Split(s.Targets, ",")
	if s.Targets == "" {
		names = []string{relayName, epollName}
		for _, p := range all {
			names = append(names, p.Name)
		}
	}
	var missing []string
	for _, name := range names {
		i := slices.IndexFunc(all, func(p peers.Peer) bool { return p.Name == name })
		switch {
		case name == relayName || name == epollName:
			relays = append(relays, name)
		case i < 0:
			return nil, nil, fmt.Errorf("unknown target %q", name)
		default:
			selected = append(selected, all[i])
			if _, err := all[i].Binary(); err != nil && all[i].Package != "" {
				missing = append(missing, all[i].Package)
			}
		}
	}
	if len(missing) > 0 && s.InstallDebs {
		fmt.Fprintln(notes, "bench: installing", strings.Join(missing, ", "))
		if err := peers.Install(ctx, missing); err != nil {
			fmt.Fprintln(notes, "bench:", err)
		}
	}
	var absent []error
	selected = slices.DeleteFunc(selected, func(p peers.Peer) bool {
		_, err := p.Binary()
		if err != nil {
			absent = append(absent, err)
		}
		return err != nil
	})
	if len(absent) > 0 && s.Targets != "" {
		return nil, nil, errors.Join(absent...)
	}
	for _, err := range absent {
		fmt.Fprintln(notes, "bench: left out:", err)
	}
	return relays, selected, nil
}

// comparison is a run of the rig: one simulator, all targets in front of it.
type comparison struct {
	settings settings
	rig      *rig
	upstream string
	targets  []*target
}

// start runs the simulator and every target. All stay up for the whole run;
// the ones that are not measured are idle.
func (c *comparison) start(ctx context.Context, relays []string, selected []peers.Peer) error {
	var err error
	if c.upstream, err = c.rig.startSelf(ctx, "upstream", nil); err != nil {
		return err
	}
	for _, name := range relays {
		addr, err := c.rig.startSelf(ctx, name, goEnv(c.settings.GoMaxProcs), c.upstream)
		if err != nil {
			return err
		}
		c.targets = append(c.targets, &target{name: name, addr: addr, process: c.rig.processes[len(c.rig.processes)-1]})
	}
	for _, p := range selected {
		params, err := newParams(c.rig.dir, c.upstream)
		if err != nil {
			return err
		}
		params.Workers, params.Log = c.settings.Workers, c.settings.Log
		argv, err := p.Prepare(params)
		if err != nil {
			return err
		}
		var env []string
		if p.Go {
			env = goEnv(c.settings.GoMaxProcs)
		}
		process, err := c.rig.start(ctx, p.Name, params.Listen, argv, env)
		if err != nil {
			return err
		}
		c.targets = append(c.targets, &target{
			name: p.Name, version: p.Version(ctx), addr: params.Listen, splits: p.Splits, process: process,
		})
	}
	return nil
}

// startSelf runs one of the rig's own sub-commands on a free address.
func (r *rig) startSelf(ctx context.Context, command string, env []string, args ...string) (addr string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	addrs, err := freeAddrs(1)
	if err != nil {
		return "", err
	}
	_, err = r.start(ctx, command, addrs[0], append([]string{self, command, addrs[0]}, args...), env)
	return addrs[0], err
}

// newParams picks the addresses and the key of one proxy.
func newParams(dir, upstream string) (peers.Params, error) {
	addrs, err := freeAddrs(4)
	if err != nil {
		return peers.Params{}, err
	}
	return peers.Params{
		Dir: dir, Upstream: upstream, Listen: addrs[0], Admin: addrs[1], Metrics: addrs[2], Control: addrs[3],
		Key: rand.Text() + rand.Text(), // 52 characters; the Admin API asks for 32
	}, nil
}

func (c *comparison) run(ctx context.Context, notes io.Writer) error {
	for round := range c.settings.Rounds {
		fmt.Fprintf(notes, "round %d of %d:", round+1, c.settings.Rounds)
		for i := range c.targets {
			t := c.targets[(i+round)%len(c.targets)]
			s, err := c.measure(ctx, t)
			if err != nil {
				fmt.Fprintln(notes)
				return fmt.Errorf("%s: %w", t.name, err)
			}
			t.samples = append(t.samples, s)
			fmt.Fprintf(notes, "  %s %.1f µs", t.name, s.cpuPerRequest())
		}
		fmt.Fprintln(notes)
	}
	return nil
}

// measure loads one target. Errors are the rig's own; what the target does
// wrong is in the sample.
func (c *comparison) measure(ctx context.Context, t *target) (s sample, err error) {
	seen, err := upstreamCounts(ctx, c.upstream)
	if err != nil {
		return sample{}, err
	}
	g := load.Start(ctx, load.Config{
		Addr: t.addr, Conns: c.settings.Conns, Timeout: answerLimit,
		Request: chatRequest(t.addr), WantBody: len(upstream.Body()),
	})
	err = c.window(ctx, t, g, &s)
	counts, latency := g.Stop()
	if err != nil {
		return sample{}, err
	}
	s.Counts, s.P50, s.P99 = counts, latency.Quantile(0.5), latency.Quantile(0.99)
	now, err := upstreamCounts(ctx, c.upstream)
	if err != nil {
		return sample{}, err
	}
	now = now.Sub(seen)
	s.Split = [2]uint64{now.V1, now.V2}
	s.Problem = problem(t, s, now)
	return s, nil
}

// window takes the readings at both ends of the measured time.
func (c *comparison) window(ctx context.Context, t *target, g *load.Generator, s *sample) error {
	if err := sleep(ctx, c.settings.Warmup); err != nil {
		return err
	}
	cpu, err := treeCPU(t.process.cmd.Process.Pid)
	if err != nil {
		return errors.Join(err, t.process.alive())
	}
	began, done := time.Now(), g.Done()
	g.Measure(true)
	if err := sleep(ctx, c.settings.Duration); err != nil {
		return err
	}
	g.Measure(false)
	s.Requests, s.Wall = g.Done()-done, time.Since(began)
	end, err := treeCPU(t.process.cmd.Process.Pid)
	if err != nil {
		return errors.Join(err, t.process.alive())
	}
	s.CPU = end - cpu
	return nil
}

// splitSlack is how far the two branches of a 50/50 split may be apart over
// any window of its sequence.
const splitSlack = 2

// problem says what makes a sample worthless, or "".
func problem(t *target, s sample, seen upstream.Counts) string {
	switch {
	case s.Counts.Errors() > 0:
		return fmt.Sprintf("%d errors: %+v", s.Counts.Errors(), s.Counts)
	case s.Requests == 0:
		return "no request was answered"
	case seen.Total() < s.Counts.Done:
		return fmt.Sprintf("%d answers, but the upstream saw %d requests", s.Counts.Done, seen.Total())
	case t.splits && (seen.Other > 0 || max(seen.V1, seen.V2)-min(seen.V1, seen.V2) > splitSlack):
		return fmt.Sprintf("not split in halves: %+v", seen)
	}
	return ""
}

// chatRequest is what every connection sends: 300 bytes of JSON.
func chatRequest(addr string) []byte {
	const (
		head = `{"model":"bench-1","temperature":0.2,"max_tokens":128,"messages":[` +
			`{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"`
		tail = `"}]}`
	)
	body := head + strings.Repeat("Say it again. ", 20)[:300-len(head)-len(tail)] + tail
	return load.PostJSON(addr, "/chat/completions", "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz", []byte(body))
}

func upstreamCounts(ctx context.Context, addr string) (c upstream.Counts, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+upstream.CountsPath, nil)
	if err != nil {
		return c, err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return c, err
	}
	defer res.Body.Close()
	return c, json.NewDecoder(res.Body).Decode(&c)
}
