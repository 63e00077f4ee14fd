package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"headgate/bench/load"
	"headgate/bench/peers"
	"headgate/bench/upstream"
)

// minRate is the share of the asked changes that must have been made: with
// fewer the storm was none.
const minRate = 0.9

type stormSettings struct {
	Duration time.Duration `json:"duration_ns"`
	Rate     int           `json:"changes_per_second"`
	Conns    int           `json:"connections"`
	Seed     uint64        `json:"seed"`
	Out      string        `json:"-"`
	Headgate string        `json:"-"`
}

func (s *stormSettings) parse(args []string, notes io.Writer) error {
	fs := flag.NewFlagSet("bench storm", flag.ContinueOnError)
	fs.DurationVar(&s.Duration, "duration", time.Minute, "length of the storm")
	fs.IntVar(&s.Rate, "rate", 50, "configuration changes per second")
	fs.IntVar(&s.Conns, "conns", 32, "keep-alive connections")
	fs.Uint64Var(&s.Seed, "seed", 1, "of the series of changes")
	fs.StringVar(&s.Out, "out", "", "write the result as JSON to bench/results/`NAME`.json (a value with a slash is a path)")
	fs.StringVar(&s.Headgate, "headgate", "bin/headgate", "Headgate's `binary`")
	if err := parse(fs, args, notes); err != nil {
		return err
	}
	if s.Duration <= 0 || s.Rate < 1 || s.Rate > 10_000 || s.Conns < 1 {
		return errors.New("duration must be above 0, rate 1 to 10000, conns at least 1")
	}
	return nil
}

// stormResult is a finished storm, as written to a file.
type stormResult struct {
	Machine  machine       `json:"machine"`
	Settings stormSettings `json:"settings"`
	Version  string        `json:"version"`
	Wall     time.Duration `json:"wall_ns"`
	Requests load.Counts   `json:"requests"`
	P50      time.Duration `json:"request_p50_ns"`
	P99      time.Duration `json:"request_p99_ns"`
	Changes  changeCounts  `json:"changes"`
	Problem  string        `json:"problem,omitempty"` // the gateway ended, or lost requests on the way to the upstream
}

func storm(ctx context.Context, args []string, out, notes io.Writer) error {
	var s stormSettings
	if err := s.parse(args, notes); err != nil {
		return err
	}
	m := thisMachine()
	r, err := newRig()
	if err != nil {
		return err
	}
	defer r.close()
	sim, err := r.startSelf(ctx, "upstream", nil)
	if err != nil {
		return err
	}
	params, err := newParams(r.dir, sim)
	if err != nil {
		return err
	}
	peer := peers.Storm(s.Headgate)
	argv, err := peer.Prepare(params)
	if err != nil {
		return err
	}
	gateway, err := r.start(ctx, peer.Name, params.Listen, argv, nil)
	if err != nil {
		return err
	}
	if err := gateway.waitReady(ctx, params.Admin); err != nil {
		return err
	}
	fmt.Fprintf(notes, "bench: a storm of %v, %d changes a second\n", s.Duration, s.Rate)
	result, err := runStorm(ctx, s, params)
	if err != nil {
		return errors.Join(err, gateway.alive())
	}
	result.Machine, result.Version = m, peer.Version(ctx)
	if err := gateway.alive(); err != nil {
		result.Problem = err.Error()
	}
	if err := result.print(out); err != nil {
		return err
	}
	if err := writeJSON(s.Out, result); err != nil {
		return err
	}
	return result.verdict()
}

// runStorm needs a gateway and a simulator that run where params say.
func runStorm(ctx context.Context, s stormSettings, params peers.Params) (stormResult, error) {
	plan := newPlanner(s.Seed, params.Upstream)
	w := newWriter(params)
	defer w.client.CloseIdleConnections()
	if err := w.apply(ctx, plan.split()); err != nil {
		return stormResult{}, err
	}
	if w.counts.failed() > 0 {
		return stormResult{}, fmt.Errorf("the route under load could not be made: %s", w.counts.First)
	}
	w.reset()
	seen, err := upstreamCounts(ctx, params.Upstream)
	if err != nil {
		return stormResult{}, err
	}

	g := load.Start(ctx, load.Config{
		Addr: params.Listen, Conns: s.Conns, Timeout: answerLimit,
		Request: chatRequest(params.Listen), WantBody: len(upstream.Body()),
	})
	g.Measure(true)
	began := time.Now()
	err = w.run(ctx, plan, s)
	wall := time.Since(began)
	counts, latency := g.Stop()
	if err != nil {
		return stormResult{}, err
	}
	now, err := upstreamCounts(ctx, params.Upstream)
	if err != nil {
		return stormResult{}, err
	}
	result := stormResult{
		Settings: s, Wall: wall, Requests: counts, P50: latency.Quantile(0.5), P99: latency.Quantile(0.99),
		Changes: w.counts.finish(w.latency),
	}
	if n := now.Sub(seen); n.V1+n.V2 < counts.Done {
		result.Problem = fmt.Sprintf("%d answers, but the upstream saw %+v", counts.Done, n)
	}
	return result, nil
}

