package leaktest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Descriptor is an open file of a process.
type Descriptor struct {
	Number int
	Target string // what the kernel says it is, such as "socket:[4711]" or the path of a file
	// Local and Remote are the ends of a TCP socket, invalid for everything else. Listening sockets have no remote end.
	Local, Remote netip.AddrPort
	Listening     bool
}

func (d Descriptor) String() string {
	switch {
	case d.Listening:
		return fmt.Sprintf("%d %s listening on %s", d.Number, d.Target, d.Local)
	case d.Local.IsValid():
		return fmt.Sprintf("%d %s from %s to %s", d.Number, d.Target, d.Local, d.Remote)
	}
	return fmt.Sprintf("%d %s", d.Number, d.Target)
}

// Descriptors lists what the process with this id has open.
func Descriptors(pid int) ([]Descriptor, error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	names, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return nil, err
	}
	list := make([]Descriptor, 0, len(names))
	for _, n := range names {
		target, err := os.Readlink(filepath.Join(dir, "fd", n.Name()))
		if err != nil {
			continue // closed meanwhile, as the one that the directory was read with
		}
		number, err := strconv.Atoi(n.Name())
		if err != nil {
			return nil, err
		}
		list = append(list, Descriptor{Number: number, Target: target})
	}
	describe(dir, list)
	return list, nil
}

// describe adds the ends of TCP sockets, as far as they can be found.
func describe(dir string, list []Descriptor) {
	for _, file := range []string{"net/tcp", "net/tcp6"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			continue // a kernel without this family
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
			f := strings.Fields(line)
			if len(f) < 10 {
				continue
			}
			i := slices.IndexFunc(list, func(d Descriptor) bool { return d.Target == "socket:["+f[9]+"]" })
			if i < 0 {
				continue
			}
			list[i].Local, list[i].Remote, list[i].Listening = endpoint(f[1]), endpoint(f[2]), f[3] == "0A"
		}
	}
}

// endpoint reads an address of /proc/net/tcp: words of four bytes in the machine's order, and the port.
func endpoint(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}
	}
	for w := raw; len(w) > 0; w = w[4:] {
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	addr, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n))
}

// baseline counts what this process has open, by target.
func baseline() (map[string]int, error) {
	// The runtime opens what it waits with when the first descriptor that can be waited for comes, and keeps it.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, _ = r.Close(), w.Close()
	list, err := Descriptors(os.Getpid())
	if err != nil {
		return nil, err
	}
	return count(list), nil
}

func count(list []Descriptor) map[string]int {
	targets := map[string]int{}
	for _, d := range list {
		targets[d.Target]++
	}
	return targets
}

// descriptorsSince returns what this process has open and had not, by target and by how often.
func descriptorsSince(before map[string]int) ([]Descriptor, error) {
	list, err := Descriptors(os.Getpid())
	if err != nil {
		return nil, err
	}
	return More(before, list), nil
}

// More returns those of list that are not among the counted targets.
func More(before map[string]int, list []Descriptor) []Descriptor {
	seen := map[string]int{}
	return slices.DeleteFunc(list, func(d Descriptor) bool {
		seen[d.Target]++
		return seen[d.Target] <= before[d.Target]
	})
}
