package conf

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// ProxyCache is where the plugin proxy-cache keeps answers (contract section 6).
type ProxyCache struct {
	CacheTTL Duration    `toml:"cache_ttl"` // of an answer on disk that does not say for how long it is fresh
	Zones    []CacheZone `toml:"zones"`
}

// CacheZone is a place for answers: in memory, or on disk when it has a path.
type CacheZone struct {
	Name        string `toml:"name"`
	MemorySize  Size   `toml:"memory_size"`  // of the answers, or of what is known about those on disk
	DiskPath    string `toml:"disk_path"`    // a directory of its own; "" = in memory
	DiskSize    Size   `toml:"disk_size"`    // of the files
	CacheLevels string `toml:"cache_levels"` // lengths of the names of directories, "1:2"
}

// defaultLevels are those of a zone on disk that names none.
const defaultLevels = "1:2"

// defaultZones are APISIX's, but for the place of the files: /tmp is everybody's.
func defaultZones() []CacheZone {
	return []CacheZone{
		{Name: "disk_cache_one", MemorySize: 50 * MiB, DiskPath: "data/cache/disk_cache_one", DiskSize: GiB, CacheLevels: defaultLevels},
		{Name: "memory_cache", MemorySize: 50 * MiB},
	}
}

// Levels returns CacheLevels of a zone that Load accepted as numbers.
func (z CacheZone) Levels() []int {
	var levels []int
	for _, c := range z.CacheLevels {
		if c != ':' {
			levels = append(levels, int(c-'0'))
		}
	}
	return levels
}

func (d *decoder) cacheZones(path string, v any, dst *[]CacheZone) {
	tables, ok := tablesOf(v)
	if !ok {
		d.wrongType(path, "an array of tables [["+path+"]]", v)
		return
	}
	out := make([]CacheZone, len(tables))
	for i, t := range tables {
		if _, disk := t["disk_path"]; disk {
			out[i].CacheLevels = defaultLevels
		}
		d.table(indexKey(path, i), t, reflect.ValueOf(&out[i]).Elem())
	}
	*dst = out
}

const (
	minZone = MiB
	maxZone = 1 << 50
	// maxZoneName is the longest cache_zone of the plugin.
	maxZoneName = 100
)

var levelsPattern = regexp.MustCompile(`^[12](:[12]){0,2}$`)

func (k checker) proxyCache() {
	k.positive("proxy_cache.cache_ttl", k.c.ProxyCache.CacheTTL)
	zones := k.c.ProxyCache.Zones
	for i, z := range zones {
		at := indexKey("proxy_cache.zones", i)
		if z.Name == "" || len(z.Name) > maxZoneName {
			k.add(at+".name", fmt.Sprintf("expected a name of 1 to %d bytes, got %q", maxZoneName, z.Name))
		}
		k.size(at+".memory_size", z.MemorySize, minZone, maxZone)
		if z.DiskPath == "" {
			if z.DiskSize != 0 {
				k.add(at+".disk_size", "expected "+at+".disk_path with it")
			}
			if z.CacheLevels != "" {
				k.add(at+".cache_levels", "expected "+at+".disk_path with it")
			}
		} else {
			k.size(at+".disk_size", z.DiskSize, minZone, maxZone)
			if !levelsPattern.MatchString(z.CacheLevels) {
				k.add(at+".cache_levels", fmt.Sprintf(`expected one to three numbers, each 1 or 2, such as "1:2", got %q`, z.CacheLevels))
			}
		}
		for j, other := range zones[:i] {
			if z.Name == other.Name {
				k.add(at+".name", fmt.Sprintf("expected a name of its own, %q is also that of %s", z.Name, indexKey("proxy_cache.zones", j)))
			}
			if z.DiskPath != "" && other.DiskPath != "" && (inside(z.DiskPath, other.DiskPath) || inside(other.DiskPath, z.DiskPath)) {
				k.add(at+".disk_path", "expected a directory of its own, this one and that of "+indexKey("proxy_cache.zones", j)+" overlap")
			}
		}
	}
}

// inside says whether the directory a is b, or below it.
func inside(a, b string) bool {
	rel, err := filepath.Rel(filepath.Clean(b), filepath.Clean(a))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
