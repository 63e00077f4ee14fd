package conf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCacheZones(t *testing.T) {
	c, err := Parse("x.toml", []byte(`[[proxy_cache.zones]]
name = "a"
memory_size = "2MiB"
[[proxy_cache.zones]]
name = "b"
memory_size = "1MiB"
disk_path = "${HOME_OF_CACHE}/b"
disk_size = "1GiB"
[[proxy_cache.zones]]
name = "c"
memory_size = "1MiB"
disk_path = "/var/cache/headgate-c"
disk_size = "1GiB"
cache_levels = "2:1:1"
`), env("HOME_OF_CACHE", "/var/cache/headgate"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []CacheZone{
		{Name: "a", MemorySize: 2 * MiB},
		{Name: "b", MemorySize: MiB, DiskPath: "/var/cache/headgate/b", DiskSize: GiB, CacheLevels: "1:2"},
		{Name: "c", MemorySize: MiB, DiskPath: "/var/cache/headgate-c", DiskSize: GiB, CacheLevels: "2:1:1"},
	}
	if diff := cmp.Diff(want, c.ProxyCache.Zones); diff != "" {
		t.Error(diff)
	}
	if got := fmt.Sprint(c.ProxyCache.Zones[0].Levels(), c.ProxyCache.Zones[1].Levels(), c.ProxyCache.Zones[2].Levels()); got != "[] [1 2] [2 1 1]" {
		t.Errorf("levels %s", got)
	}
	if s := c.String(); !strings.Contains(s, "proxy_cache.zones[1].disk_size = 1GiB\n") {
		t.Errorf("printed as\n%s", s)
	}
}

func TestCacheZoneProblems(t *testing.T) {
	const zone, disk = "[[proxy_cache.zones]]\n", "memory_size = '1MiB'\ndisk_size = '1GiB'\n"
	for text, want := range map[string]string{
		"[proxy_cache]\ncache_ttl = '0s'\nzones = []\n":                                                   "x.toml:2: proxy_cache.cache_ttl: expected more than 0s, got 0s",
		"[proxy_cache]\nzones = 1\n":                                                                      "x.toml:2: proxy_cache.zones: expected an array of tables [[proxy_cache.zones]], got a whole number",
		zone + "memory_size = '1MiB'\n":                                                                   `x.toml:1: proxy_cache.zones[0].name: expected a name of 1 to 100 bytes, got ""`,
		zone + "name = 'a'\nmemory_size = 5\n":                                                            "x.toml:3: proxy_cache.zones[0].memory_size: expected 1MiB to 1048576GiB, got 5B",
		zone + "name = 'a'\nmemory_size = '1MiB'\ndisk_size = '1MiB'\n":                                   "x.toml:4: proxy_cache.zones[0].disk_size: expected proxy_cache.zones[0].disk_path with it",
		zone + "name = 'a'\nmemory_size = '1MiB'\ncache_levels = '1'\n":                                   "x.toml:4: proxy_cache.zones[0].cache_levels: expected proxy_cache.zones[0].disk_path with it",
		zone + "name = 'a'\nmemory_size = '1MiB'\ndisk_path = 'x'\n":                                      "x.toml:1: proxy_cache.zones[0].disk_size: expected 1MiB to 1048576GiB, got 0B",
		zone + "name = 'a'\ndisk_path = 'x'\n" + disk + "cache_levels = '3'\n":                            `x.toml:6: proxy_cache.zones[0].cache_levels: expected one to three numbers, each 1 or 2, such as "1:2", got "3"`,
		zone + "name = 'a'\nmemory_size = '1MiB'\nmemory_sise = 1\n":                                      "x.toml:4: proxy_cache.zones[0].memory_sise: unknown key, did you mean proxy_cache.zones[0].memory_size?",
		strings.Repeat(zone+"name = 'a'\nmemory_size = '1MiB'\n", 2):                                      `x.toml:5: proxy_cache.zones[1].name: expected a name of its own, "a" is also that of proxy_cache.zones[0]`,
		zone + "name = 'a'\ndisk_path = 'x'\n" + disk + zone + "name = 'b'\ndisk_path = './x/y'\n" + disk: "x.toml:8: proxy_cache.zones[1].disk_path: expected a directory of its own, this one and that of proxy_cache.zones[0] overlap",
		zone + "name = 'a'\ndisk_path = 'x'\n" + disk + zone + "name = 'b'\ndisk_path = '../x'\n" + disk:  "",
	} {
		_, err := Parse("x.toml", []byte(text), nil, nil)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}
