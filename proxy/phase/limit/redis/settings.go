package redis

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The policies that count in a Redis.
const (
	Single   = "redis"
	Cluster  = "redis-cluster"
	Sentinel = "redis-sentinel"
)

// Settings say how a Redis is reached. They show no secret, whichever way they are printed.
type Settings struct{ s settings }

// settings is a type of its own so that its fields have names that encoding/json sees: they make the identity.
type settings struct {
	Policy           string
	Addrs            []string // "host:port": of the server, of nodes of the cluster, of the sentinels
	Name             string   // of the cluster, or of the master that the sentinels watch
	Replica          bool     // sentinel: not the master
	User, Password   string
	SentinelUser     string
	SentinelPassword string
	Database         int
	Dial, Wait, Idle time.Duration
	MaxIdle          int
	TLS, Verify      bool
}

// Read takes the settings out of a configuration that satisfies the schema (decoded JSON, numbers are json.Number; contract section 4.2).
// ok is false for the policy local.
func Read(doc map[string]any) (s Settings, ok bool) {
	r := &s.s
	r.Policy, _ = doc["policy"].(string)
	r.User, r.Password = text(doc, "redis_username"), text(doc, "redis_password")
	r.Database = number(doc, "redis_database", 0)
	r.Wait = milliseconds(doc, "redis_timeout", 1000)
	r.Dial = r.Wait
	r.Idle, r.MaxIdle = milliseconds(doc, "redis_keepalive_timeout", 10000), number(doc, "redis_keepalive_pool", 100)
	switch r.Policy {
	case Single:
		r.Addrs = []string{net.JoinHostPort(text(doc, "redis_host"), strconv.Itoa(number(doc, "redis_port", 6379)))}
		r.TLS, r.Verify = flag(doc, "redis_ssl"), flag(doc, "redis_ssl_verify")
	case Cluster:
		nodes, _ := doc["redis_cluster_nodes"].([]any)
		for _, n := range nodes {
			addr, _ := n.(string)
			r.Addrs = append(r.Addrs, addr)
		}
		r.Name, r.User, r.Database = text(doc, "redis_cluster_name"), "", 0
		r.TLS, r.Verify = flag(doc, "redis_cluster_ssl"), flag(doc, "redis_cluster_ssl_verify")
	case Sentinel:
		sentinels, _ := doc["redis_sentinels"].([]any)
		for _, item := range sentinels {
			m, _ := item.(map[string]any)
			r.Addrs = append(r.Addrs, net.JoinHostPort(text(m, "host"), strconv.Itoa(number(m, "port", 26379))))
		}
		r.Name, r.Replica = text(doc, "redis_master_name"), text(doc, "redis_role") == "slave"
		r.SentinelUser, r.SentinelPassword = text(doc, "sentinel_username"), text(doc, "sentinel_password")
		r.Dial, r.Wait = milliseconds(doc, "redis_connect_timeout", 1000), milliseconds(doc, "redis_read_timeout", 1000)
		r.Idle = milliseconds(doc, "redis_keepalive_timeout", 60000)
	default:
		return Settings{}, false
	}
	return s, true
}

// Clustered says that one script can use several keys only when their names keep them together.
func (s Settings) Clustered() bool { return s.s.Policy == Cluster }

// String names the Redis, without users and passwords.
func (s Settings) String() string {
	name := s.s.Name
	if name != "" {
		name += " "
	}
	return fmt.Sprintf("%s %s%s/%d", s.s.Policy, name, strings.Join(s.s.Addrs, ","), s.s.Database)
}

// Format implements fmt.Formatter: no verb shows more than String does.
func (s Settings) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// identity is the same for settings that may share their connections.
func (s Settings) identity() [32]byte {
	b, err := json.Marshal(s.s)
	if err != nil {
		panic(err) // texts and numbers can be written
	}
	return sha256.Sum256(b)
}

// longest bounds how long one exchange with a Redis may take where no request waits for it.
const longest = 2 * time.Second

// connections is the number that n workers need: what tends the server has one, and one is on its way out. The pool is told more than
// that because it turns sluggish after as many failures to connect as it has places.
const connections = 128

// client makes the client of s, which connects when it is used. Nothing is tried twice: what was sent may have been counted.
func (s Settings) client() goredis.UniversalClient {
	const once, one, small = -1, 1, 16 << 10
	r := &s.s
	dial, wait := min(r.Dial, longest), min(r.Wait, longest)
	var secure *tls.Config
	if r.TLS {
		secure = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !r.Verify} // as the operator says: redis_ssl_verify
		if r.Policy == Single {
			secure.ServerName, _, _ = net.SplitHostPort(r.Addrs[0])
		}
	}
	off := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch r.Policy {
	case Cluster:
		return goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: r.Addrs, Password: r.Password, Protocol: 2, TLSConfig: secure,
			MaxRedirects: 3, MaxRetries: once, MinRetryBackoff: once, MaxRetryBackoff: once, DialerRetries: one,
			DialTimeout: dial, ReadTimeout: wait, WriteTimeout: wait, PoolTimeout: wait, ContextTimeoutEnabled: true,
			PoolSize: connections, PipelinePoolSize: once, MaxIdleConns: r.MaxIdle, ConnMaxIdleTime: r.Idle,
			ReadBufferSize: small, WriteBufferSize: small, DisableIdentity: true, DisableRoutingPolicies: true, MaintNotificationsConfig: off})
	case Sentinel:
		return goredis.NewFailoverClient(&goredis.FailoverOptions{MasterName: r.Name, SentinelAddrs: r.Addrs, ReplicaOnly: r.Replica,
			Username: r.User, Password: r.Password, SentinelUsername: r.SentinelUser, SentinelPassword: r.SentinelPassword, DB: r.Database,
			Protocol: 2, MaxRetries: once, DialerRetries: one, DialTimeout: dial, ReadTimeout: wait, WriteTimeout: wait, PoolTimeout: wait,
			ContextTimeoutEnabled: true, PoolSize: connections, PipelinePoolSize: once, MaxIdleConns: r.MaxIdle, ConnMaxIdleTime: r.Idle,
			ReadBufferSize: small, WriteBufferSize: small, DisableIdentity: true})
	}
	return goredis.NewClient(&goredis.Options{Addr: r.Addrs[0], Username: r.User, Password: r.Password, DB: r.Database, TLSConfig: secure,
		Protocol: 2, MaxRetries: once, DialerRetries: one, DialTimeout: dial, ReadTimeout: wait, WriteTimeout: wait, PoolTimeout: wait,
		ContextTimeoutEnabled: true, PoolSize: connections, PipelinePoolSize: once, MaxIdleConns: r.MaxIdle, ConnMaxIdleTime: r.Idle,
		ReadBufferSize: small, WriteBufferSize: small, DisableIdentity: true, MaintNotificationsConfig: off})
}

func text(doc map[string]any, name string) string {
	s, _ := doc[name].(string)
	return s
}

func flag(doc map[string]any, name string) bool {
	b, _ := doc[name].(bool)
	return b
}

// number is a whole number that the schema has checked; what is larger than any that makes sense is the largest that does.
func number(doc map[string]any, name string, without int) int {
	const most = 1 << 30
	n, given := doc[name].(json.Number)
	if !given {
		return without
	}
	f, err := n.Float64()
	if err != nil || f > most {
		return most
	}
	return int(f)
}

func milliseconds(doc map[string]any, name string, without int) time.Duration {
	return time.Duration(number(doc, name, without)) * time.Millisecond
}
