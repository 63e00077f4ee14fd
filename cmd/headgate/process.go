package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf"
	"headgate/conf/seal"
	"headgate/conf/store"
	"headgate/conf/store/lent"
	"headgate/plugins"
	proxycache "headgate/plugins/proxy-cache"
	"headgate/proxy"
	"headgate/proxy/accesslog"
	"headgate/proxy/admin"
	"headgate/proxy/admin/control"
	"headgate/proxy/admin/metricsd"
	"headgate/proxy/admin/status"
	"headgate/proxy/admin/v3"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/overload"
	"headgate/proxy/route"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
)

// process is a running Headgate: every room, wired.
type process struct {
	conf   atomic.Pointer[conf.Config]
	logf   func(format string, args ...any)
	failed chan error // a listener that ended on its own

	meter    *meter.Registry
	hub      *upstream.Hub
	compiler *snapshot.Compiler
	store    store.Store
	sealer   *seal.Sealer // nil when documents are stored as they are
	audit    *auditLog
	offload  *offload.Pool
	mirrors  *offload.Pool // a pool of their own: a dead mirror keeps nothing else waiting
	// cacheDisk writes what proxy-cache keeps on disk: a slow disk keeps nothing else waiting.
	cacheDisk *offload.Pool
	applier   *proxy.Applier
	cache     *proxycache.Cache
	log       *accesslog.Writer
	memory    *overload.Process // nil without a limit
	server    *proxy.Server
	keys      atomic.Pointer[[]v3.Key]

	lent      *lent.Store       // the store, when no other process can have it at the same time; else nil
	sockets   []socket          // all listeners
	gateways  []*proxy.Listener // for clients
	secure    []*proxy.Listener // for clients over TLS
	operators []operator
	serving   sync.WaitGroup
}

// operator is a listener for those who run the gateway.
type operator struct {
	name     string
	listener *proxy.Listener
	server   *fasthttp.Server
}

// start brings everything up, or nothing: when it fails, what had been started is stopped again. ctx ends what it waits for.
// What listens already is taken from in.
func start(ctx context.Context, c *conf.Config, in *inheritance, logf func(format string, args ...any)) (_ *process, err error) {
	p := &process{logf: logf, failed: make(chan error, 8), meter: meter.New("")}
	p.conf.Store(c)
	defer func() {
		if err != nil {
			p.stop(context.Background())
		}
	}()
	generated, err := c.EnsureAdminKey()
	if err != nil {
		return nil, err
	}
	if generated != "" {
		logf("no admin key is configured: using the one in %s (send it as X-API-KEY)", generated)
	}
	for _, w := range c.Warnings(time.Now()) {
		logf("WARNING: %s", w)
	}
	if err = p.openParts(ctx, c, in); err != nil {
		return nil, err
	}
	if err = p.listen(ctx, c, in); err != nil {
		return nil, err
	}
	p.inheritState(in)
	p.gauges()
	p.serve()
	return p, nil
}

// openParts makes everything below the listeners.
func (p *process) openParts(ctx context.Context, c *conf.Config, in *inheritance) (err error) {
	if p.offload, err = offload.New(64, func(r any) { p.logf("background task: %v", r) }); err != nil {
		return err
	}
	if p.mirrors, err = offload.New(256, func(r any) { p.logf("mirrored request: %v", r) }); err != nil {
		return err
	}
	if p.cacheDisk, err = offload.New(64, func(r any) { p.logf("cache on disk: %v", r) }); err != nil {
		return err
	}
	if p.sealer, err = newSealer(c); err != nil {
		return err
	}
	if err = in.takeStore(); err != nil {
		return err
	}
	if p.store, p.lent, err = openStore(ctx, c, p.sealer, p.logf); err != nil {
		return err
	}
	if p.audit, err = openAudit(c.Audit.Path, p.logf); err != nil {
		return err
	}
	dropped := p.meter.Counter(meter.AccessLogDropped)
	if p.log, err = accesslog.Open(c.AccessLog.Path, accesslog.Options{
		Buffer: c.AccessLog.BufferSize.Int(), Flush: c.AccessLog.FlushInterval.Std(), Dropped: func(n int) { dropped.Add(int64(n)) },
	}); err != nil {
		return err
	}
	live := &snapshot.Live{}
	if p.compiler, p.hub, err = newCompiler(c, live, p.meter, p.connectFailed(), p.pluginOptions(c), p.logf); err != nil {
		return err
	}
	p.hub.WatchBreakers(upstream.BreakerOptions{Meter: p.meter, Logf: p.logf, Audit: p.audit.line})
	p.cache.Start()
	p.hub.CheckHealth(upstream.HealthOptions{Meter: p.meter, Prefix: c.Store.Etcd.Prefix, Logf: p.logf})
	inline, err := inlineDocuments(c)
	if err != nil {
		return err
	}
	if p.applier, err = proxy.StartApplier(ctx, proxy.ApplierOptions{
		Compiler: p.compiler, Store: p.store, Offload: p.offload, Meter: p.meter, Logf: p.logf, Inline: inline,
		Lenient: lenience(c), ReadOnly: readOnly(c), Audit: p.audit.line,
	}); err != nil {
		return located(c, err)
	}
	p.server, err = p.newServer(c, live)
	return err
}

