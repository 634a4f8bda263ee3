# One command each. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := $(wildcard packages/*)
EDITABLE := $(foreach package,$(PACKAGES),-e $(package))
SOURCES := packages tests bench tools examples
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
BUILTIN_MODEL := smollm2-135m-instruct

.PHONY: help setup serve check test test-system test-all bench lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## make .venv with every package, and put the built-in model in the store
	@$(BIN)/exo pull $(BUILTIN_MODEL)

serve: setup ## start the node on http://127.0.0.1:52415
	@$(BIN)/exo

check: $(VENV)/.tools ## lint, types, fast tests; under a minute
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 -m "not slow and not system"

test: $(VENV)/.tools setup ## every test that needs python3 and gcc only
	$(BIN)/pytest -m "not system"

test-system: $(VENV)/.tools setup ## the tests that need root, Debian packages or npm; installs those
	tools/install-system-packages
	$(BIN)/pytest -m system

test-all: ## the unit tests on every Python from 3.10 to 3.13 that is installed
	tools/test-all-pythons

bench: $(VENV)/.tools setup ## measure; tables on the terminal, JSON in bench/results
	@for script in gateway llamacpp npu rkllama footprint routing; do $(BIN)/python bench/$$script.py || exit 1; done

lock: ## write constraints.txt anew, with the newest versions
	tools/lock

clean: ## remove what the other commands made here
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: constraints.txt $(foreach package,$(PACKAGES),$(package)/pyproject.toml)
	@$(PYTHON) tools/check_python.py
	@$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) $(EDITABLE)
	@touch $@

$(VENV)/.tools: $(VENV)/.installed requirements-dev.txt
	@$(PIP) --requirement requirements-dev.txt
	@touch $@
