# The commands of this repository; `make help` lists them. What they do is in scripts/, so that the
# workflows and people run the same things. CARGO=… names another cargo.

CARGO ?= cargo
export CARGO
# For `make run` and `make cluster`: arguments of `hiveops dev`, such as ARGS=--demo.
ARGS ?=
# For `make bench`: the cases to run, all when empty.
CASES ?=
# For `make fuzz`.
SECONDS ?= 600
# For `make ws-load`: a cluster that runs already, and how long a soak takes, such as 30m.
URL ?=
DURATION ?=

.DEFAULT_GOAL := help
.PHONY: help run cluster test lint tidy deny schemas autobahn fuzz ws-load bench bench-peers instructions nightly clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: ## Install what is missing, build, and start a node on 127.0.0.1:8000 (ARGS="--demo")
	@scripts/install cargo cc
	@scripts/run $(ARGS)

cluster: ## The same with three nodes, three control replicas and NATS behind one address, to kill parts of (ARGS="--demo")
	@scripts/install cargo cc nats-server
	@scripts/run --nodes 3 --controls 3 $(ARGS)

test: ## Install what is missing, then run every test and check that nothing generated has drifted
	@scripts/install cargo cc node chromium k6 nats-server redis-server haproxy iptables prometheus
	$(CARGO) test --workspace --locked
	scripts/schemas check
	scripts/bench-report test
	npm -w mobile-pwa run test:page
	node --test loadtest/k6/test/*.test.mjs

lint: ## Formatting and clippy, warnings as errors
	@scripts/install cargo cc rustfmt clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features hiveops-node/counted --locked -- -D warnings

tidy: ## Only the rules of this repository that no compiler knows; part of `make test`
	@scripts/install cargo cc
	$(CARGO) test --locked -p hiveops --test it tidy

deny: ## Licences, sources and doubles among the dependencies (needs cargo-deny)
	@scripts/install cargo cargo-deny
	$(CARGO) deny --locked check bans licenses sources

schemas: ## Write anew what is generated from schemas/: TypeScript types, openapi.json, asyncapi.json
	@scripts/install node
	scripts/schemas generate

autobahn: ## The Autobahn cases against the WebSocket codec; the last line is `N passed, M failed`
	@scripts/install cargo cc venv
	@scripts/conformance

fuzz: ## Fuzz the WebSocket parser (SECONDS=600)
	@scripts/install cargo cc c++
	scripts/fuzz $(SECONDS)

ws-load: ## k6 as clients, held to the objectives: smoke=1 (a minute) or soak=1 (DURATION=10m), on URL= or a cluster of its own
	@scripts/install k6 $(if $(URL),,cargo cc nats-server)
	@URL='$(URL)' DURATION='$(DURATION)' scripts/ws-load $(if $(smoke),smoke) $(if $(soak),soak)

bench: ## Measure everything that docs/performance.md promises, and write it (CASES="idle fanout")
	@scripts/install cargo cc nats-server redis-server $(if $(filter 0,$(SYSCALL_SECONDS)),,perf)
	@scripts/bench $(CASES)

bench-peers: ## Servers of other people beside the floor and HiveOps, in one run
	@scripts/install cargo cc node peers nats-server nchan
	@scripts/bench-peers

instructions: ## Count the instructions of the hot path and compare them with node/instructions.json
	@scripts/install cargo cc valgrind
	@scripts/instructions

nightly: ## The long chaos runs on both buses, an hour and a half; each result is one line of JSON
	@scripts/install cargo cc nats-server redis-server haproxy iptables
	@scripts/simulate
	@scripts/chaos

clean: ## Remove everything that was built or installed inside the repository
	$(CARGO) clean
	rm -rf fuzz/target fuzz/artifacts .tools node_modules mobile-pwa/node_modules mobile-pwa/dist
