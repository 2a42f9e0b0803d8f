# Two commands on a fresh machine: `make course`, `make test`. Both make .venv where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
SHELL := /bin/bash
# Threads that wait spin only briefly: for long, they stop one another on a busy machine; not at all,
# they take twice as long over a small step on a quiet one.
export GOMP_SPINCOUNT ?= 20000

.DEFAULT_GOAL := help
.PHONY: help setup course test elsewhere lab site notebooks bench growth bench-gpu lock clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make .venv from requirements.lock; nothing when it is fresh

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

course: setup  ## run the quick experiments on the built-in shapes, and report them
	$(BIN)/serp run quick

test: setup  ## lint, unit tests, and strict nbval over every notebook
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow" tests \
	  --nbval $(NOTEBOOKS) --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 240

NBVAL := -m pytest --nbval $(NOTEBOOKS) --nbval-sanitize-with tests/nbval_sanitize.cfg
NBVAL += --nbval-cell-timeout 240 -q

elsewhere: setup  ## the notebooks once more, as two other processors would run them
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 SERP_FAST=0 \
	  $(BIN)/python $(NBVAL)
	OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python $(NBVAL)

lab: setup  ## open JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/00_welcome.ipynb

site: setup  ## the course as pages to read, in notebooks/site/_build/html; nothing is executed
	rm -rf notebooks/site/_build
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going notebooks/site notebooks/site/_build/html
	@echo "open notebooks/site/_build/html/index.html"

notebooks: setup  ## execute the committed notebooks again, and clean them
	env -u SERP_DATA $(BIN)/jupyter nbconvert --to notebook --execute --inplace $(NOTEBOOKS)
	$(BIN)/python tests/clean_notebooks.py $(NOTEBOOKS)

bench: setup  ## time each operation beside its peers; alone on the machine, minutes
	$(BIN)/python tests/benchmarks/bench.py

growth: setup  ## time and memory against sizes, fitted; alone on the machine, minutes
	$(BIN)/python tests/benchmarks/growth.py

bench-gpu: setup  ## check and time the GPU kernels and whole training steps; under 8 minutes
	$(BIN)/python tests/benchmarks/gpu.py

lock: setup  ## renew requirements.lock after a change of pyproject.toml
	$(BIN)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --extra fast --extra course --extra test --extra site \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements.lock pyproject.toml
	sed -i.bak -E 's/^(torch==[0-9.]+)\+.*/\1/' requirements.lock && rm requirements.lock.bak

clean:  ## remove .venv, runs/, the site and caches
	rm -rf $(VENV) runs .ruff_cache .pytest_cache .hypothesis *.egg-info
	rm -rf notebooks/site/_build notebooks/site/api notebooks/site/notebooks
	find . -name __pycache__ -prune -exec rm -rf {} +
