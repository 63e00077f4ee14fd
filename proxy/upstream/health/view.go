package health

import (
	"strconv"

	"headgate/proxy/meter"
)

// Checked is an upstream in force that has checks, as operators see it (contract section 1.9).
type Checked struct {
	// Key is that of the document that holds the upstream: "routes/1".
	Key string
	// Type of the probes: "http", "https" or "tcp".
	Type  string
	Nodes []NodeHealth
}

// NodeHealth is what is known about one address.
type NodeHealth struct {
	IP       string   `json:"ip"` // of a name, the address that it had at the last probe; the name before
	Port     int      `json:"port"`
	Hostname string   `json:"hostname"` // that of the checks, else the node's
	Status   string   `json:"status"`
	Counter  Counters `json:"counter"`
}

// Counters are the reports since the last ones that said the opposite.
type Counters struct {
	Success int `json:"success"`
	HTTP    int `json:"http_failure"`
	TCP     int `json:"tcp_failure"`
	Timeout int `json:"timeout_failure"`
}

// Checked returns the upstreams that have checks and are in force, in any order; their nodes are in the order of the document, each address
// once.
func (m *Monitor) Checked() []Checked {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Checked, 0, len(m.inForce))
	for c := range m.inForce {
		a := c.checks.Active
		v := Checked{Key: c.key, Type: a.Type, Nodes: make([]NodeHealth, 0, len(c.targets))}
		for _, t := range c.targets {
			v.Nodes = append(v.Nodes, t.view(a.Host))
		}
		list = append(list, v)
	}
	return list
}

func (t *Target) view(hostname string) NodeHealth {
	w := word(t.health.Load())
	n := NodeHealth{IP: t.host, Port: t.port, Hostname: hostname, Status: w.status().String()}
	n.Counter = Counters{w.count(Success), w.count(HTTPFailure), w.count(TCPFailure), w.count(Timeout)}
	if hostname == "" {
		n.Hostname = t.host
	}
	if seen := t.seen.Load(); seen != nil {
		n.IP = *seen
	}
	return n
}

// register announces the metrics.
func (m *Monitor) register() {
	r := m.opt.Meter
	for o := range outcomes {
		if r == nil {
			m.counts[o] = new(meter.Counter)
			continue
		}
		m.counts[o] = r.Counter(meter.HealthProbes, meter.Label{Name: "result", Value: o.String()})
	}
	if r == nil {
		return
	}
	r.Collect(meter.UpstreamStatus, []string{"name", "ip", "port"}, func(emit meter.Emit) {
		for _, c := range m.Checked() {
			for _, n := range c.Nodes {
				up := 0.0
				if n.Status == Healthy.String() || n.Status == MostlyHealthy.String() {
					up = 1
				}
				emit(up, m.opt.Prefix+"/"+c.Key, n.IP, strconv.Itoa(n.Port))
			}
		}
	})
	r.Collect(meter.UpstreamAllDown, []string{"upstream"}, func(emit meter.Emit) {
		for key, all := range m.allDown() {
			emit(all, key)
		}
	})
}

// allDown returns 1 for every upstream in force whose nodes are all left out, so that all are used, and 0 for the others, by key.
func (m *Monitor) allDown() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]float64, len(m.inForce))
	for c := range m.inForce {
		all[c.key] = 0
		if c.allDown() {
			all[c.key] = 1
		}
	}
	return all
}

// log writes the line of one flip: "health: upstreams/1: 10.0.0.1:80 is unhealthy: 2 HTTP failures, the last one status 500 (probe)".
func (m *Monitor) log(f *flip) {
	verdict, source, last, rest := "unhealthy", "probe", "", ""
	if f.up {
		verdict = "healthy again"
	}
	if f.passive {
		source = "request"
	}
	switch {
	case f.detail != "":
		last = ", the last one " + f.detail
	case f.outcome == HTTPFailure && f.status == 0:
		last = ", the last one no status line"
	case f.status != 0:
		last = ", the last one status " + strconv.Itoa(f.status)
	}
	if f.allDown {
		rest = "; no server is healthy, so that all are used"
	}
	m.opt.Logf("health: %s: %s is %s: %s%s (%s)%s", f.key, f.target.address(), verdict, counted(f.count, f.outcome), last, source, rest)
}

// counted is a number of outcomes in words.
func counted(n int, o Outcome) string {
	noun := map[Outcome]string{Success: "success", HTTPFailure: "HTTP failure", TCPFailure: "TCP failure", Timeout: "timeout"}[o]
	switch {
	case n == 1:
		return "1 " + noun
	case o == Success:
		return strconv.Itoa(n) + " successes"
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
