package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"headgate/conf"
	"headgate/conf/store"
	"headgate/proxy"
)

// demoOptions say where the demo listens.
type demoOptions struct {
	listen, admin, metrics, control string
}

// demo is a gateway and the two upstreams it splits between, in one process.
type demo struct {
	*process
	upstreams []*demoUpstream
	dir       string
	key       string
}

// demoCommand runs the demo until SIGTERM or SIGINT.
func demoCommand(o demoOptions, stdout, stderr io.Writer) error {
	logger := log.New(stderr, "", log.LstdFlags|log.LUTC)
	d, err := startDemo(o, logger.Printf)
	if err != nil {
		return err
	}
	defer d.close()
	fmt.Fprint(stdout, d.guide())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-d.failed:
		return err
	case <-signals:
		return nil
	}
}

// startDemo starts everything: two TLS upstreams whose certificates come from an authority made for the occasion, the gateway that
// verifies them, and the guide's route.
func startDemo(o demoOptions, logf func(format string, args ...any)) (_ *demo, err error) {
	d := &demo{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.dir, err = os.MkdirTemp("", "headgate-demo-"); err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	caFile := filepath.Join(d.dir, "ca.pem")
	if err = os.WriteFile(caFile, ca.pem, 0o600); err != nil {
		return nil, err
	}
	for _, v := range []string{"v1", "v2"} {
		u, err := startDemoUpstream(v, ca)
		if err != nil {
			return nil, err
		}
		d.upstreams = append(d.upstreams, u)
	}
	c, err := d.config(o, caFile)
	if err != nil {
		return nil, err
	}
	if d.process, err = start(context.Background(), c, &inheritance{}, logf); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = d.applier.Apply(ctx, proxy.Change{Key: "routes/aimlapi-split", Edit: func(*store.Item) ([]byte, error) {
		return []byte(d.route()), nil
	}})
	return d, err
}

func (d *demo) config(o demoOptions, caFile string) (*conf.Config, error) {
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	d.key = hex.EncodeToString(secret)
	c := conf.Default()
	c.Gateway.Listen = []string{o.listen}
	c.Gateway.DrainTimeout = conf.Duration(2 * time.Second)
	c.Admin.Listen, c.Metrics.Listen, c.Control.Listen = o.admin, o.metrics, o.control
	c.Admin.Keys = []conf.AdminKey{{Name: "demo", Key: conf.Secret(d.key), Role: conf.RoleAdmin}}
	c.Store.Provider = conf.StoreMem
	c.AccessLog.Path = filepath.Join(d.dir, "access.log")
	c.AccessLog.FlushInterval = conf.Duration(20 * time.Millisecond) // whoever counts right after a request shall find it
	c.Upstream.CAFile = caFile
	return c, nil
}

// route is the split in the form that the guides publish.
func (d *demo) route() string {
	branch := func(i int) string {
		u := d.upstreams[i]
		return fmt.Sprintf(`{"weight":50,"upstream":{"type":"roundrobin","scheme":"https","pass_host":"node","nodes":{%q:1}},`+
			`"rewrite":{"uri":"/%s/chat/completions"}}`, u.addr, u.name)
	}
	return fmt.Sprintf(`{"id":"aimlapi-split","uri":"/chat/completions","methods":["POST"],"plugins":{"prometheus":{},`+
		`"traffic-split":{"rules":[%s,%s]}}}`, branch(0), branch(1))
}

// guide is what the user can paste next.
func (d *demo) guide() string {
	gateway, admin, metrics, control := d.gateways[0].Addr(), d.addr("admin"), d.addr("metrics"), d.addr("control")
	return fmt.Sprintf(`
Headgate is splitting POST /chat/completions 50/50 between two upstreams over TLS:
  v1  https://%[4]s/v1/chat/completions
  v2  https://%[5]s/v2/chat/completions

Ask something (the answer says which version made it):
  curl -s http://%[1]s/chat/completions -H 'Content-Type: application/json' -H 'Authorization: Bearer demo' \
    -d '{"model":"demo","messages":[{"role":"user","content":"hi"}]}'

Stream the answer token by token:
  curl -sN http://%[1]s/chat/completions -H 'Content-Type: application/json' -H 'Authorization: Bearer demo' \
    -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"hi"}]}'

Ask 100 times and count:
  for i in $(seq 100); do curl -s http://%[1]s/chat/completions -d '{"messages":[]}' | grep -o '"model":"[^"]*"'; done | sort | uniq -c

Watch the counts:
  curl -s http://%[3]s/metrics | grep apisix_http_requests_total
  grep -c %[4]s %[6]s

Shift the weights to 80/20, with no request lost:
  curl -s -X PATCH http://%[2]s/apisix/admin/routes/aimlapi-split/weights -H 'X-API-KEY: %[7]s' -d 'v1=80&v2=20'

See the route:
  curl -s http://%[2]s/apisix/admin/routes/aimlapi-split -H 'X-API-KEY: %[7]s'

Learn why a request goes where it goes:
  curl -s http://%[8]s/v1/explain -d '{"method":"POST","path":"/chat/completions"}'

Stop with Ctrl-C.
`, gateway, admin, metrics, d.upstreams[0].addr, d.upstreams[1].addr, filepath.Join(d.dir, "access.log"), d.key, control)
}

// close stops everything and removes the files.
func (d *demo) close() {
	if d.process != nil {
		d.drain(false)
	}
	for _, u := range d.upstreams {
		u.close()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
}
