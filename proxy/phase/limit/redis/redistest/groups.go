package redistest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Replicated starts a master with a replica, and three sentinels that watch them under the name.
func Replicated(t testing.TB, name string) (master, replica *Server, sentinels []*Server) {
	t.Helper()
	master = Start(t)
	replica = Start(t, "--replicaof", host, strconv.Itoa(master.Port))
	Eventually(t, func() bool { return strings.Contains(replica.Try("info", "replication"), "master_link_status:up") })
	for range 3 {
		port := Port(t)
		file := filepath.Join(t.TempDir(), "sentinel.conf") // a sentinel writes into it
		text := fmt.Sprintf("port %d\nsentinel monitor %s %s %d 2\nsentinel down-after-milliseconds %s 200\nsentinel failover-timeout %s 2000\n",
			port, name, host, master.Port, name, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := begin(t, "redis-sentinel", []string{file, "--port", strconv.Itoa(port)})
		s.Do("sentinel", "debug", "info-period", 100, "publish-period", 100, "ping-period", 100, "ask-period", 100) // or it takes seconds
		sentinels = append(sentinels, s)
	}
	for _, s := range sentinels {
		Eventually(t, func() bool {
			info := s.Try("info", "sentinel")
			return strings.Contains(info, "slaves=1") && strings.Contains(info, "sentinels=3")
		})
	}
	return master, replica, sentinels
}

// Cluster starts a cluster of three masters.
func Cluster(t testing.TB) []*Server {
	t.Helper()
	path, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatal("redis-cli is not installed: apt-get install redis-server redis-sentinel")
	}
	var nodes []*Server
	args := []string{"--cluster", "create"}
	for range 3 {
		s := Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", strconv.Itoa(Port(t)))
		nodes = append(nodes, s)
		args = append(args, s.Addr())
	}
	if out, err := exec.Command(path, append(args, "--cluster-yes")...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, out)
	}
	for _, s := range nodes {
		Eventually(t, func() bool { return strings.Contains(s.Try("cluster", "info"), "cluster_state:ok") })
	}
	return nodes
}
