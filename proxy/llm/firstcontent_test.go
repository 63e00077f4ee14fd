package llm

import (
	"strings"
	"testing"
)

func event(data string) string { return "data: " + data + "\n\n" }

var streams = []struct {
	name    string
	before  []string // events without content
	content string   // the first that has some
}{
	{
		"chat completions",
		[]string{
			`{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
			`{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}`, `{"choices":[{"delta":{}}]}`, `{"choices":[{"delta":{"content":null,"tool_calls":[]}}]}`,
			`{"choices":[{"index":0,"text":"","finish_reason":null}]}`,
		}, `{"choices":[{"delta":{"content":"Hi"}}]}`,
	},
	{"tool calls", []string{`{"choices":[{"delta":{"role":"assistant"}}]}`}, `{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}`},
	{"reasoning", nil, `{"choices":[{"delta":{"content":"","reasoning_content":"hm"}}]}`},
	{"second choice", nil, `{"choices":[{"delta":{}},{"delta":{"refusal":"no"}}]}`},
	{"empty answer", []string{`{"choices":[{"delta":{"role":"assistant"}}]}`}, `{"choices":[{"delta":{},"finish_reason":"stop"}]}`},
	{"end", nil, `[DONE]`},
	{"error", nil, `{"error":{"message":"overloaded"}}`},
	{"error with choices", nil, `{"choices":[],"error":{"message":"overloaded"}}`},
	{"completions", nil, `{"choices":[{"text":"Hi"}]}`},
	{
		"messages",
		[]string{
			`{"type":"message_start","message":{"usage":{"input_tokens":1}}}`, `{"type":"ping"}`, `{"type":"content_block_start","content_block":{"type":"text","text":""}}`,
			`{"type":"content_block_delta","delta":{"type":"text_delta","text":""}}`,
		}, `{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}`,
	},
	{"thinking", nil, `{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}`},
	{"messages error", nil, `{"type":"error","error":{"type":"overloaded_error"}}`},
	{
		"responses",
		[]string{`{"type":"response.created"}`, `{"type":"response.in_progress"}`, `{"type":"response.output_item.added"}`, `{"type":"response.output_text.delta","delta":""}`},
		`{"type":"response.output_text.delta","delta":"Hi"}`,
	},
	{"responses failed", nil, `{"type":"response.failed"}`},
	{
		"gemini",
		[]string{`{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"}}],"usageMetadata":{}}`, `{"candidates":[]}`},
		`{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}]}`,
	},
	{"gemini call", nil, `{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}`},
	{"something else", nil, `{"hello":1}`},
	{"text", []string{" "}, `hello`},
	{"number", nil, `7`},
	{"broken", nil, `{"choices":[`},
}

func TestFirstContent(t *testing.T) {
	var f FirstContent
	for _, s := range streams {
		for _, end := range []string{"\n", "\r\n", "\r"} {
			lines := func(text string) string { return strings.ReplaceAll(text, "\n", end) }
			for _, step := range []int{1, 2, 7, 1 << 20} {
				f.Reset()
				before := lines("\xef\xbb\xbf: a comment\n\nevent: x\nid: 1\nretry: 5\ndata\n\n")
				for _, data := range s.before {
					before += lines(event(data))
				}
				for rest := before; rest != ""; {
					n := min(step, len(rest))
					if f.Feed([]byte(rest[:n])) {
						t.Fatalf("%s, line end %q: content before %q", s.name, end, rest[n:])
					}
					rest = rest[n:]
				}
				text := lines(": ping\n" + event(s.content))
				found := false
				for rest := text; rest != ""; {
					n := min(step, len(rest))
					found = f.Feed([]byte(rest[:n]))
					rest = rest[n:]
				}
				if !found {
					t.Errorf("%s, line end %q, by %d: no content in %q", s.name, end, step, text)
				}
			}
		}
	}
}

// Several data lines are one text, and an event that is longer than anybody keeps has content.
func TestFirstContentOfLongEvents(t *testing.T) {
	var f FirstContent
	if f.Feed([]byte("data: {\"choices\":\ndata: []}\n\n")) {
		t.Error("two lines of one object are content")
	}
	if f.Reset(); !f.Feed([]byte("data: " + strings.Repeat("x", maxEvent))) {
		t.Error("a long line is not content")
	}
	if f.Reset(); f.Feed([]byte(event(`{"choices":[]}`))) {
		t.Error("Reset does not")
	}
}

func TestFirstContentAllocatesNothing(t *testing.T) {
	var f FirstContent
	text := []byte(event(streams[0].before[0]) + event(streams[0].content))
	f.Feed(text)
	if n := testing.AllocsPerRun(100, func() { f.Reset(); f.Feed(text) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFirstContent: where the bytes are cut makes no difference.
func FuzzFirstContent(f *testing.F) {
	for _, s := range streams {
		f.Add([]byte(event(strings.Join(s.before, "\n"))+event(s.content)), 3)
	}
	f.Add([]byte("data:x\r\n\r\n"), 7)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		var whole, parts FirstContent
		want := whole.Feed(text)
		got := false
		for step, rest := max(step, 1), text; len(rest) > 0; {
			n := min(step, len(rest))
			got = parts.Feed(rest[:n])
			rest = rest[n:]
		}
		if got != want {
			t.Errorf("whole %v, by %d %v", want, step, got)
		}
	})
}
