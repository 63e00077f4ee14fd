package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"headgate/conf"
	"headgate/conf/resource"
	"headgate/conf/store/mem"
	"headgate/proxy"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/snapshot"
	"headgate/proxy/vars"
)

// reloadTimeout bounds how long a reload waits for its turn.
const reloadTimeout = 10 * time.Second

// reloadFile reads the file again and puts it into force, all or nothing.
func (p *process) reloadFile(file string) {
	if file == "" {
		p.logf("reload: there is no configuration file")
		return
	}
	c, err := conf.Load(file)
	if err == nil {
		err = p.reload(c)
	}
	if err != nil {
		p.logf("reload: nothing was changed: %v", err)
		return
	}
	p.logf("reload: %s is in force", file)
}

// reload puts next into force without a restart: resources and admin keys. When it changes anything else, all of it is refused.
func (p *process) reload(next *conf.Config) error {
	now := p.conf.Load()
	if len(next.Admin.Keys) == 0 {
		if _, err := next.EnsureAdminKey(); err != nil {
			return err
		}
	}
	if fixed := restartNeeded(now, next); len(fixed) > 0 {
		return fmt.Errorf("a restart is needed to change %s", strings.Join(fixed, ", "))
	}
	inline, err := inlineDocuments(next)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	if err := p.applier.Reload(ctx, inline); err != nil {
		return located(next, err)
	}
	p.setKeys(next)
	p.conf.Store(next)
	for _, w := range next.Warnings(time.Now()) {
		p.logf("WARNING: %s", w)
	}
	return nil
}

// restartNeeded names the settings that differ and cannot be changed while the process runs.
func restartNeeded(now, next *conf.Config) []string {
	a, b := *now, *next
	a.Admin.Keys, b.Admin.Keys = nil, nil
	var names []string
	for _, section := range []struct {
		name string
		a, b any
	}{
		{"gateway", a.Gateway, b.Gateway}, {"admin", a.Admin, b.Admin}, {"metrics", a.Metrics, b.Metrics}, {"control", a.Control, b.Control},
		{"status", a.Status, b.Status}, {"audit", a.Audit, b.Audit}, {"compat", a.Compat, b.Compat}, {"store", a.Store, b.Store},
		{"access_log", a.AccessLog, b.AccessLog}, {"upstream", a.Upstream, b.Upstream}, {"discovery", a.Discovery, b.Discovery},
		{"proxy_cache", a.ProxyCache, b.ProxyCache},
	} {
		va, vb := reflect.ValueOf(section.a), reflect.ValueOf(section.b)
		for i := range va.NumField() {
			if !reflect.DeepEqual(va.Field(i).Interface(), vb.Field(i).Interface()) {
				names = append(names, section.name+"."+va.Type().Field(i).Tag.Get("toml"))
			}
		}
	}
	return names
}

