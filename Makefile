# Every command sets up what it needs. The ones that must always work on a fresh machine:
#   make demo · make test · make check · make fuzz · make bench · make image
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVERS := .venv-servers
SSLYZE := .venv-sslyze
BENCH := .venv-bench
LITELLM := .venv-litellm
SOURCES := proxy tests benchmarks .ci
PYTEST_WORKERS ?= 2

help: ## show the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The real model servers of the tests, apart from our own environment: their pins are theirs.
$(SERVERS)/.ready: requirements/servers.txt
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip install --quiet --require-hashes --requirement requirements/servers.txt
	touch $@

# What scans our TLS in the tests, apart for the same reason.
$(SSLYZE)/.ready: requirements/sslyze.txt
	$(PYTHON) -m venv $(SSLYZE)
	$(SSLYZE)/bin/python -m pip install --quiet --require-hashes --requirement requirements/sslyze.txt
	touch $@

# A certified OpenID provider for the tests; without npm they skip with their reason (in CI they fail).
IDP := tests/idp/node_modules/.package-lock.json
$(IDP): tests/idp/package-lock.json
	command -v npm > /dev/null && npm ci --prefix tests/idp --silent || echo "no npm: the OpenID provider's tests will skip"

setup: $(VENV)/.ready ## install the locked environment into .venv

demo: $(VENV)/.ready ## set everything up and walk through the main job
	$(BIN)/hip demo $(DEMO)

test: $(VENV)/.ready $(SERVERS)/.ready $(SSLYZE)/.ready $(IDP) ## all tests, real model servers and real Valkey included
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile -m "not slow" --ignore tests/images $(TESTS)

check: $(VENV)/.ready ## format, lint, types, import contracts, security lint, dependency audit
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive proxy --configfile pyproject.toml
	$(BIN)/python .ci/audit_dependencies.py requirements/core.txt || { \
	  test $$? -eq 3 && echo "dependency audit: NOT DONE (no advisory service within reach); make audit insists on it"; }

audit: $(VENV)/.ready ## the dependency audit alone; fails when it could look nothing up
	$(BIN)/python .ci/audit_dependencies.py requirements/core.txt

format: $(VENV)/.ready ## format and mend what can be mended
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

fuzz: $(VENV)/.ready $(SERVERS)/.ready $(IDP) ## the long forms: fuzzing, mutations, kill -9
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile -m slow $(TESTS)

$(BENCH)/.ready: requirements/bench.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --require-hashes --requirement requirements/bench.txt
	touch $@

$(LITELLM)/.ready: requirements/litellm.txt
	$(PYTHON) -m venv $(LITELLM)
	$(LITELLM)/bin/python -m pip install --quiet --require-hashes --requirement requirements/litellm.txt
	touch $@

# nginx and wrk are Debian's: apt-get install nginx-light wrk
bench: $(VENV)/.ready $(BENCH)/.ready $(LITELLM)/.ready ## measure beside the peers, write docs/performance.md
	$(BIN)/python -m benchmarks.bench $(if $(ONLY),--only "$(ONLY)",--write)

bench-quick: $(VENV)/.ready $(BENCH)/.ready $(LITELLM)/.ready ## the same in two minutes
	$(BIN)/python -m benchmarks.bench --quick

bench-transports: $(BENCH)/.ready ## the HTTP clients that could stand behind us
	$(BENCH)/bin/python benchmarks/transports.py

image: $(VENV)/.ready ## build the container image; says which Debian packages are missing
	$(BIN)/python .ci/image.py

image-test: $(VENV)/.ready ## build the image twice, compare, and run it with everything dropped
	HIP_IMAGE_TESTS=1 $(BIN)/python -m pytest tests/images

cluster: image ## the sample cluster (two replicas, two models, Valkey, a receiver) on this machine; needs root
	$(BIN)/python .ci/cluster up

cluster-down: $(VENV)/.ready ## take the sample cluster away
	$(BIN)/python .ci/cluster down

sbom: $(VENV)/.ready ## write the bill of materials (CycloneDX) into dist/
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.cdx.json requirements/core.txt

bench-defence: $(VENV)/.ready ## what a policy does to an attacker; writes the table of docs/defence.md
	$(BIN)/python benchmarks/defence.py

soak: $(VENV)/.ready ## ten minutes at 80 % with faults; SOAK="--seconds 60" for less
	$(BIN)/python -m benchmarks.soak $(SOAK)

lock: $(VENV)/.ready ## renew the locked requirements
	$(BIN)/uv pip compile pyproject.toml --extra redis $(LOCK) -o requirements/core.txt
	$(BIN)/uv pip compile pyproject.toml --extra redis --extra audit --group dev $(LOCK) -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/build.in $(LOCK) -o requirements/build.txt
	$(BIN)/uv pip compile requirements/bench.in $(LOCK) -o requirements/bench.txt
	$(BIN)/uv pip compile requirements/litellm.in $(LOCK) -o requirements/litellm.txt
	$(BIN)/uv pip compile requirements/servers.in $(LOCK) -o requirements/servers.txt
	$(BIN)/uv pip compile requirements/sslyze.in $(LOCK) -o requirements/sslyze.txt
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet

clean: ## remove what make made
	rm -rf $(VENV) $(SERVERS) $(SSLYZE) $(BENCH) $(LITELLM) tests/idp/node_modules .cache build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help setup demo test check audit format fuzz bench bench-quick bench-transports bench-defence soak image image-test cluster cluster-down sbom lock clean
