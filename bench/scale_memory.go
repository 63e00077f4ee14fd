package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// memory is what a gateway says of itself, in bytes.
type memory struct {
	live      float64 // heap that was reachable at the last collection
	resident  float64
	anonymous float64 // of it what is not backed by a file
	cycles    float64 // collections so far
}

// readMemory reads the gateway's metrics.
func (r *scaleRun) readMemory(ctx context.Context) (memory, error) {
	status, text, err := r.call(ctx, http.MethodGet, "http://"+r.params.Metrics+"/apisix/prometheus/metrics", nil)
	if err != nil || status != http.StatusOK {
		return memory{}, fmt.Errorf("metrics: status %d (%v)", status, err)
	}
	return parseMemory(text)
}

// parseMemory finds the gauges of Go's runtime in an exposition. Under the
// default GOGC the next collection begins when the heap has grown by as much as
// was reachable, with the stacks added.
func parseMemory(text string) (memory, error) {
	values := map[string]float64{
		"go_memstats_next_gc_bytes": -1, "go_memstats_stack_inuse_bytes": -1, "process_resident_memory_bytes": -1,
		"process_resident_memory_anon_bytes": -1, "go_gc_duration_seconds_count": -1,
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if _, wanted := values[name]; wanted {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return memory{}, fmt.Errorf("metrics: %s: %w", name, err)
			}
			values[name] = v
		}
	}
	for name, v := range values {
		if v < 0 {
			return memory{}, fmt.Errorf("metrics: there is no %s", name)
		}
	}
	return memory{
		live:     (values["go_memstats_next_gc_bytes"] - values["go_memstats_stack_inuse_bytes"]) / 2,
		resident: values["process_resident_memory_bytes"], anonymous: values["process_resident_memory_anon_bytes"],
		cycles: values["go_gc_duration_seconds_count"],
	}, nil
}

// memory makes the gateway work until two collections have passed, so that
// nothing counts that was in use before, and returns what is left then.
func (r *scaleRun) memory(ctx context.Context) (memory, error) {
	first, err := r.readMemory(ctx)
	if err != nil {
		return memory{}, err
	}
	const patience = 300
	for range patience {
		// A refused write is read and decoded, and changes nothing.
		refused := []byte(`{"desc":"` + strings.Repeat("x", 1<<20) + `"}`)
		if _, _, err := r.call(ctx, http.MethodPut, "http://"+r.params.Admin+"/apisix/admin/routes/none", refused); err != nil {
			return memory{}, err
		}
		now, err := r.readMemory(ctx)
		if err != nil || now.cycles >= first.cycles+2 {
			return now, err
		}
	}
	return memory{}, fmt.Errorf("no collection within %d requests", patience)
}
