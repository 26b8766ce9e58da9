# `make` or `make help` lists the targets. Everything is installed into .venv, and only when something changed.
#
# Variables:
#   PYTHON=python3     interpreter that makes the environment, 3.11 or newer
#   TORCH=cpu|cuda     which constraints file; another value than last time makes the environment anew
#   TORCH_INDEX=URL    further package index for torch. On Linux PyPI only has the CUDA build (large; it runs on a CPU
#                      as well); https://download.pytorch.org/whl/cpu has the small CPU build
#   ARGS=...           passed on to pytest or to the demo
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) are honoured.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types unit slow bench wheel clean distclean

PYTHON ?= python3
TORCH ?= cpu
TORCH_INDEX ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

CONSTRAINTS := constraints/$(TORCH).txt
ifeq ($(wildcard $(CONSTRAINTS)),)
$(error TORCH=$(TORCH): there is no $(CONSTRAINTS); use TORCH=cpu or TORCH=cuda)
endif
INSTALL := $(PIP) --constraint $(CONSTRAINTS) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
INPUTS := pyproject.toml constraints/cpu.txt $(CONSTRAINTS)
RUNTIME := $(VENV)/.installed-$(TORCH)
DEV := $(VENV)/.installed-$(TORCH)-dev
# an environment of the other kind is not mended but made anew
OTHER := $(filter-out $(RUNTIME) $(DEV),$(wildcard $(VENV)/.installed-*))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(RUNTIME) ## generate a small corpus, then fit, test and examine MFM on it (ARGS="--output DIR")
	$(BIN)/mfm demo $(ARGS)

test: lint types unit ## lint, types and all fast tests

lint: $(DEV) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## mypy --strict on src
	$(BIN)/mypy

# small tensors are fastest on one thread, and results do not depend on the number of cores
unit slow: export OMP_NUM_THREADS = 1

unit: $(DEV) ## fast tests only (ARGS="-k name -x"); with MFM_DATA=DIR also those on published files
	$(BIN)/pytest $(ARGS)

slow: $(DEV) ## the tests marked slow
	$(BIN)/pytest -m slow $(ARGS)

bench: export OMP_NUM_THREADS = 1

bench: $(DEV) ## compare speed with the committed ratios, on a machine that does nothing else
	$(BIN)/python benchmarks/speed.py --dims 768/5/20 --batch 32 --repeats 9 --against benchmarks/results/speed.json

wheel: $(DEV) ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean: ## remove what building and testing left behind; keeps .venv and runs
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove .venv
	rm -rf $(VENV)

$(RUNTIME): $(INPUTS)
	$(PYTHON) -m venv $(if $(OTHER),--clear) $(VENV)
	$(INSTALL) --editable .
	touch $@

$(DEV): $(RUNTIME) $(INPUTS)
	$(INSTALL) --editable '.[dev]'
	touch $@
