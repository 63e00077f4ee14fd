package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"headgate/conf"
	"headgate/conf/seal"
	"headgate/conf/store"
	"headgate/conf/store/embedded"
	"headgate/conf/store/etcd"
	"headgate/conf/store/file"
	"headgate/conf/store/lent"
	"headgate/conf/store/mem"
	"headgate/conf/store/sealed"
	"headgate/plugins"
	"headgate/proxy/meter"
)

// openStore opens the provider that c names. With a sealer, secrets are encrypted in it. lendable is the same store when another process
// can have it only while this one lets go of it, else nil.
func openStore(ctx context.Context, c *conf.Config, sealer *seal.Sealer, logf func(string, ...any)) (s store.Store, lendable *lent.Store, err error) {
	switch c.Store.Provider {
	case conf.StoreMem:
		s = mem.Open()
	case conf.StoreEtcd:
		s, err = openEtcd(ctx, c.Store.Etcd)
	case conf.StoreFile:
		s, err = openFile(c, logf)
	default:
		lendable, err = lent.Open(func() (store.Store, error) {
			opened, err := embedded.Open(c.Store.Path, embedded.Options{})
			if err != nil {
				return nil, err // a nil pointer would pass for a store
			}
			return opened, nil
		})
		if err == nil {
			s = lendable
		}
	}
	if err != nil || sealer == nil {
		return s, lendable, err
	}
	return sealed.New(s, sealer), lendable, nil
}

func openEtcd(ctx context.Context, e conf.Etcd) (store.Store, error) {
	o := etcd.Options{
		Endpoints: e.Endpoints, Prefix: e.Prefix, Timeout: e.Timeout.Std(), StartupRetry: e.StartupRetry, User: e.User, Password: e.Password.Reveal(),
	}
	if strings.HasPrefix(e.Endpoints[0], "https:") { // all are, or none
		o.TLS = &etcd.TLS{CA: e.TLSCA, Cert: e.TLSCert, Key: e.TLSKey, ServerName: e.TLSServerName, SkipVerify: !e.TLSVerify}
	}
	if e.StartupRetry == 0 {
		o.StartupRetry = -1
	}
	s, err := etcd.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("store.etcd: %w", err)
	}
	return s, nil
}

// openFile opens the provider whose documents are one file. A version of it that the gateway could not run as a whole is not taken.
func openFile(c *conf.Config, logf func(string, ...any)) (store.Store, error) {
	inline, err := inlineDocuments(c) // they come into force together, and may refer to each other
	if err != nil {
		return nil, err
	}
	s, err := file.Open(c.Store.File.Path, file.Options{
		Interval: c.Store.File.Interval.Std(), Getenv: os.LookupEnv, Logf: logf,
		Check: func(docs map[string][]byte) map[string]error {
			all := maps.Clone(docs)
			maps.Copy(all, inline) // which hide those of the file
			return wrongDocuments(tryDocuments(c, all, false))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("store.file: %w", err)
	}
	return s, nil
}

// readOnly says why the Admin API cannot edit anything, "" when it can.
func readOnly(c *conf.Config) string {
	if c.Store.Provider == conf.StoreFile {
		return "the configuration comes from " + c.Store.File.Path + " and cannot be changed through the API"
	}
	return ""
}

// newSealer returns what encrypts secrets in the store, nil without a keyring.
func newSealer(c *conf.Config) (*seal.Sealer, error) {
	keyring := c.Keyring()
	if len(keyring) == 0 {
		return nil, nil
	}
	s, err := seal.New(keyring, secretFields())
	if err != nil {
		return nil, fmt.Errorf("store.encryption: %w", err)
	}
	return s, nil
}

// secretFields tells where the plugins have their secrets.
func secretFields() seal.Fields {
	route, consumer := map[string][]string{}, map[string][]string{}
	for _, k := range plugins.List(plugins.Options{}) {
		route[k.Name] = k.Encrypted
		if k.Consumer != nil {
			consumer[k.Name] = append([]string{}, k.Consumer.Encrypted...) // not nil: consumers are configured in another way
		}
	}
	return func(plugin string) ([]string, []string) { return route[plugin], consumer[plugin] }
}

// lenience answers resource.Env.Lenient.
func lenience(c *conf.Config) func(string) bool {
	return func(name string) bool { return c.Compat.On(conf.Switch(name)) }
}

// storeGauges tells how the store is. A store that is part of the process is always there.
func (p *process) storeGauges() {
	reporter, remote := p.store.(store.Reporter)
	now := func() store.Status {
		if remote {
			return reporter.Status()
		}
		return store.Status{Reachable: true}
	}
	p.meter.Gauge(meter.EtcdReachable, func() float64 {
		if now().Reachable {
			return 1
		}
		return 0
	})
	const lag = "headgate_store_lag_seconds"
	p.meter.Gauge(lag, func() float64 { return now().Lag.Round(time.Millisecond).Seconds() })
	p.meter.Describe(lag, "Time since the last proof that every change of the store has arrived here; 0 for a store that is part of the process.")
}