// newCompiler makes the compiler of c and the hub that its upstreams use. live shows an empty snapshot afterwards. logf is nil for a trial.
func newCompiler(c *conf.Config, live *snapshot.Live, m *meter.Registry, failed func(string, *fault.Fault, error), o plugins.Options, logf func(string, ...any)) (*snapshot.Compiler, *upstream.Hub, error) {
	mode, err := route.ParseMode(c.Gateway.Router)
	if err != nil {
		return nil, nil, err
	}
	defaults, err := upstreamDefaults(c)
	if err != nil {
		return nil, nil, err
	}
	certificates, err := certificateOptions(c)
	if err != nil {
		return nil, nil, err
	}
	hub, err := newHub(c, m, failed, logf)
	if err != nil {
		return nil, nil, err
	}
	compiler, err := snapshot.NewCompiler(live, snapshot.Options{
		Kinds: plugins.List(o), Hub: hub, Meter: m, Defaults: defaults, Mode: mode,
		CountAll: !c.Compat.On(conf.CountOnlyWithPlugin), Inert: c.Compat.AcceptInert, LookupEnv: os.LookupEnv, TLS: certificates,
		GlobalTwinsStop: c.Compat.On(conf.GlobalTwinsStop), BareNodeHost: c.Compat.On(conf.SplitHostWithoutPort),
	})
	if err != nil {
		hub.Close()
		return nil, nil, err
	}
	return compiler, hub, nil
}

func upstreamDefaults(c *conf.Config) (upstream.Defaults, error) {
	u := c.Upstream
	d := upstream.Defaults{
		Connect: u.ConnectTimeout.Std(), Send: u.SendTimeout.Std(), Read: u.ReadTimeout.Std(),
		Pool:    upstream.PoolOptions{Size: u.KeepaliveSize, IdleTimeout: u.KeepaliveIdle.Std(), MaxRequests: u.KeepaliveRequests, MaxAge: u.KeepaliveAge.Std()},
		TLS:     upstream.TLSOptions{Verify: u.TLSVerify && !c.Compat.On(conf.UnverifiedUpstreamTLS)},
		MaxHead: u.MaxResponseHeader.Int(), RetryBudget: u.RetryBudget, NextNode: u.NextNode.Std(),
		Lines: upstream.AnswerLines{
			PassHops: c.Compat.On(conf.HopHeaders), PassNamed: c.Compat.On(conf.ConnectionNamedHeaders), EndAccel: c.Compat.On(conf.AccelHeadersEnd),
		},
		NoteUnmade: c.Compat.On(conf.UnmadeAttemptStatus), KeepUnknownTypes: c.Compat.On(conf.UnknownBalancers),
		KeepUnservedSchemes: c.Compat.On(conf.UnservedSchemes),
	}
	if c.Compat.On(conf.NoRestForNodes) {
		d.NextNode = 0
	}
	if u.CAFile != "" {
		pem, err := os.ReadFile(u.CAFile)
		if err != nil {
			return d, fmt.Errorf("upstream.ca_file: %w", err)
		}
		d.TLS.Roots = x509.NewCertPool()
		if !d.TLS.Roots.AppendCertsFromPEM(pem) {
			return d, fmt.Errorf("upstream.ca_file: %s has no PEM certificate", u.CAFile)
		}
	}
	return d, nil
}

