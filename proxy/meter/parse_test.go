package meter

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// exposition is a parsed exposition: what a scraper makes of the text.
type exposition struct {
	types, helps map[string]string
	order        []string          // families by their TYPE lines
	samples      map[string]string // series text as written -> value
	labels       map[string][]Label
}

// parse is strict: it fails on anything that the text format 0.0.4 does not allow and on duplicate families and series.
func parse(text []byte) (*exposition, error) {
	e := &exposition{
		types: map[string]string{}, helps: map[string]string{}, samples: map[string]string{}, labels: map[string][]Label{},
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, fmt.Errorf("no newline at the end")
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			e.helps[name] = help
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, typ, _ := strings.Cut(rest, " ")
			if _, twice := e.types[name]; twice {
				return nil, fmt.Errorf("two TYPE lines for %s", name)
			}
			e.types[name] = typ
			e.order = append(e.order, name)
			continue
		}
		series, labels, value, err := parseSample(line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		name, _, _ := strings.Cut(series, "{")
		if last := e.order[len(e.order)-1]; !strings.HasPrefix(name, last) {
			return nil, fmt.Errorf("%q stands in family %s", line, last)
		}
		if _, twice := e.samples[series]; twice {
			return nil, fmt.Errorf("two samples for %s", series)
		}
		e.samples[series], e.labels[series] = value, labels
	}
	return e, nil
}

func parseSample(line string) (series string, labels []Label, value string, err error) {
	i := strings.IndexAny(line, "{ ")
	if i <= 0 || !validName(line[:i], true) {
		return "", nil, "", fmt.Errorf("no metric name")
	}
	if line[i] == '{' {
		for i++; line[i] != '}'; {
			eq := strings.IndexByte(line[i:], '=')
			if eq < 0 || !validName(strings.TrimSpace(line[i:i+eq]), false) {
				return "", nil, "", fmt.Errorf("no label name at %d", i)
			}
			l := Label{Name: strings.TrimSpace(line[i : i+eq])}
			if i += eq + 1; line[i] != '"' {
				return "", nil, "", fmt.Errorf("no quote at %d", i)
			}
			var v strings.Builder
			for i++; line[i] != '"'; i++ {
				if line[i] != '\\' {
					v.WriteByte(line[i])
					continue
				}
				i++
				switch line[i] {
				case '\\', '"':
					v.WriteByte(line[i])
				case 'n':
					v.WriteByte('\n')
				default:
					return "", nil, "", fmt.Errorf("unknown escape \\%c", line[i])
				}
			}
			l.Value = v.String()
			labels = append(labels, l)
			if i++; line[i] == ',' {
				i++
			} else if line[i] != '}' {
				return "", nil, "", fmt.Errorf("no comma at %d", i)
			}
		}
		i++
	}
	value, ok := strings.CutPrefix(line[i:], " ")
	if !ok {
		return "", nil, "", fmt.Errorf("no value")
	}
	if _, err := strconv.ParseFloat(value, 64); err != nil {
		return "", nil, "", err
	}
	return line[:i], labels, value, nil
}

// scrape returns the exposition of r and its text without the families of the process.
func scrape(t testing.TB, r *Registry) (*exposition, string) {
	t.Helper()
	var buf bytes.Buffer
	if err := r.Write(&buf); err != nil {
		t.Fatal(err)
	}
	e, err := parse(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(buf.String(), "# TYPE go_")
	return e, text
}

func wantSamples(t *testing.T, e *exposition, want map[string]string) {
	t.Helper()
	for series, value := range want {
		if got, ok := e.samples[series]; !ok || got != value {
			t.Errorf("%s = %q (present %t), want %q", series, got, ok, value)
		}
	}
}
