package v3

import (
	"fmt"
	"strings"
	"testing"
)

func (h *harness) keysOf(target string) string {
	h.t.Helper()
	a := h.do("GET", target, "")
	if a.status != 200 {
		h.t.Fatalf("%s: %d %s", target, a.status, a.body)
	}
	var ids []string
	for _, part := range strings.Split(a.body, `"key":"/apisix/routes/`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		ids = append(ids, id)
	}
	_, total, _ := strings.Cut(a.body, `"total":`)
	return strings.Join(ids, ",") + " of " + strings.TrimSuffix(total, "}\n")
}

func TestPaging(t *testing.T) {
	h := start(t)
	for _, id := range []string{"z", "y", "x", "01", "02", "03", "04", "05", "06", "07", "08", "09"} {
		h.must("PUT", "/apisix/admin/routes/"+id, routeBody)
	}
	const all = "01,02,03,04,05,06,07,08,09,x,y,z of 12"
	tests := []struct{ query, want string }{
		{"", all},
		{"page=1", all},
		{"page_size=10", all},
		{"page=1&page_size=x", all},
		{"page=1&page_size=10", "z,y,x,01,02,03,04,05,06,07 of 12"},
		{"page=1.9&page_size=10.9", "z,y,x,01,02,03,04,05,06,07 of 12"},
		{"page=2&page_size=10", "08,09 of 12"},
		{"page=x&page_size=10", "z,y,x,01,02,03,04,05,06,07 of 12"},
		{"page=1&page_size=500", "z,y,x,01,02,03,04,05,06,07,08,09 of 12"},
		{"page=3&page_size=10", " of 12"},
		{"page=9007199254740993&page_size=500", " of 12"},
		{"page=1e300&page_size=500", " of 12"},
		{"page=nan&page_size=nan", all},
		{"page=1&page_size=10&name=none", " of 0"},
	}
	for _, tt := range tests {
		if got := h.keysOf("/apisix/admin/routes?" + tt.query); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.query, got, tt.want)
		}
	}
	for _, size := range []string{"9", "501", "0", "-1", "1e300"} {
		h.want(400, "page_size must be between 10 and 500", "GET", "/apisix/admin/routes?page=1&page_size="+size, "")
	}
	h.want(200, `{"list":{},"total":12}`+"\n", "GET", "/apisix/admin/routes?page=3&page_size=10", "")
	h.want(200, emptyList, "GET", "/apisix/admin/services?page=3&page_size=10", "")
}

func TestFilters(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/upstreams/u", `{"nodes":{}}`)
	h.must("PUT", "/apisix/admin/services/s", `{}`)
	h.must("PUT", "/apisix/admin/services/9", `{}`)
	docs := []string{
		`{"name":"alpha.one","uri":"/alpha","labels":{"env":"prod"},"upstream_id":"u","service_id":"s"}`,
		`{"name":"beta","uris":["/x","/alphabet"],"labels":{"tier":"env"},"service_id":9}`,
		`{"uri":"/gamma+","upstream_id":"u"}`,
	}
	for i, doc := range docs {
		h.must("PUT", fmt.Sprintf("/apisix/admin/routes/%d", i), doc)
	}
	tests := []struct{ query, want string }{
		{"name=a", "0,1 of 2"}, {"name=^a", "0 of 1"}, {"name=a.o", "0 of 1"}, {"name=.", "0,1 of 2"}, {"name=", "0,1,2 of 3"},
		{"name=(", " of 0"}, {"name=(a%2B)%2B$", "1 of 1"}, {"name=alpha%2Eone", "0 of 1"},
		{"uri=alpha", "0,1 of 2"}, {"uri=^/x$", "1 of 1"}, {"uri=gamma%5C%2B", "2 of 1"}, {"name=beta&uri=gamma", " of 0"},
		{"label=env", "0 of 1"}, {"label=prod", " of 0"}, {"label=", "0,1,2 of 3"},
		{"filter=service_id%3Ds", "0 of 1"}, {"filter=service_id%3D9", " of 0"}, {"filter=upstream_id%3Du", "0,2 of 2"},
		{"filter=upstream_id%3Du%26service_id%3Ds", "0 of 1"}, {"filter=name%3Dbeta", "0,1,2 of 3"}, {"filter=", "0,1,2 of 3"},
		{"label=env&name=alpha&filter=upstream_id%3Du", "0 of 1"}, {"nope=1", "0,1,2 of 3"},
	}
	for _, tt := range tests {
		if got := h.keysOf("/apisix/admin/routes?" + tt.query); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.query, got, tt.want)
		}
	}
}
