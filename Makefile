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

# A certified OpenID provider for the tests; without npm they skip with their reason (in CI they fail).
IDP := tests/idp/node_modules/.package-lock.json
$(IDP): tests/idp/package-lock.json
	command -v npm > /dev/null && npm ci --prefix tests/idp --silent || echo "no npm: the OpenID provider's tests will skip"

setup: $(VENV)/.ready ## install the locked environment into .venv

demo: $(VENV)/.ready ## set everything up and walk through the main job
	$(BIN)/hip demo $(DEMO)

test: $(VENV)/.ready $(SERVERS)/.ready $(IDP) ## all tests, real model servers and real Valkey included
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile -m "not slow" $(TESTS)

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

lock: $(VENV)/.ready ## renew the locked requirements
	$(BIN)/uv pip compile pyproject.toml --extra redis $(LOCK) -o requirements/core.txt
	$(BIN)/uv pip compile pyproject.toml --extra redis --group dev $(LOCK) -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/servers.in $(LOCK) -o requirements/servers.txt
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet

clean: ## remove what make made
	rm -rf $(VENV) $(SERVERS) tests/idp/node_modules .cache build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help setup demo test check audit format fuzz lock clean
