# Everything that is done to Headgate, by name. `make` builds it.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME    ?= 10s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: build run demo test faults lint fuzz bench storm scale clean

# One static binary.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/headgate ./cmd/headgate

# The gateway on its defaults: data under ./data, Admin API on 127.0.0.1:9180, traffic on 0.0.0.0:9080.
run: build
	./bin/headgate run

# The gateway and two AI upstreams over TLS in one process, with a split to play with.
demo: build
	./bin/headgate demo

# What asserts allocations, without the race detector, which would disturb it; then all tests with it. The fault suite runs by itself, so that it
# shows its figures, and so does the comparison with the recorded APISIX, so that it shows how many cases were compared.
test:
	@.ci/need gcc git curl python3 openssl etcd=etcd-server redis-server redis-sentinel
	$(GO) test -timeout 10m -run 'Alloc' ./...
	$(GO) test -race -timeout 15m -skip '^TestRecordedAPISIX$$|^TestFault[0-9]' ./...
	@GO=$(GO) .ci/faults -race
	$(GO) test -race -timeout 15m -v -run '^TestRecordedAPISIX$$' ./cmd/headgate

# What was measured with each fault of an upstream, a client or the machine; without the race detector, as users run it.
faults:
	@GO=$(GO) .ci/faults

lint:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "gofmt: $$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -run 'TestFloors' ./cmd/headgate
	@.ci/vulncheck $(GOVULNCHECK)

# Every fuzz target for FUZZTIME.
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

# Micro benchmarks, then CPU time per request next to a TCP relay, nginx and HAProxy in one interleaved run.
bench: build
	$(GO) test -run '^$$' -bench . -benchmem ./proxy/... ./balancer/... ./plugins/...
	$(GO) run ./bench

# 60 s of full load while weights and routes change 50 times a second: no request may be lost.
storm: build
	$(GO) run ./bench storm

# What 100,000 routes cost: look-ups (and the memory miss that they are measured in), a start and its CPU time, memory, an edit, requests
# under 1,000 edits a second; on every store. Some five minutes.
scale: build
	@.ci/need etcd=etcd-server
	$(GO) test -run '^$$' -bench 'Find' -benchtime 300ms ./proxy/route
	$(GO) test -run '^$$' -bench 'Trie' -benchtime 300ms ./proxy/snapshot
	$(GO) run ./bench scale

clean:
	rm -rf bin
