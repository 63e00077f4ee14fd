//go:build !race

package limit

import "testing"

// A million keys are all counted exactly, and when their windows have ended their memory goes to the keys that come.
func TestMillionKeys(t *testing.T) {
	windows := NewWindows()
	s := Shape{Count: 1, Window: 60 * second}
	const keys = 1_000_000
	for i := range keys {
		if !windows.Take(keyOf(windows, i), s, second).OK {
			t.Fatalf("key %d was counted before", i)
		}
	}
	for i := range keys {
		if windows.Take(keyOf(windows, i), s, 2*second).OK {
			t.Fatalf("key %d was forgotten", i)
		}
	}
	if n := windows.Len(); n != keys {
		t.Errorf("%d keys held", n)
	}
	for i := range 2 * groups { // each clears what is over in its own list and in one other
		windows.Take(keyOf(windows, keys+i), s, 120*second)
	}
	if n := windows.Len(); n != 2*groups {
		t.Errorf("%d keys held when only %d are in use", n, 2*groups)
	}
}
