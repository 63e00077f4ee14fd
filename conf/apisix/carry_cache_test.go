package apisix

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"headgate/conf"
)

func TestImportCacheZones(t *testing.T) {
	c, text, notes := imported(t, `apisix:
  proxy_cache:
    cache_ttl: 1m
    zones:
      - name: disk_cache_one
        memory_size: 50m
        disk_size: 1G
        disk_path: /tmp/disk_cache_one
        cache_levels: 1:2
      - name: "in memory"
        memory_size: 20m
      - name: elsewhere
        memory_size: 1m
        disk_size: 10m
        disk_path: ${{CACHE_DIR}}/b
        cache_levels: "1:2"
      - name: tiny
        memory_size: 5k
      - name: unreadable
        memory_size: lots
      - name: from environment
        memory_size: ${{SIZE}}
      - name: [a]
      - 5
`, "", env("CACHE_DIR", "/var/cache"))
	want := []conf.CacheZone{
		{Name: "disk_cache_one", MemorySize: 50 * conf.MiB, DiskPath: "/tmp/disk_cache_one", DiskSize: conf.GiB, CacheLevels: "1:2"},
		{Name: "in memory", MemorySize: 20 * conf.MiB},
		{Name: "elsewhere", MemorySize: conf.MiB, DiskPath: "/var/cache/b", DiskSize: 10 * conf.MiB, CacheLevels: "1:2"},
	}
	if diff := cmp.Diff(want, c.ProxyCache.Zones); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
	if c.ProxyCache.CacheTTL.String() != "1m0s" {
		t.Errorf("cache_ttl is %s", c.ProxyCache.CacheTTL)
	}
	var got []string
	for _, n := range notes {
		if strings.HasPrefix(n, "apisix.proxy_cache") {
			got = append(got, n)
		}
	}
	const at = "apisix.proxy_cache.zones["
	if diff := cmp.Diff([]string{
		at + "4]: memory_size: expected a size such as 10m", at + "5]: " + fromEnviron, at + "6]: " + wrongType, at + "7]: " + wrongType,
		at + "3]: left out: expected 1MiB to 1048576GiB, got 5KiB",
	}, got); diff != "" {
		t.Error(diff)
	}
	c, _, _ = imported(t, "apisix:\n  proxy_cache: {zones: 5}\n", "", nil)
	if diff := cmp.Diff(conf.Default().ProxyCache, c.ProxyCache); diff != "" {
		t.Error(diff)
	}
}
