package route

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestAppendHost(t *testing.T) {
	label := strings.Repeat("a", 63)
	for _, tt := range []struct {
		raw, host string
		err       error
	}{
		{"foo.com", "foo.com", nil},
		{"FOO.Com", "foo.com", nil},
		{"foo.com:8080", "foo.com", nil},
		{"foo.com.", "foo.com", nil},
		{"foo.com.:80", "foo.com", nil},
		{"foo-bar_baz.com", "foo-bar_baz.com", nil},
		{"127.0.0.1:19080", "127.0.0.1", nil},
		{"a:0", "a", nil},
		{"a:65535", "a", nil},
		{"a:", "a", nil},
		{"a.:", "a", nil},
		{"[::1]:", "[::1]", nil},
		{"a!$&'()*+;=~", "a!$&'()*+;=~", nil},
		{"[::1]", "[::1]", nil},
		{"[::1]:80", "[::1]", nil},
		{"[FE80::A%25en0]:80", "[fe80::a%25en0]", nil},
		{"[2001:db8:0:0:0:0:0:1]", "[2001:db8:0:0:0:0:0:1]", nil},
		{"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", nil},
		{label + "." + label + "." + label + "." + label[2:] + ".:65535", label + "." + label + "." + label + "." + label[2:], nil},
		{"", "", ErrHostEmpty},
		{":80", "", ErrHostEmpty},
		{".", "", ErrHostByte},
		{".foo", "", ErrHostByte},
		{"foo..", "", ErrHostByte},
		{"a..b", "", ErrHostByte},
		{"user@foo.com", "", ErrHostByte},
		{"user:pw@foo.com", "", ErrHostPort},
		{"foo com", "", ErrHostByte},
		{" foo", "", ErrHostByte},
		{"foo\t", "", ErrHostByte},
		{"<a>", "", ErrHostByte},
		{`"a"`, "", ErrHostByte},
		{"a/b", "", ErrHostByte},
		{"a,b", "", ErrHostByte},
		{"a?b", "", ErrHostByte},
		{"a#b", "", ErrHostByte},
		{`a\b`, "", ErrHostByte},
		{"a%41", "", ErrHostByte},
		{"caf\xc3\xa9.com", "", ErrHostByte},
		{"a\x00", "", ErrHostByte},
		{"{", "", ErrHostByte},
		{"foo:80x", "", ErrHostPort},
		{"foo:65536", "", ErrHostPort},
		{"foo:000080", "", ErrHostPort},
		{"foo:-1", "", ErrHostPort},
		{"foo:80:80", "", ErrHostPort},
		{"::1", "", ErrHostEmpty},
		{"[::1]80", "", ErrHostPort},
		{"[::1].", "", ErrHostPort},
		{"[::1", "", ErrHostIPv6},
		{"[]", "", ErrHostIPv6},
		{"[1.2.3.4]", "", ErrHostIPv6},
		{"[v1.a]", "", ErrHostIPv6},
		{"[::1%en0]", "", ErrHostIPv6},
		{"[::1%25]", "", ErrHostIPv6},
		{"[::1%25a/b]", "", ErrHostIPv6},
		{"[1:2:3:4:5:6:7:8:9]", "", ErrHostIPv6},
		{"[[::1]]", "", ErrHostIPv6},
		{strings.Repeat("a", MaxHost+1), "", ErrHostLong},
	} {
		host, hostport, err := AppendHost([]byte("kept"), []byte(tt.raw))
		if err != tt.err && (err != nil || tt.err != nil) {
			t.Errorf("%q: error %v, want %v", tt.raw, err, tt.err)
		}
		want := strings.ToLower(tt.raw)
		if err != nil {
			want = ""
			if !errors.Is(err, ErrBadHost) {
				t.Errorf("%q: %v is not ErrBadHost", tt.raw, err)
			}
		}
		if string(host) != tt.host || string(hostport) != want {
			t.Errorf("%q: got %q and %q, want %q and %q", tt.raw, host, hostport, tt.host, want)
		}
	}
	if errors.Is(ErrHostPort, ErrHostByte) {
		t.Error("the kinds of HostError are told apart")
	}
}

func TestAppendHostUsesTheStorageOfDst(t *testing.T) {
	buf := make([]byte, 0, 32)
	host, hostport, err := AppendHost(buf, []byte("A.b:1"))
	if err != nil || &host[0] != &buf[:1][0] || &hostport[0] != &buf[:1][0] {
		t.Errorf("%q %q %v: not in the storage of dst", host, hostport, err)
	}
	_ = append(hostport, 'x')
	if rest := buf[:6]; rest[5] != 0 {
		t.Error("an append to hostport reaches the rest of dst")
	}
}

func FuzzAppendHost(f *testing.F) {
	for _, s := range []string{"foo.com", "A.b.:80", "[::1]:80", "[1:2::3:4.5.6.7]", "[fe80::1%25e0]", "a@b", "a,b", "::1", "[:::]", "[1::2::3]", "[12345::]", "[::1.2.3.04]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		host, hostport, err := AppendHost(nil, raw)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was changed")
		}
		if inside, found := bytes.CutPrefix(raw, []byte("[")); found && bytes.HasSuffix(inside, []byte("]")) && len(raw) <= MaxHost {
			inside = inside[:len(inside)-1]
			if bytes.IndexByte(inside, '%') < 0 {
				a, parseErr := netip.ParseAddr(string(inside))
				if valid := parseErr == nil && a.Is6(); valid != (err == nil) {
					t.Fatalf("%q: got %v, netip says %v", raw, err, valid)
				}
			}
		}
		if err != nil {
			if host != nil || hostport != nil {
				t.Fatalf("%q: an error and %q %q", raw, host, hostport)
			}
			return
		}
		if !bytes.HasPrefix(hostport, host) || len(host) == 0 || !bytes.EqualFold(hostport, raw) || bytes.HasSuffix(host, []byte(".")) {
			t.Fatalf("%q: got %q and %q", raw, host, hostport)
		}
		for _, c := range hostport {
			if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' || bytes.IndexByte([]byte(`@/,<>"\?#{}|^`+"`"), c) >= 0 {
				t.Fatalf("%q: byte %q got through", raw, c)
			}
		}
		if same, port, err := AppendHost(nil, hostport); err != nil || !bytes.Equal(same, host) || !bytes.Equal(port, hostport) {
			t.Fatalf("%q: %q taken again: %q and %q, %v", raw, hostport, same, port, err)
		}
		again, _, err := AppendHost(nil, host)
		if err != nil || !bytes.Equal(again, host) {
			t.Fatalf("%q: host %q taken again: %q, %v", raw, host, again, err)
		}
	})
}
