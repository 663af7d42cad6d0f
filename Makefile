# WattZoo: every target installs what it needs and says what it does. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
MINUTES ?= 10
DATA ?= ../shared/data
VENV := .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=operator:policies:. $(BIN)/python

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)



$(VENV)/.installed: requirements/dev.txt pyproject.toml scripts/install.sh
	@PYTHON="$(PYTHON)" scripts/install.sh $(VENV)

.PHONY: install
install: $(VENV)/.installed ## make .venv with everything that developing, testing and the demo need

.PHONY: system
system: install ## check the system packages and rights that the cluster harness needs; as root, install what is missing
	@scripts/system_packages.sh
	@$(RUN) -m e2e.cluster check

.PHONY: lock
lock: install ## pin the dependencies of requirements/ with hashes again
	$(BIN)/pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-options \
		--output-file requirements/runtime.txt pyproject.toml
	$(BIN)/pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-options \
		--extra plot --extra simulate --output-file requirements/dev.txt pyproject.toml requirements/dev.in



.PHONY: fmt
fmt: install ## format the code
	$(BIN)/ruff check --fix-only -q . && $(BIN)/ruff format -q .

.PHONY: lint
lint: install ## ruff: rules and formatting
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.PHONY: types
types: install ## mypy, strict
	$(BIN)/mypy

.PHONY: imports
imports: install ## import-linter: the architecture's contracts
	PYTHONPATH=operator:policies $(BIN)/lint-imports

.PHONY: generate
generate: install ## write the CRDs, their copy in the chart and the reference pages from the code
	$(RUN) scripts/generate.py --write

.PHONY: verify
verify: install ## fail when a generated file differs from what the code says
	$(RUN) scripts/generate.py --check

.PHONY: unit
unit: install ## unit tests alone: two minutes, no network, no cluster
	$(BIN)/pytest tests

.PHONY: unit-controller unit-others
unit-controller: install
	$(BIN)/pytest tests/controller
unit-others: install
	$(BIN)/pytest tests --ignore=tests/controller

.PHONY: e2e
e2e: install system cluster-build ## end-to-end tests on a real control plane
	@PYTHONPATH=operator:policies:. scripts/e2e.sh $(BIN)/pytest

.PHONY: test
test: system unit e2e ## all tests: unit and end-to-end

.PHONY: bench-control
bench-control: install ## the tables of the control laws on public data; DATA is the folder that holds it
	$(RUN) -m benchmarks.control --data $(DATA)

.PHONY: bench-capacity
bench-capacity: install ## modelled against tabulated power and step time, on rows left out
	$(RUN) -m benchmarks.capacity --data $(DATA)

.PHONY: bench-scheduler
bench-scheduler: install ## capability- and memory-aware split of requests against round robin, simulated
	$(RUN) -m benchmarks.scheduler

.PHONY: bench-plan
bench-plan: install ## how long a plan takes and how far it is from the best one
	$(RUN) -m benchmarks.plan_time

.PHONY: bench-placement
bench-placement: install ## replicas, placement and packing on a day and on recorded traces, against strong baselines
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.placement --data $(DATA)

.PHONY: presubmit
presubmit: system ## everything that a change must pass: the quick checks two at a time, then the end-to-end tests
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint types imports verify unit-controller unit-others
	@$(MAKE) --no-print-directory e2e



.PHONY: demo
demo: install system cluster-build ## the main job on a real control plane; MINUTES=3 for the short form
	$(RUN) -m e2e.demo --minutes $(MINUTES) --out demo-report

.PHONY: cluster-build
cluster-build: install system
	@$(RUN) -m e2e.cluster build

.PHONY: cluster-up
cluster-up: install system cluster-build ## start the control plane and leave it running
	$(RUN) -m e2e.cluster up

.PHONY: cluster-down
cluster-down: ## stop what cluster-up started
	$(RUN) -m e2e.cluster down

.PHONY: image
image: install ## build the container image where root and buildah are at hand, else say why not
	scripts/build_image.sh

.PHONY: clean
clean: ## remove what the targets made in this folder (not the caches of built programs)
	rm -rf $(VENV) dist build demo-report .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
