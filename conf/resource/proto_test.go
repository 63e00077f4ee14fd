package resource

import (
	"encoding/base64"
	"strings"
	"testing"
)

const typicalProto = `// the service
syntax = "proto3";
package my.greeter;
import public "google/protobuf/empty.proto";
option go_package = "a;b";
option (my.ext).deep = { name: "x" list: [1, 2] };

/* what is
   said */
message Hello {
  reserved 2, 15, 9 to 11;
  string name = 1 [(rule).max = 5, deprecated = true];
  map<string, my.Kind> kinds = 3;
  repeated .my.greeter.Hello more = 4;
  oneof body { string text = 5; bytes raw = 6; }
  message Inner { optional int32 n = 1 [default = -1]; extensions 100 to max; }
  enum Kind { option allow_alias = true; NONE = 0; OTHER = -1; HEX = 0x10; };
}
extend Hello { optional string extra = 126; }
service Greeter {
  option deprecated = true;
  rpc Say (Hello) returns (stream Hello);
  rpc Shout (stream Hello) returns (Hello) { option (http) = { get: "/v1/{name}" }; }
}
`

func protoRefusal(content string) string {
	if err := checkProto(map[string]any{"content": content}); err != nil {
		return err.Msg
	}
	return ""
}

func TestProto(t *testing.T) {
	deep := strings.Repeat("message A { ", 65)
	for content, want := range map[string]string{
		typicalProto: "",
		"":           "",
		"edition = '2023'; message A { oneof b { int32 c = 1; } ; }":           "",
		"message A { optional group B = 1 { string c = 2; } }":                 "",
		base64.StdEncoding.EncodeToString([]byte("\x0a\x03\x0a\x01a\x0a\x00")): "",
		"nonsense":                                "line 1: unexpected nonsense",
		"message A {":                             "line 1: unexpected end",
		"message A {\n string n = 1\n}":           "line 3: unexpected }",
		"message A {\n string n;\n}":              "line 2: a field without a number",
		"enum A { B; }":                           "line 1: a field without a number",
		"message 'A' {}":                          "line 1: unexpected 'A'",
		"syntax = proto3;":                        "line 1: unexpected proto3",
		"syntax = \"proto3\"":                     "line 1: unexpected end",
		"syntax = \"proto3;\nmessage A {}":        "line 1: a string has no end",
		"import 1;":                               "line 1: unexpected ;",
		"/* a\nb":                                 "line 1: a comment has no end",
		"service S {\n  go Say (A) returns (B);}": "line 2: unexpected go",
		"service S { rpc Say (A] returns (B); }":  "line 1: unexpected ]",
		"message A { string n = 1 [a = 2; }":      "line 1: unexpected ;",
		"message A { string n = 1; } }":           "line 1: unexpected }",
		"package a b;":                            "line 1: unexpected b",
		"message A { ä b = 1; }":                  `line 1: unexpected character 'ä'`,
		deep:                                      "line 1: nested deeper than 64 levels",
		"option a = " + strings.Repeat("[", 65):   "line 1: nested deeper than 64 levels",
		base64.StdEncoding.EncodeToString([]byte("\x0a\x09\x0a")): "line 1: unexpected CgkK",
	} {
		if want != "" {
			want = "invalid content: " + want
		}
		if got := protoRefusal(content); got != want {
			t.Errorf("%.80s:\n got  %s\n want %s", content, got, want)
		}
	}
}

// What a formatter may do to a file changes nothing: a proto stays one, and a text that is none does not become one.
func FuzzProto(f *testing.F) {
	for _, seed := range []string{typicalProto, "nonsense", "message A { string n = 1; }", "enum A { B = 0; }", "option a = \"\\\"\";", "/**/;"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		if len(content) > 1<<16 || isDescriptorSet(content) {
			return
		}
		got, spaced := protoRefusal(content), protoRefusal(" \t"+content+"\n")
		if (got == "") != (spaced == "") {
			t.Errorf("%q: %q, with space around %q", content, got, spaced)
		}
		if twice := protoRefusal(content + "\n" + content); got == "" && twice != "" {
			t.Errorf("%q passes, twice it does not: %s", content, twice)
		}
	})
}
