# The two commands of the README are `make demo` and `make test`; each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What pip and uv print goes here, and its end is shown when something fails.
LOG := .install.log

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-full check quick coverage fresh lint docs reference images bench calibrate lock clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

PIP := $(BIN)/python -m pip --disable-pip-version-check
# The system's certificates: behind a company's proxy, the ones that come with uv know nobody.
UV := $(BIN)/uv --no-progress --color never --system-certs
# A lock names every package, so nothing is left to decide. A resolver would still look: an extra of a locked package
# makes it ask for the newest release, which the lock does not have. --no-deps keeps it out, and `pip check` then says
# whether the whole is consistent.
LOCKED := --no-deps --require-hashes --only-binary :all: --requirement
FAILED = { tail -n 15 $(LOG) >&2; echo "make $@ failed. All that was printed is in $(LOG)." >&2; exit 1; }
# $(call install,FILE): a lock file by uv, which takes seconds; where it cannot be had or fails, pip does the same.
define install
@{ $(BIN)/uv --version && $(UV) pip install --compile-bytecode --python $(BIN)/python $(LOCKED) $(1); } >>$(LOG) 2>&1 || \
	$(PIP) install $(LOCKED) $(1) >>$(LOG) 2>&1 || $(FAILED)
@$(PIP) check >>$(LOG) 2>&1 || $(FAILED)
endef

# A stamp is younger than the files it was made from: a changed lock installs again, an unchanged one costs nothing.
$(VENV)/.base: requirements-uv.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here. Name a Python from 3.11 to 3.14: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 15) else f"hlbt needs Python 3.11 to 3.14, but $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv --clear $(VENV) >$(LOG) 2>&1 || $(FAILED)
	@$(PIP) install $(LOCKED) requirements-uv.lock >>$(LOG) 2>&1 || echo "no uv for this machine: pip installs" >>$(LOG)
	@touch $@

# A Python that is named on the command line or in the environment builds it again where it is of another release.
ifneq ($(origin PYTHON),file)
RELEASE = $(shell $(1) -c 'import sys; print(*sys.version_info[:3])' 2>/dev/null)
ifneq ($(call RELEASE,$(PYTHON)),$(call RELEASE,$(BIN)/python))
.PHONY: $(VENV)/.base
endif
endif

$(VENV)/.run: requirements.lock pyproject.toml $(VENV)/.base
	@echo "Installing what running needs into $(VENV) (half a minute with uv, a few with pip) ..."
	$(call install,requirements.lock)
	@$(PIP) install --no-deps --no-build-isolation --editable . >>$(LOG) 2>&1 || $(FAILED)
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "Installing what testing needs into $(VENV) ..."
	$(call install,requirements-dev.lock)
	@$(PIP) download $(LOCKED) tests/oldest-pip.lock --dest $(VENV)/oldest-pip >>$(LOG) 2>&1 || echo "no oldest pip: its tests are skipped" >>$(LOG)
	@touch $@

# Machine code is this machine's: it is compiled behind the back of whoever reads on, unless something runs at once.
# Byte code is written here: where Python is told to write none, each command would translate our files again.
setup: $(VENV)/.run ## build .venv with hlbt in it
	@$(BIN)/python -m compileall -q engine research >>$(LOG) 2>&1 || true
	@[ "$(MAKECMDGOALS)" != setup ] || { $(BIN)/python -m engine.simulation.warm_up >>$(LOG) 2>&1 & }
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

docs: setup-dev ## build the manual into site/ (strict); site/index.html opens from the disk, without the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html"

reference: setup-dev ## write docs/reference/ again, from the code
	$(BIN)/python docs/scripts/reference.py

images: setup-dev ## make the screenshots of the manual and the README again, from the demo (needs chromium)
	$(BIN)/python docs/scripts/images.py

bench: setup-dev ## measure the figures and print them as a table
	$(BIN)/python tests/benchmarks/bench.py

calibrate: setup-dev ## how often the verdict errs, on noise and on planted edges (an hour; resumes)
	$(BIN)/python tests/benchmarks/calibrate.py

COMPILE = uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet
lock: ## resolve the lock files again (needs uv on the PATH)
	$(COMPILE) pyproject.toml --group build --output-file requirements.lock
	$(COMPILE) pyproject.toml --group build --all-extras --constraints requirements.lock --output-file requirements-dev.lock
	echo uv | $(COMPILE) - --output-file requirements-uv.lock

clean: ## delete the environment, the built manual and every cache of a tool; data and reports stay
	rm -rf $(VENV) $(LOG) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage site
