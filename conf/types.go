package conf

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as a Go duration string ("60s", "1m30s", "200ms").
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// ParseDuration reads a duration string. Negative values are refused.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`expected a duration such as "60s" or "200ms", got %q`, s)
	}
	return Duration(d), nil
}

// Size is a number of bytes, written as an integer or as a string with a binary unit ("16KiB", "64MiB").
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// Int returns s as an int, or the largest int where s does not fit.
func (s Size) Int() int { return int(min(s, math.MaxInt)) }

func (s Size) String() string {
	switch {
	case s != 0 && s%GiB == 0:
		return strconv.FormatInt(int64(s/GiB), 10) + "GiB"
	case s != 0 && s%MiB == 0:
		return strconv.FormatInt(int64(s/MiB), 10) + "MiB"
	case s != 0 && s%KiB == 0:
		return strconv.FormatInt(int64(s/KiB), 10) + "KiB"
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// ParseSize reads a size string: a whole number and one of the units B, KiB, MiB, GiB.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "BKMGi")
	var unit Size
	switch strings.TrimPrefix(s, digits) {
	case "B":
		unit = 1
	case "KiB":
		unit = KiB
	case "MiB":
		unit = MiB
	case "GiB":
		unit = GiB
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || unit == 0 || n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf(`expected a size such as 16384, "16KiB", "64MiB" or "1GiB", got %q`, s)
	}
	return Size(n) * unit, nil
}

const redacted = "(secret)"

// Secret is a string that no way of printing shows: fmt with any verb, slog and encoding/json all give "(secret)".
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Equal compares in a time that depends on the length of candidate only.
func (s Secret) Equal(candidate string) bool {
	a, b := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(candidate))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Format implements fmt.Formatter, so that no verb reaches the value.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

func (s Secret) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
