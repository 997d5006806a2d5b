# Everything runs in .venv, made on first use. PYTHON names another interpreter (>= 3.11).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test compiled test-compiled chaos trace verify check bench bench-tracing schemas format clean

help: ## these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.runtime ## the environment, in .venv

demo: $(VENV)/.runtime ## five agents decide 1,000 real applications as sagas (ARGS='--count 200 --faults none')
	@$(BIN)/pavane demo $(ARGS)

test: $(VENV)/.dev ## everything the tests need, then all tests (ARGS='-k engine')
	$(BIN)/python -m pytest $(ARGS)

compiled: build/compiled/.made ## the hot modules as C, in build/compiled, which PYTHONPATH puts first (needs a C compiler)

test-compiled: build/compiled/.made ## tests of the compiled modules (ARGS='tests/unit')
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.dev ## processes and brokers killed for a quarter of an hour, with the story as it goes (ARGS='-k copy'); `make test` has a short form
	PAVANE_CHAOS=long $(BIN)/python -m pytest tests/chaos -s $(ARGS)

trace: $(VENV)/.dev ## a thousand sagas in a real Jaeger, each one whole trace; with kill -9, too (needs Docker, or Go and Java)
	PAVANE_REQUIRE=jaeger $(BIN)/python -m pytest tests/integration/test_jaeger.py tests/integration/test_jaeger_kills.py $(ARGS)

verify: build/compiled/.made ## a million histories of the credit decision, every two faults among them (ARGS='--histories 10000')
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/pavane verify pavane_credit.verification:credit --exhaustive --histories 1000000 $(ARGS)

check: $(VENV)/.dev ## formatting, lint, both type checkers, import contracts, contracts and declarations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests bench
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pavane check pavane_credit.choreography:AGENTS pavane_credit.clerk:agent pavane_credit.choreography:SAGAS --schemas events/schemas
	$(BIN)/pavane check examples.trip:AGENTS examples.trip:trip
	$(BIN)/pavane check examples.checkout:AGENTS examples.checkout:checkout

bench: build/compiled/.made ## speed on SQLite and on a real Kafka, beside bare loops (ARGS='--quick --only throughput')
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python -m bench.both $(ARGS)

bench-tracing: build/compiled/.made ## what tracing costs on a real Kafka: off, unsampled, lean, the stock SDK (ARGS='--quick')
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python -m bench.kafka_run --only tracing --only tax $(ARGS)

schemas: $(VENV)/.runtime ## write events/schemas from the event classes
	$(BIN)/pavane check pavane_credit.choreography:AGENTS pavane_credit.clerk:agent pavane_credit.choreography:SAGAS --schemas events/schemas --write

format: $(VENV)/.dev ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build/compiled/.made: $(VENV)/.dev hatch_build.py pyproject.toml $(shell find events tracing saga agent services stubs -name '*.py*' -not -name '*.pyc')
	@echo "compiling the hot modules, a minute or two ..."
	@rm -rf build/compiled
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/compiled .
	@touch $@

clean: ## the environment and all caches away
	rm -rf build $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pavane needs Python 3.11 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this Python lacks venv: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	@echo "installing pavane into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[kafka]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.runtime
	@echo "installing what tests and checks need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
