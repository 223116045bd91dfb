# `make` lists what there is to make. Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= $(shell command -v python3.11 || echo python3)
# tests of a file stay together, for they share what is trained once
PARALLEL ?= -n auto --maxprocesses 8 --dist loadfile
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH_VERSION := 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# on Linux the package index's torch brings gigabytes of CUDA: a machine without a GPU takes the CPU build
HAS_GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)

.DEFAULT_GOAL := help
.PHONY: help setup train test test-long test-slow test-gpu test-cluster lint types check clean

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make the environment in .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
ifeq ($(shell uname)$(HAS_GPU),Linux)
	$(BIN)/pip install -q torch==$(TORCH_VERSION)+cpu \
	  || $(BIN)/pip install -q --extra-index-url $(TORCH_CPU_INDEX) torch==$(TORCH_VERSION)+cpu
else
	$(BIN)/pip install -q torch==$(TORCH_VERSION)
endif
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $(READY)

train: $(READY)  ## train the default: adapters on all-MiniLM-L6-v2, paraphrase detection
	$(BIN)/peftbench train method=adapter $(ARGS)

test: $(READY)  ## the tests that run within minutes
	$(BIN)/pytest -q $(PARALLEL) --durations 25 $(ARGS)

test-long: $(READY)  ## those that start processes or train several runs: sweeps, searches, interruptions
	$(BIN)/pytest -q -m long $(PARALLEL) --durations 25 $(ARGS)

test-slow: $(READY)  ## those that take minutes each, or download
	$(BIN)/pytest -q -m slow $(ARGS)

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/pytest -q -m gpu $(ARGS)

test-cluster: $(READY)  ## the tests that start a real Slurm and Ray here (extras slurm, ray)
	$(BIN)/pytest -q -m cluster $(ARGS)

lint: $(READY)  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## types of the package
	$(BIN)/mypy

check: lint types test test-long  ## what CI runs, in its order

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
