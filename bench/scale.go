package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The steps of a run at scale.
const (
	stepPlain     = "plain"     // routes without plugins in the embedded store: start and memory
	stepPlugins   = "plugins"   // routes with plugins in the embedded store: start, memory, edits, requests during edits
	stepMem       = "mem"       // the same without a disk: edits, requests during edits
	stepFile      = "file"      // plain routes in a TOML file: start
	stepEtcd      = "etcd"      // routes with plugins in an etcd: start, edits
	stepConsumers = "consumers" // many consumers: requests with keys, edits
)

var allSteps = []string{stepPlain, stepPlugins, stepMem, stepFile, stepEtcd, stepConsumers}

type scaleSettings struct {
	Steps     []string      `json:"steps"`
	Routes    int           `json:"routes"`
	Hosts     int           `json:"hosts"`
	Consumers int           `json:"consumers"`
	Edits     int           `json:"edits"` // one after the other
	Rate      int           `json:"edits_per_second"`
	Load      int           `json:"requests_per_second"`
	Conns     int           `json:"connections"`
	Duration  time.Duration `json:"window_ns"`
	Rounds    int           `json:"rounds"`
	Starts    int           `json:"starts"`
	Out       string        `json:"-"`
	Headgate  string        `json:"-"`
}

func (s *scaleSettings) parse(args []string, notes io.Writer) error {
	fs := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	steps := fs.String("steps", strings.Join(allSteps, ","), "what to measure")
	fs.IntVar(&s.Routes, "routes", 100_000, "number of routes")
	fs.IntVar(&s.Hosts, "hosts", 10_000, "number of hosts that they are spread over")
	fs.IntVar(&s.Consumers, "consumers", 100_000, "number of consumers")
	fs.IntVar(&s.Edits, "edits", 2000, "edits one after the other, each looked at from outside")
	fs.IntVar(&s.Rate, "rate", 1000, "edits per second while requests run")
	fs.IntVar(&s.Load, "load", 1000, "requests per second")
	fs.IntVar(&s.Conns, "conns", 16, "keep-alive connections of the requests")
	fs.DurationVar(&s.Duration, "duration", 5*time.Second, "length of one window of requests")
	fs.IntVar(&s.Rounds, "rounds", 3, "windows without edits, and as many with")
	fs.IntVar(&s.Starts, "starts", 3, "cold starts, of which the best counts")
	fs.StringVar(&s.Out, "out", "", "write the result as JSON to bench/results/`NAME`.json (a value with a slash is a path)")
	fs.StringVar(&s.Headgate, "headgate", "bin/headgate", "Headgate's `binary`")
	if err := parse(fs, args, notes); err != nil {
		return err
	}
	s.Steps = strings.Split(*steps, ",")
	for _, step := range s.Steps {
		if !slices.Contains(allSteps, step) {
			return fmt.Errorf("unknown step %q, known: %s", step, strings.Join(allSteps, ", "))
		}
	}
	for _, n := range []int{s.Routes, s.Hosts, s.Consumers, s.Edits, s.Rate, s.Load, s.Conns, s.Rounds, s.Starts} {
		if n < 1 {
			return errors.New("every number must be at least 1")
		}
	}
	if s.Hosts > s.Routes || s.Duration <= 0 {
		return errors.New("hosts must not be more than routes, and duration must be above 0")
	}
	return nil
}

// What issue 3 part D asks for. The edits are measured from outside, client and
// loopback included; with the disk of the embedded store they have no bound.
const (
	startLimit = 5 * time.Second
	editLimit  = 2 * time.Millisecond // p99
	heapLimit  = 4 << 10              // bytes of a plain route
)

func scale(ctx context.Context, args []string, out, notes io.Writer) error {
	var s scaleSettings
	if err := s.parse(args, notes); err != nil {
		return err
	}
	m := thisMachine()
	r, err := newRig()
	if err != nil {
		return err
	}
	defer r.close()
	simulator, err := r.startSelf(ctx, "upstream", nil)
	if err != nil {
		return err
	}
	result := scaleResult{Machine: m, Settings: s}
	for _, step := range s.Steps {
		fmt.Fprintf(notes, "bench: scale: %s\n", step)
		run := scaleRun{scaleSettings: s, rig: r, step: step, simulator: simulator, notes: notes, result: &result}
		if err := run.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	if err := result.print(out); err != nil {
		return err
	}
	if err := writeJSON(s.Out, result); err != nil {
		return err
	}
	return result.verdict()
}