// connectFailed logs connections that could not be made, at most one line a second for each endpoint.
func (p *process) connectFailed() func(string, *fault.Fault, error) {
	var mu sync.Mutex
	last := map[string]time.Time{}
	return func(endpoint string, f *fault.Fault, err error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last[endpoint]) >= time.Second {
			if len(last) > 10_000 {
				clear(last)
			}
			last[endpoint] = now
			p.logf("upstream %s: %s: %v", endpoint, f.Code, err)
		}
	}
}

func (p *process) listen(ctx context.Context, c *conf.Config, in *inheritance) error {
	open := func(setting, addr string) (*proxy.Listener, error) {
		l, err := in.listen(ctx, setting, addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		p.sockets = append(p.sockets, socket{setting + " " + addr, l})
		return l, nil
	}
	for _, addr := range c.Gateway.Listen {
		l, err := open("gateway.listen", addr)
		if err != nil {
			return err
		}
		p.gateways = append(p.gateways, l)
	}
	for _, addr := range c.Gateway.TLS.Listen {
		l, err := open("gateway.tls.listen", addr)
		if err != nil {
			return err
		}
		p.secure = append(p.secure, l)
	}
	add := func(name, addr string, s *fasthttp.Server) error {
		l, err := open(name+".listen", addr)
		if err != nil {
			return err
		}
		p.operators = append(p.operators, operator{name, l, s})
		return nil
	}
	if c.Admin.Enabled {
		s, err := p.adminServer(c)
		if err != nil {
			return err
		}
		if err := add("admin", c.Admin.Listen, s); err != nil {
			return err
		}
	}
	if c.Metrics.Enabled {
		s := metricsd.NewServer(metricsd.Options{Path: c.Metrics.Path, Write: p.meter.Write, Logf: p.logf})
		if err := add("metrics", c.Metrics.Listen, s); err != nil {
			return err
		}
	}
	if c.Control.Enabled {
		explainer := proxy.NewExplainer(p.server, p.applier)
		s := control.NewServer(control.Options{
			Health: p.hub.Health, Breakers: proxy.NewBreakers(p.applier, p.hub.Gates(), p.audit.line),
			Explain: func(request []byte) (any, error) { return explainer.Explain(request) },
			Mask:    seal.NewMasker(secretFields()).MaskDocument,
			Plane:   p.applier.InForce(), Ready: p.server.Ready, LeftOut: p.applier.LeftOut, Plugins: p.compiler,
			Discovery: p.discoveries(c),
			Server:    "APISIX/" + c.Compat.APIVersion, Logf: p.logf,
		})
		if err := add("control", c.Control.Listen, s); err != nil {
			return err
		}
	}
	if c.Status.Enabled {
		return add("status", c.Status.Listen, status.NewServer(status.Options{Ready: p.server.Ready, Logf: p.logf}))
	}
	return nil
}

func (p *process) adminServer(c *conf.Config) (*fasthttp.Server, error) {
	allow, err := conf.ParsePrefixes(c.Admin.Allow)
	if err != nil {
		return nil, fmt.Errorf("admin.allow: %w", err)
	}
	p.setKeys(c)
	return v3.New(v3.Options{
		Plane: p.applier, Keys: func() []v3.Key { return *p.keys.Load() }, KeyRequired: c.Admin.KeyRequired, Allow: allow,
		CORS: c.Admin.CORS, APIVersion: c.Compat.APIVersion, Prefix: c.Store.Etcd.Prefix, Plugins: p.compiler, Checks: p.compiler, Lenient: lenience(c),
		Sealer: p.sealer, HTMLErrors: c.Compat.On(conf.HTMLErrorPages), ConfigsMaxBody: c.Admin.MaxConfigsSize.Int(),
		Audit: p.audit.line, Logf: admin.Logf(p.logf),
	}).NewServer(), nil
}

func (p *process) setKeys(c *conf.Config) {
	keys := v3.KeysOf(c.Admin.Keys)
	p.keys.Store(&keys)
}

// gauges registers what is counted elsewhere.
func (p *process) gauges() {
	p.meter.Collect(meter.UpstreamConnections, []string{"state"}, func(emit meter.Emit) {
		open, idle := p.hub.Connections()
		emit(float64(idle), "idle")
		emit(float64(max(open-idle, 0)), "busy")
	})
	p.meter.Collect(meter.AdminKeyExpiryDays, []string{"name"}, func(emit meter.Emit) {
		for _, k := range p.conf.Load().Admin.Keys {
			if days, limited := k.DaysLeft(time.Now()); limited {
				emit(days, k.Name)
			}
		}
	})
	p.meter.Collect(meter.EtcdIndexes, []string{"key"}, func(emit meter.Emit) {
		emit(float64(p.applier.Revision()), "max_modify_index")
	})
	p.storeGauges()
	const leftOut = "headgate_config_left_out"
	p.meter.Gauge(leftOut, func() float64 { return float64(p.applier.CountLeftOut()) })
	p.meter.Describe(leftOut, "Documents of the store that are not in force, or not wholly; /v1/left_out lists them with the reasons.")
	host, _ := os.Hostname()
	p.meter.Gauge(meter.NodeInfo, func() float64 { return 1 },
		meter.Label{Name: "hostname", Value: host}, meter.Label{Name: "version", Value: p.conf.Load().Compat.APIVersion})
}

func (p *process) serve() {
	run := func(name string, l net.Listener, serve func(net.Listener) error) {
		p.serving.Add(1)
		go func() {
			defer p.serving.Done()
			if err := serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
				p.failed <- fmt.Errorf("%s listener %s: %w", name, l.Addr(), err)
			}
		}()
		p.logf("%s listens on %s", name, l.Addr())
	}
	for _, l := range p.gateways {
		run("gateway", l, p.server.Serve)
	}
	for _, l := range p.secure {
		run("gateway, TLS", l, p.server.ServeTLS)
	}
	for _, o := range p.operators {
		run(o.name, o.listener, func(l net.Listener) error { return o.server.Serve(admin.Linger(l)) })
	}
}

