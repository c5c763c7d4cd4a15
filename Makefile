# What a developer types. Every target does its own set-up; `make help` lists them.

CARGO   ?= cargo
# `quick` is the release profile without its slow link: right for trying things out. Figures need `release`.
PROFILE ?= quick
ARGS    ?=

.DEFAULT_GOAL := help
.PHONY: help run build release test faults simulate autobahn image ci bench budgets setup fmt lint doc floors clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build and start one complete development node (embedded queue, demo project)
	@exec target/$(PROFILE)/ws-cluster $(ARGS)

build: ## build the server
	$(CARGO) build --profile $(PROFILE) --bin ws-cluster

release: ## build the server as it is deployed
	$(CARGO) build --release --bin ws-cluster

test: ## every test; installs what they need (see .ci/setup) if it is missing
	@.ci/test

faults: ## the fault scenarios at full length (20 s each)
	@.ci/setup
	@WS_FAULTS_SECONDS=20 $(CARGO) test --features plain-pubsub --locked --test faults --test topologies

simulate: ## SEEDS runs (10000) of the simulation under each profile of faults, from a random seed on
	@.ci/simulate $(SEEDS)

autobahn: ## the whole Autobahn suite against examples/echo (needs Python 2.7; a quarter of an hour)
	@tests/autobahn/run --deflate

image: setup ## the Dockerfile's steps without Docker: a static binary in a bare chroot (needs root; the first build takes 10 to 20 minutes)
	@target/venv/bin/python tests/image.py $(ARGS)

ci: ## what CI runs: format, lints, documentation, floors, every test
	@.ci/run

bench: ## the README's table: ours, the ideal of this machine and the peers, in turns (two CPUs, nothing else running, half an hour; ARGS: see perf/bench/run)
	$(CARGO) build --release --workspace --bins
	perf/bench/run $(ARGS)

budgets: ## instructions of the hot paths, held to perf/baselines (needs valgrind)
	@perf/budgets/run

setup: ## only the set-up of `make test`
	@.ci/setup

fmt: ## format the code
	$(CARGO) fmt --all

lint: ## clippy, warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: ## the developers' documentation, warnings are errors
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --workspace --document-private-items --locked

floors: ## which module may import what (docs/ARCHITECTURE.md)
	$(CARGO) test --test floors --locked

clean: ## remove everything that was built
	$(CARGO) clean
