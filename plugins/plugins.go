// Package plugins is the list of all plugins, and nothing but the list.
package plugins

import (
	"headgate/plugins/prometheus"
	proxyrewrite "headgate/plugins/proxy-rewrite"
	trafficsplit "headgate/plugins/traffic-split"
	"headgate/proxy/phase"
)

// List returns every plugin, in the order of execution: by priority, highest first.
func List() []phase.Kind {
	return []phase.Kind{
		proxyrewrite.Kind(), // 1008
		trafficsplit.Kind(), // 966
		prometheus.Kind(),   // 500
	}
}
