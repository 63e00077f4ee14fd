package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/valyala/fasthttp"

	"headgate/conf"
	"headgate/conf/store"
	"headgate/conf/store/mem"
	"headgate/proxy"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/snapshot"
)

const explainUsage = `usage:
  headgate explain [-c FILE | -control ADDR] [-X METHOD] [-H 'Name: value']... [-d BODY]
                   [-client ADDR] [-consumer NAME] [-bucket BUCKET] [-json] URL-or-path

Says what the gateway would do with a request: which route matches and why others do not, the plugins in order and where each comes
from, the branch and the endpoint that are next, or the plugin that answers. No request is sent and no plugin is run.

  -c FILE         explain a configuration file, with what its store holds; without it a running gateway is asked
  -control ADDR   the control API of the gateway that is asked (default 127.0.0.1:9090)
  -X METHOD       GET, or POST with a body, when it is not given
  -H LINE         a header line; may be repeated
  -d BODY         the request body
  -client ADDR    the address of the client (default 127.0.0.1)
  -consumer NAME  as if authentication had found this consumer
  -bucket BUCKET  what is to decide in a split: the third part of X-Headgate-Split or of $split in the log
  -json           the answer as JSON
`

const (
	defaultControl = "127.0.0.1:9090"
	controlTimeout = 30 * time.Second
	maxExplanation = 64 << 20 // bytes
)

// explainOptions are what the command line of explain says.
type explainOptions struct {
	file, control string
	json          bool
	request       proxy.ExplainRequest
}

// explainCommand explains a request and returns the exit status: 0 when that succeeded, whatever becomes of the request, 1 when it failed, 2
// when it was called wrongly.
func explainCommand(args []string, stdout, stderr io.Writer) int {
	o, err := readExplainOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, explainUsage)
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "%v\n\n%s", err, explainUsage)
		return 2
	}
	description, err := json.Marshal(&o.request)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	var e *proxy.Explanation
	if o.file != "" {
		e, err = explainFile(o.file, description, stderr)
	} else {
		e, err = askControl(o.control, description)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(e)
	} else {
		_, err = io.WriteString(stdout, explanationText(e))
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func readExplainOptions(args []string) (*explainOptions, error) {
	o := &explainOptions{}
	flags := flag.NewFlagSet("explain", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned, and the usage is ours
	flags.StringVar(&o.file, "c", "", "")
	flags.StringVar(&o.control, "control", "", "")
	flags.BoolVar(&o.json, "json", false, "")
	r := &o.request
	flags.StringVar(&r.Method, "X", "", "")
	flags.StringVar(&r.Body, "d", "", "")
	flags.StringVar(&r.Client, "client", "", "")
	flags.StringVar(&r.Consumer, "consumer", "", "")
	flags.StringVar(&r.Bucket, "bucket", "", "")
	flags.Func("H", "", func(line string) error {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return errors.New("expected Name: value")
		}
		if r.Headers == nil {
			r.Headers = map[string][]string{}
		}
		r.Headers[name] = append(r.Headers[name], strings.Trim(value, " \t"))
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() != 1:
		return nil, errors.New("expected one URL or path, behind the options")
	case o.file != "" && o.control != "":
		return nil, errors.New("-c and -control are two things to ask: expected one of them")
	}
	o.control = cmp.Or(o.control, defaultControl)
	return o, aim(r, flags.Arg(0))
}

// aim takes a URL or a path apart. The path stays as it is written: what becomes of it is part of the explanation.
func aim(r *proxy.ExplainRequest, target string) error {
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case strings.HasPrefix(target, "/"), target == "*":
		r.Path = target
		return nil
	case ok && strings.EqualFold(scheme, "https"):
		r.TLS = true
	case ok && strings.EqualFold(scheme, "http"):
	default:
		return fmt.Errorf("expected a URL (http://host/path) or a path that begins with a slash, got %q", target)
	}
	rest, _, _ = strings.Cut(rest, "#") // stays in browsers
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end]
	if r.Path = rest[end:]; !strings.HasPrefix(r.Path, "/") {
		r.Path = "/" + r.Path
	}
	for name := range r.Headers {
		if strings.EqualFold(name, "host") { // as curl has it, for a gateway under another name
			return nil
		}
	}
	r.Host = host
	return nil
}

