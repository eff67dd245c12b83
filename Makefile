# `make` lists the targets. Needs Python 3.11 or newer, GNU make and bash; everything else goes into .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each target is one road: two of them at once would meet in .venv.
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

export PYTHON ?= python3
BIN := .venv/bin
# What `make demo` is told besides, such as ARGS="--seed 7".
ARGS ?=
# What pytest is told besides, such as TESTS="-k spool".
TESTS ?=
# Files of tests run side by side, since they wait for servers more than they compute. One by one: JOBS=
JOBS ?= -n 3 --dist loadfile

.PHONY: help .venv demo test test-tree test-wheel test-servers check lint format bench eval eval-detect scale docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.run ## a simulated marketplace goes wrong, and is stopped; ARGS="--seed 7"
	@$(BIN)/mailvane demo $(ARGS)

test: test-tree test-wheel ## every test, against the tree and against the installed wheel

check: lint test ## what CI runs: format, lint, types, floors, tests

lint: .venv/.dev ## formatting, ruff, mypy --strict, import-linter
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/.dev ## let ruff format and mend what it can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

test-tree: .venv/.dev test-servers
	@MAILVANE_CHECKOUT="$(CURDIR)" $(BIN)/python -m pytest $(JOBS) $(TESTS)

test-wheel: .venv/.dev
	@deploy/test-wheel.sh $(JOBS) $(TESTS)

test-servers:
	@deploy/test-servers.sh

bench: .venv/.dev ## every benchmark, or one: NAME=sendlog; QUICK=1 keeps each under 45 s
	@$(BIN)/python -m benchmarks bench $(NAME)

eval: .venv/.dev ## the parsers over a corpus: CORPUS=DIR
	@$(BIN)/python -m benchmarks eval $(NAME)

eval-detect: .venv/.dev ## the detectors over planted incidents: SEEDS=1,2 GENERATOR=module:function
	@$(BIN)/python -m benchmarks eval_detect $(NAME)

scale: .venv/.dev test-servers ## tests at full size; those of one order: ORDER=1
	@MAILVANE_CHECKOUT="$(CURDIR)" MAILVANE_SCALE=full $(BIN)/python -m pytest \
	  -m "$(if $(ORDER),scale(order=$(ORDER)),scale)" $(TESTS)

docs: .venv/.dev ## put the settings of each plugin into its page
	@$(BIN)/python docs/_settings.py

lock: .venv/.dev ## resolve the dependencies anew into both lock files
	@deploy/lock.sh

.venv: .venv/.dev ## the environment for development

clean: ## remove what these targets made
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: requirements.lock pyproject.toml deploy/venv.sh
	@deploy/venv.sh run

.venv/.dev: requirements-dev.lock pyproject.toml deploy/venv.sh
	@deploy/venv.sh dev