// addr returns where the operators' listener called name is.
func (p *process) addr(name string) string {
	for _, o := range p.operators {
		if o.name == name {
			return o.listener.Addr().String()
		}
	}
	return ""
}

// idleGrace is how long, while draining, an idle connection may still bring a request.
const idleGrace = time.Second

// drain ends the service as the configuration says: go on accepting for drain_delay, while readiness is down and answers tell their
// clients to go, then finish what runs, within drain_timeout. A process that another one has taken over from has nobody to wait for. What is
// cut when that time is over is counted in the log; it is no failure of the process, which was asked to give just so much time.
func (p *process) drain(takenOver bool) {
	c := p.conf.Load()
	p.server.Leave()
	if takenOver {
		for _, o := range p.operators {
			_ = o.listener.Close()
		}
		p.applier.Close() // the store is the other's
	} else {
		time.Sleep(c.Gateway.DrainDelay.Std())
	}
	for _, l := range slices.Concat(p.gateways, p.secure) {
		if takenOver {
			_ = l.Close() // who waits in its queue is accepted by the other process
		} else {
			l.Finish()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Gateway.DrainTimeout.Std())
	defer cancel()
	cut := p.server.Drain(ctx, idleGrace)
	p.stop(ctx)
	if cut > 0 {
		p.logf("%d requests were cut off by drain_timeout", cut)
	}
}

// stop ends everything that start has begun, in the opposite order. It may be called on a process that is only half up.
func (p *process) stop(ctx context.Context) {
	for _, l := range slices.Concat(p.gateways, p.secure) {
		_ = l.Close()
	}
	for _, o := range p.operators {
		_ = o.listener.Close()
		_ = o.server.ShutdownWithContext(ctx)
	}
	if p.server != nil {
		p.server.Drain(ctx, 0)
	}
	p.serving.Wait()
	if p.memory != nil {
		p.memory.Close()
	}
	if p.applier != nil {
		p.applier.Close()
	}
	if p.compiler != nil {
		p.compiler.Close()
	}
	if p.hub != nil {
		p.hub.Close()
	}
	if p.log != nil {
		if err := p.log.Close(); err != nil {
			p.logf("access log: %v", err)
		}
	}
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			p.logf("store: %v", err)
		}
	}
	if p.audit != nil {
		p.audit.close()
	}
	if p.cache != nil {
		p.cache.Close()
	}
	if p.cacheDisk != nil {
		_ = p.cacheDisk.Close(time.Second)
	}
	if p.offload != nil {
		_ = p.offload.Close(time.Second)
	}
	if p.mirrors != nil {
		_ = p.mirrors.Close(time.Second)
	}
}
