package wire

import (
	"bytes"
	"testing"
)

// FuzzTrailers: a trailer section that is taken ends with its first empty line and consists of header lines; where the network cuts it does
// not matter.
func FuzzTrailers(f *testing.F) {
	for _, s := range []string{"\r\n", "A: b\r\n\r\n", "A: b\r\nC:\r\n\r\nGET / HTTP/1.1\r\n\r\n", "A b: c\r\n\r\n", "A: b\n\r\n", " A: b\r\n\r\n", "A: \x00\r\n\r\n", "A: b\r\n c\r\n\r\n", "A"} {
		f.Add([]byte(s), 1)
		f.Add([]byte(s), 5)
	}
	const before = "1\r\na\r\n0\r\n"
	read := func(b []byte, step int) (used int, done, ok bool) {
		var r Chunks
		for have := 0; ; {
			have = min(have+step, len(b))
			for {
				piece, n, ok := r.Next(b[used:have], 1)
				if used += n; !ok {
					return used, false, false
				}
				if r.Done() {
					return used, true, true
				}
				if len(piece) == 0 {
					break
				}
			}
			if have == len(b) {
				return used, false, true
			}
		}
	}
	f.Fuzz(func(t *testing.T, section []byte, step int) {
		if len(section) > 8<<10 {
			return
		}
		b := append([]byte(before), section...)
		used, done, ok := read(b, len(b))
		used2, done2, ok2 := read(b, max(step&31, 1))
		if done != done2 || ok != ok2 || done && used != used2 {
			t.Fatalf("%q: %d %t %t; in pieces %d %t %t", section, used, done, ok, used2, done2, ok2)
		}
		if !done {
			return
		}
		taken := section[:used-len(before)]
		for rest := taken; ; {
			line, after, ok := CutLine(rest)
			if !ok {
				t.Fatalf("%q was taken", taken)
			}
			if rest = after; len(line) == 0 {
				if len(rest) > 0 {
					t.Fatalf("%q was taken, and ends before", taken)
				}
				return
			}
			name, value, found := bytes.Cut(line, []byte{':'})
			if !found || !ValidName(name) || !ValidValue(value) {
				t.Fatalf("the line %q was taken", line)
			}
		}
	})
}