// inlineDocuments turns the resources of the file into documents by store key.
func inlineDocuments(c *conf.Config) (map[string][]byte, error) {
	docs := map[string][]byte{}
	for key, r := range c.Documents() {
		raw, err := resource.Encode(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		docs[key] = raw
	}
	return docs, nil
}

// located adds file and line to what is wrong with the resources of the file.
func located(c *conf.Config, err error) error {
	var bad proxy.InlineErrors
	if !errors.As(err, &bad) {
		return err
	}
	var problems conf.Problems
	for _, b := range bad {
		at, ok := c.DocumentAt(b.Key)
		if !ok { // the store's; the file as a whole breaks it
			p := c.At("", b.Key+": "+b.Err.Error())
			p.Line = 0
			problems = append(problems, p)
			continue
		}
		key, msg := conf.KeyAt(at, b.Path), b.Err.Error()
		if last := len(b.Path) - 1; last >= 0 && len(b.Known) > 0 {
			name, _ := b.Path[last].(string)
			table := conf.KeyAt(at, b.Path[:last])
			if b.Unknown {
				msg = conf.UnknownKey(table, name, b.Known)
			} else {
				msg += conf.DidYouMean(table, name, b.Known)
			}
		}
		problems = append(problems, c.At(key, msg))
	}
	slices.SortStableFunc(problems, func(p, q conf.Problem) int { return p.Line - q.Line })
	return problems
}

// checkSettings finds what is wrong with settings that conf cannot judge, because other rooms give them their meaning.
func checkSettings(c *conf.Config) (problems conf.Problems) {
	for _, msg := range checkFormat(c.AccessLog.Format) {
		problems = append(problems, c.At("access_log.format", msg))
	}
	if _, err := certificateOptions(c); err != nil {
		problems = append(problems, c.At(tlsCertFile, strings.TrimPrefix(err.Error(), tlsCertFile+": ")))
	}
	const caFile = "upstream.ca_file"
	if _, err := upstreamDefaults(c); err != nil {
		problems = append(problems, c.At(caFile, strings.TrimPrefix(err.Error(), caFile+": ")))
	}
	slices.SortStableFunc(problems, func(p, q conf.Problem) int { return p.Line - q.Line })
	return problems
}

// checkFormat finds the references of a template (see vars.Compile) that never have a value in a log line: to unknown variables, and
// to groups, as there is no regular expression. vars takes them as they are, because the contract does.
func checkFormat(format string) (wrong []string) {
	for {
		before, text, found := strings.Cut(format, "$")
		if !found {
			return wrong
		}
		format = text
		if strings.HasSuffix(before, `\`) {
			continue
		}
		var name string
		if inner, braced := strings.CutPrefix(text, "{"); braced {
			if inner, format, found = strings.Cut(inner, "}"); !found {
				return append(wrong, "expected a } for every ${")
			}
			name, _, _ = strings.Cut(inner, "??")
			name = strings.TrimSpace(name)
		} else {
			end := strings.IndexFunc(text, func(r rune) bool {
				return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '.'
			})
			if end < 0 {
				end = len(text)
			}
			if name, format = text[:end], text[end:]; name == "" {
				continue // a dollar sign
			}
			if prefix, _, _ := strings.Cut(name, "."); isVariable(prefix) {
				continue // $status. at the end of a sentence
			}
		}
		if !isVariable(name) {
			wrong = append(wrong, fmt.Sprintf("unknown variable %q", "$"+name))
		}
	}
}

func isVariable(name string) bool {
	_, known := vars.Parse(name)
	return known
}

// checkAll returns everything that is wrong with c, which conf.Examine returned together with wrong: besides that the settings that only
// other rooms can judge, and the resources, which are compiled as run would and published nowhere. assume is that of tryDocuments.
func checkAll(c *conf.Config, wrong error, assume bool) error {
	var problems conf.Problems
	if wrong != nil && !errors.As(wrong, &problems) {
		return wrong
	}
	settings := checkSettings(c)
	problems = append(problems, settings...)
	judge := *c
	if len(settings) > 0 { // resources are judged without what is wrong
		d := conf.Default()
		judge.AccessLog, judge.Gateway.TLS, judge.Upstream.CAFile = d.AccessLog, d.Gateway.TLS, d.Upstream.CAFile
	}
	inline, err := inlineDocuments(c)
	if err != nil {
		return err
	}
	var resources conf.Problems
	err = located(c, tryDocuments(&judge, inline, assume))
	if err != nil && !errors.As(err, &resources) {
		if len(problems) > 0 {
			return problems
		}
		return err
	}
	if problems = append(problems, resources...); len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(p, q conf.Problem) int { return p.Line - q.Line })
	return problems
}

// tryDocuments compiles docs as a gateway configured with c would, and throws the result away. assume lets them refer to what a store may
// hold.
func tryDocuments(c *conf.Config, docs map[string][]byte, assume bool) error {
	m := meter.New("")
	pool, err := offload.New(1, func(any) {})
	if err != nil {
		return err
	}
	defer pool.Close(time.Second)
	compiler, hub, err := newCompiler(c, &snapshot.Live{}, m, func(string, *fault.Fault, error) {}, checkOptions(c), nil)
	if err != nil {
		return err
	}
	defer hub.Close()
	defer compiler.Close()
	nowhere := mem.Open()
	defer nowhere.Close()
	a, err := proxy.StartApplier(context.Background(), proxy.ApplierOptions{
		Compiler: compiler, Store: nowhere, Offload: pool, Meter: m, Inline: docs, Assume: assume, Lenient: lenience(c), Logf: func(string, ...any) {},
	})
	if err == nil {
		a.Close()
	}
	return err
}

// wrongDocuments takes what tryDocuments found apart, by key.
func wrongDocuments(err error) map[string]error {
	if err == nil {
		return nil
	}
	var bad proxy.InlineErrors
	if !errors.As(err, &bad) {
		return map[string]error{"": err}
	}
	wrong := make(map[string]error, len(bad))
	for _, b := range bad {
		msg := resource.Redact(b.Err.Error()) // it is logged
		if len(b.Path) > 0 {
			msg = conf.KeyAt("", b.Path) + ": " + msg
		}
		if before := wrong[b.Key]; before != nil {
			msg = before.Error() + "; " + msg
		}
		wrong[b.Key] = errors.New(msg)
	}
	return wrong
}
