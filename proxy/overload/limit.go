package overload

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Limit returns how many bytes the process may have: what the settings say, or with 0 what its control group allows and what GOMEMLIMIT
// implies, whichever is less. 0 = nobody limits it.
func Limit(setting int64) int64 {
	if setting > 0 {
		return setting
	}
	return least(groupLimit(os.DirFS("/")), fromEnv(os.Getenv(limitEnv)))
}

// least is the smaller limit; 0 is none.
func least(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// fromEnv is the limit of which value (see package runtime on GOMEMLIMIT) is the runtime's share.
func fromEnv(value string) int64 {
	digits := strings.TrimRight(value, "KMGTiB")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	shift, known := map[string]int{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[value[len(digits):]]
	if !known || n > unlimited>>shift {
		return 0
	}
	return n << shift / softShare * 100
}

// unlimited: groups without a limit have the largest one that the kernel can express in pages.
const unlimited = 1 << 60

// groupLimit is the limit of the control group that the process is in, or of one around it, as cgroups(7) and the kernel's documents on
// memory in v1 and v2 have it. In a container, the path of the group may be seen from outside; then the root of what is mounted is its own.
func groupLimit(root fs.FS) (limit int64) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			limit = least(limit, groupsLimit(root, "sys/fs/cgroup", parts[2], "memory.max"))
		case hasElement(parts[1], "memory"):
			limit = least(limit, groupsLimit(root, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"))
		}
	}
	return limit
}

func hasElement(list, element string) bool {
	for e := range strings.SplitSeq(list, ",") {
		if e == element {
			return true
		}
	}
	return false
}

// groupsLimit is the least of what file says in a group and in those around it.
func groupsLimit(root fs.FS, mount, group, file string) (limit int64) {
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		text, err := fs.ReadFile(root, path.Join(mount, group, file))
		if err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is none
			if err == nil && n > 0 && n < unlimited {
				limit = least(limit, n)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return limit
		}
		if group == "/" {
			return limit
		}
	}
}
