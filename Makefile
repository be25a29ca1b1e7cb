# The two commands of the README are `make demo` and `make test`; each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-full check quick coverage fresh lint bench lock clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"hlbt needs Python 3.11 or newer, but $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# A stamp is younger than the lock it was made from, so a changed lock installs again and an unchanged one costs nothing.
$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing what running needs into $(VENV) (a few minutes the first time) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "Installing what testing needs into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.run ## build .venv with hlbt in it
setup-dev: $(VENV)/.dev ## the same with the test and lint tools

demo: setup ## run the main job on the built-in synthetic sample
	$(BIN)/hlbt demo

# A worker that is done takes over what another has still to do. How many there are: tests/conftest.py.
TESTS := $(BIN)/python -m pytest -n auto --dist worksteal

test: setup-dev ## run the tests
	$(TESTS)

test-full: setup-dev ## the same with every seed and every kill point
	$(TESTS) --full

check: setup-dev ## ruff, mypy and the quick tests, for every commit
	@$(MAKE) --no-print-directory --jobs=2 lint quick

quick: setup-dev
	$(TESTS) --quick

# Not part of `make test`: tracing makes the suite a third slower.
coverage: setup-dev ## run the tests and print how much of the Python code they run
	$(TESTS) --cov --cov-report=term:skip-covered

fresh: ## clone into an empty folder with an empty home; make demo and make test there
	tests/fresh_machine.sh

lint: setup-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup-dev ## measure the figures and print them as a table
	$(BIN)/python tests/bench.py

lock: ## resolve the two lock files again (needs uv on the PATH)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q --all-extras -c requirements.lock -o requirements-dev.lock

clean: ## delete the environment and every cache of a tool; data and reports stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