// changeCounts says what became of the changes.
type changeCounts struct {
	Done   map[string]int `json:"done"`    // 2xx, by kind
	Failed map[string]int `json:"refused"` // any other status or none, by kind
	Stale  int            `json:"stale"`   // acknowledged, but the next request did not see it
	First  string         `json:"first_failure,omitempty"`
	P50    time.Duration  `json:"p50_ns"` // from the request to its 2xx
	P99    time.Duration  `json:"p99_ns"`
	Max    time.Duration  `json:"max_ns"`
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func (c *changeCounts) failed() int { return sum(c.Failed) + c.Stale }

func (c *changeCounts) note(failure string) {
	if c.First == "" {
		c.First = failure
	}
}

func (c changeCounts) finish(latency *load.Histogram) changeCounts {
	c.P50, c.P99, c.Max = latency.Quantile(0.5), latency.Quantile(0.99), latency.Quantile(1)
	return c
}

// writer makes changes, one after the other, and looks at each result from outside.
type writer struct {
	client         *http.Client
	admin, gateway string // host:port
	key            string
	counts         changeCounts
	latency        *load.Histogram
}

func newWriter(params peers.Params) *writer {
	w := &writer{
		client: &http.Client{Timeout: answerLimit, Transport: &http.Transport{}},
		admin:  params.Admin, gateway: params.Listen, key: params.Key,
	}
	w.reset()
	return w
}

func (w *writer) reset() {
	w.counts = changeCounts{Done: map[string]int{}, Failed: map[string]int{}}
	w.latency = new(load.Histogram)
}

// run makes the changes of plan at the asked rate until the storm is over. The
// schedule is fixed: after a slow change the next ones follow without a pause.
func (w *writer) run(ctx context.Context, plan *planner, s stormSettings) error {
	began := time.Now()
	total := max(int(s.Duration.Seconds()*float64(s.Rate)), 1)
	for i := range total {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(s.Rate))
		if err := sleep(ctx, time.Until(due)); err != nil {
			return err
		}
		if time.Since(began) > s.Duration {
			break
		}
		if err := w.apply(ctx, plan.next()); err != nil {
			return err
		}
	}
	return sleep(ctx, time.Until(began.Add(s.Duration)))
}

// apply makes one change. An error means that ctx ended; what the gateway does
// wrong is counted.
func (w *writer) apply(ctx context.Context, c change) error {
	began := time.Now()
	status, body, err := w.do(ctx, c.method, w.admin, c.path, c.contentType, c.body)
	took := time.Since(began)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		w.counts.Failed[c.kind]++
		w.counts.note(fmt.Sprintf("%s %s: %v", c.method, c.path, err))
		return nil
	case status < 200 || status > 299:
		w.counts.Failed[c.kind]++
		w.counts.note(fmt.Sprintf("%s %s: status %d: %s", c.method, c.path, status, body))
		return nil
	}
	w.counts.Done[c.kind]++
	w.latency.Record(took)
	if c.probe == "" {
		return nil
	}
	status, _, err = w.do(ctx, http.MethodPost, w.gateway, c.probe, "application/json", `{}`)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || status != c.probeStatus {
		w.counts.Stale++
		w.counts.note(fmt.Sprintf("after %s of %s: POST %s gave %d, want %d (%v)", c.kind, c.path, c.probe, status, c.probeStatus, err))
	}
	return nil
}

func (w *writer) do(ctx context.Context, method, addr, path, contentType, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if addr == w.admin {
		req.Header.Set("X-API-KEY", w.key)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	const bodyLimit = 64 << 10
	b, err := io.ReadAll(io.LimitReader(res.Body, bodyLimit))
	return res.StatusCode, string(b), err
}

func (r stormResult) print(out io.Writer) error {
	c, q := r.Changes, r.Requests
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
	fmt.Fprintf(tw, "\n%s, %d cores, Linux %s, %s, load average at start %s\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.Load)
	fmt.Fprintf(tw, "%s\n\n", r.Version)
	fmt.Fprintf(tw, "time\t%v\n", r.Wall.Round(time.Millisecond))
	fmt.Fprintf(tw, "good requests\t%d (%.0f/s)\n", q.Done, float64(q.Done)/r.Wall.Seconds())
	fmt.Fprintf(tw, "wrong status\t%d\n", q.Status)
	fmt.Fprintf(tw, "resets\t%d\n", q.Reset)
	fmt.Fprintf(tw, "other errors\t%d\n", q.Errors()-q.Status-q.Reset)
	fmt.Fprintf(tw, "request p50, p99\t%s, %s\n", ms(r.P50), ms(r.P99))
	fmt.Fprintf(tw, "changes done\t%d (%.1f/s) %v\n", sum(c.Done), float64(sum(c.Done))/r.Wall.Seconds(), c.Done)
	fmt.Fprintf(tw, "changes refused, stale\t%d, %d\n", sum(c.Failed), c.Stale)
	fmt.Fprintf(tw, "change p50, p99, max\t%s, %s, %s\n\n", ms(c.P50), ms(c.P99), ms(c.Max))
	return tw.Flush()
}

// verdict is an error when a request was lost, a change was refused or not in
// force when acknowledged, or when there were too few changes for a storm.
func (r stormResult) verdict() error {
	var errs []error
	if r.Problem != "" {
		errs = append(errs, errors.New(r.Problem))
	}
	if r.Requests.Errors() > 0 || r.Requests.Done == 0 {
		errs = append(errs, fmt.Errorf("%d requests lost: %+v", r.Requests.Errors(), r.Requests))
	}
	if r.Changes.failed() > 0 {
		errs = append(errs, fmt.Errorf("%d changes refused, %d stale; first: %s", sum(r.Changes.Failed), r.Changes.Stale, r.Changes.First))
	}
	asked := r.Settings.Duration.Seconds() * float64(r.Settings.Rate)
	if done := sum(r.Changes.Done); float64(done) < minRate*asked {
		errs = append(errs, fmt.Errorf("only %d of %.0f changes were made in the time", done, asked))
	}
	return errors.Join(errs...)
}