// askControl has a running gateway explain.
func askControl(addr string, description []byte) (*proxy.Explanation, error) {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI("http://" + addr + "/v1/explain")
	req.Header.SetMethod(fasthttp.MethodPost)
	req.Header.SetContentType("application/json")
	req.SetBody(description)
	if err := converse(addr, req, resp); err != nil {
		return nil, fmt.Errorf("the control API at %s: %w (-control names another one, -c explains a configuration file)", addr, err)
	}
	if status := resp.StatusCode(); status != fasthttp.StatusOK {
		var refusal struct {
			Msg string `json:"error_msg"`
		}
		if json.Unmarshal(resp.Body(), &refusal) == nil && refusal.Msg != "" {
			return nil, errors.New(refusal.Msg)
		}
		return nil, fmt.Errorf("%s answers %d to /v1/explain: is it the control API of a Headgate?", addr, status)
	}
	e := &proxy.Explanation{}
	if err := json.Unmarshal(resp.Body(), e); err != nil {
		return nil, fmt.Errorf("the control API at %s: %w", addr, err)
	}
	return e, nil
}

// converse sends req over a connection of its own and reads resp.
func converse(addr string, req *fasthttp.Request, resp *fasthttp.Response) error {
	c, err := net.DialTimeout("tcp", addr, controlTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(controlTimeout)); err != nil {
		return err
	}
	w := bufio.NewWriter(c)
	if err := errors.Join(req.Write(w), w.Flush()); err != nil {
		return err
	}
	return resp.ReadLimitBody(bufio.NewReader(c), maxExplanation)
}

// explainFile compiles the configuration file and what its store holds as run would, and explains that.
func explainFile(file string, description []byte, stderr io.Writer) (*proxy.Explanation, error) {
	c, err := conf.Load(file)
	if err != nil {
		return nil, err
	}
	if problems := checkSettings(c); len(problems) > 0 {
		return nil, problems
	}
	inline, err := inlineDocuments(c)
	if err != nil {
		return nil, err
	}
	logf := func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	held := mem.Open()
	defer held.Close()
	if err := copyStored(c, held, logf); err != nil {
		return nil, err
	}
	p := &process{meter: meter.New(""), logf: logf}
	pool, err := offload.New(1, func(any) {})
	if err != nil {
		return nil, err
	}
	defer pool.Close(time.Second)
	live := &snapshot.Live{}
	compiler, hub, err := newCompiler(c, live, p.meter, func(string, *fault.Fault, error) {}, checkOptions(c), nil)
	if err != nil {
		return nil, err
	}
	defer hub.Close()
	defer compiler.Close()
	applier, err := proxy.StartApplier(context.Background(), proxy.ApplierOptions{
		Compiler: compiler, Store: held, Offload: pool, Meter: p.meter, Logf: logf, Inline: inline, Lenient: lenience(c),
	})
	if err != nil {
		return nil, located(c, err)
	}
	defer applier.Close()
	server, err := p.newServer(c, live)
	if err != nil {
		return nil, err
	}
	return proxy.NewExplainer(server, applier).Explain(description)
}

// copyStored puts what the store of c holds into held. The store itself is only read.
func copyStored(c *conf.Config, held store.Store, logf func(string, ...any)) error {
	from := *c
	switch c.Store.Provider {
	case conf.StoreMem:
		return nil
	case conf.StoreEtcd:
		logf("what etcd holds is not read: this is about the resources of the file alone. A running gateway knows the rest (-control).")
		return nil
	case conf.StoreFile:
	default:
		dir, err := os.MkdirTemp("", "headgate-explain-") // mode 0700: there are secrets in it
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		from.Store.Path = filepath.Join(dir, "store.db")
		switch err := copyUnlocked(c.Store.Path, from.Store.Path); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("store.path: %w", err)
		}
	}
	sealer, err := newSealer(c)
	if err != nil {
		return err
	}
	s, _, err := openStore(context.Background(), &from, sealer, logf)
	if err != nil {
		return err
	}
	defer s.Close()
	items, _, err := s.List(context.Background())
	if err != nil {
		return err
	}
	// In the order in which they were stored first, by which it is decided who has what two of them claim.
	slices.SortStableFunc(items, func(a, b store.Item) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	for _, item := range items {
		if _, err := held.Put(context.Background(), item.Key, item.Value, store.AnyRevision, item.Expires); err != nil {
			return fmt.Errorf("%s: %w", item.Key, err)
		}
	}
	return nil
}

// errInUse says that a gateway has the store open.
var errInUse = errors.New("a running gateway has it open: ask that gateway, with -control instead of -c")

