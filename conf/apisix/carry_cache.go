package apisix

import (
	"bytes"
	"fmt"

	"headgate/conf"
)

// cacheZone is a zone of apisix.proxy_cache as it will stand in the result.
type cacheZone struct {
	name, path, levels, from string
	memory, disk             conf.Size
}

func (z *cacheZone) render(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n[[proxy_cache.zones]]\nname = %s\nmemory_size = %s\n", quote(z.name), quote(z.memory.String()))
	if z.path == "" {
		return
	}
	fmt.Fprintf(b, "disk_size = %s\ndisk_path = %s\n", quote(z.disk.String()), quote(z.path))
	if z.levels != "" {
		fmt.Fprintf(b, "cache_levels = %s\n", quote(z.levels))
	}
}

// cacheZones carries the zones of proxy-cache. A zone that cannot be carried is left out with its reason.
func cacheZones(im *importer, at string, v any) string {
	if v == nil {
		return ""
	}
	items, ok := v.([]any)
	if !ok {
		return wrongType
	}
	for i, e := range items {
		from := fmt.Sprintf("%s[%d]", at, i)
		m, ok := e.(map[string]any)
		if !ok {
			im.note(from, wrongType)
			continue
		}
		z, why := readZone(m)
		if why != "" {
			im.note(from, why)
			continue
		}
		z.from = from
		im.zones = append(im.zones, z)
	}
	return ""
}

func readZone(m map[string]any) (z cacheZone, why string) {
	for _, part := range []struct {
		to   *string
		name string
	}{{&z.name, "name"}, {&z.path, "disk_path"}, {&z.levels, "cache_levels"}} {
		s, ok := scalar(m[part.name])
		if m[part.name] != nil && !ok {
			return z, wrongType
		}
		if *part.to, why = expanded(s); why != "" {
			return z, why
		}
	}
	for _, part := range []struct {
		to   *conf.Size
		name string
	}{{&z.memory, "memory_size"}, {&z.disk, "disk_size"}} {
		if m[part.name] == nil {
			continue
		}
		s, _ := scalar(m[part.name])
		if reference.MatchString(s) {
			return z, fromEnviron
		}
		n, ok := parseSize(s)
		if !ok {
			return z, part.name + ": expected a size such as 10m"
		}
		*part.to = n
	}
	return z, ""
}