// copyUnlocked copies a store file, unless a process has it open. No process can open it meanwhile.
func copyUnlocked(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close() // and with it the lock
	if err := syscall.Flock(int(source.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", from, errInUse)
	} else if err != nil {
		return fmt.Errorf("%s: lock: %w", from, err)
	}
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// explanationText is an explanation for people.
func explanationText(e *proxy.Explanation) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	section := func(name string) func(format string, args ...any) {
		return func(format string, args ...any) {
			fmt.Fprintf(w, name+"\t"+format+"\n", args...)
			name = ""
		}
	}
	q := &e.Request
	as := ""
	if q.Consumer != "" {
		as = ", as " + q.Consumer
	}
	section("request")("%s %s on %s%s, from %s%s; revision %d", q.Method, q.Path, cmp.Or(q.Host, "no host"), query(q.Query), q.Client, as, e.Revision)
	if e.Fault != nil {
		section("fault")("%s (%s): answered with %d", e.Fault.Code, e.Fault.Side, e.Fault.Status)
	}
	routesText(e, section)
	line := section("plugins")
	for _, p := range e.Plugins {
		line("%s %s\t%d\t%s\t%s\t%s", p.Chain, p.Name, p.Priority, p.From, p.State, strings.Join(p.Phases, " "))
	}
	line = section("may answer")
	for _, a := range e.MayAnswer {
		line("%s from %s, with %s: %s", a.Plugin, cmp.Or(a.From, "a plugin"), statusText(a.Status), a.Why)
	}
	if a := e.Answer; a != nil {
		section("answer")("%s from %s, with %s: %s", a.Plugin, cmp.Or(a.From, "a plugin"), statusText(a.Status), a.Why)
	}
	if s := e.Split; s != nil {
		line = section("split")
		switch {
		case s.Status != 0:
			line("%s answers %d: %s", s.Plugin, s.Status, cmp.Or(s.Answer, s.Why))
		case s.Open:
			line("%s leaves it open: %s", s.Plugin, s.Why)
		case s.Next == "":
			line("%s leaves it where it was: %s", s.Plugin, s.Why)
		default:
			line("%s sends it to %s next: %s, bucket %s", s.Plugin, s.Next, s.Why, s.Bucket)
		}
		for _, c := range s.Branches {
			line("%s: weight %d, %.4g %%%s%s", c.Name, c.Weight, 100*c.Share, to(c.Upstream), standing(c.State))
		}
	}
	if u := e.Upstream; u != nil {
		line = section("upstream")
		line("%s from %s, %s; next is %s", u.Name, cmp.Or(u.From, "a plugin"), cmp.Or(u.Type, "its own kind"), cmp.Or(u.Next, "nobody"))
		for _, n := range u.Nodes {
			health := ""
			if !n.Healthy {
				health = ", unhealthy"
			}
			health += standing(n.State)
			line("%s: weight %d, priority %d%s", n.Addr, n.Weight, n.Priority, health)
		}
		if u.More > 0 {
			line("and %d more", u.More)
		}
	}
	_ = w.Flush()
	return strings.Map(printable, b.String())
}

func statusText(code int) string {
	if code == 0 {
		return "a status that is not known before"
	}
	return strconv.Itoa(code)
}

func routesText(e *proxy.Explanation, section func(string) func(string, ...any)) {
	line := section("route")
	if r := e.Route; r == nil {
		line("none")
	} else {
		line("%s%s by %s on %s, priority %d", r.Key, named(r.Name), r.URI, cmp.Or(r.Host, "any host"), r.Priority)
		for _, from := range []string{r.Service, r.PluginConfig} {
			if from != "" {
				line("with %s", from)
			}
		}
	}
	list := func(name string, routes []proxy.ExplainedPass, more int) {
		line := section(name)
		for _, p := range routes {
			line("%s, %s on %s: %s", p.Key, p.URI, cmp.Or(p.Host, "any host"), p.Why)
		}
		if more > 0 {
			line("and %d more", more)
		}
	}
	list("passed over", e.PassedOver, e.More)
	list("behind it", e.Behind, e.MoreBehind)
}

func query(q string) string {
	if q == "" {
		return ""
	}
	return ", query " + q
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" %q", name)
}

// standing is what a breaker or an operator says of a branch or a node.
func standing(state string) string {
	if state == "" {
		return ""
	}
	return ", " + state
}

func to(upstream string) string {
	if upstream == "" {
		return ", to the route's own upstream"
	}
	return ", to " + upstream
}

// printable keeps what came out of a request or a document from steering the terminal.
func printable(r rune) rune {
	if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
		return unicode.ReplacementChar
	}
	return r
}
