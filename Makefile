# Each target sets up .venv first where it is missing or older than the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
NBVAL := -p tests.notebook_tolerance --nbval $(NOTEBOOKS)
NBVAL += --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 480
# The tests of one file stay in one process, in their order; files run side by side. Three processes
# for two cores: those of the browser and of killed processes wait more than they compute.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
SHELL := /bin/bash
# OpenMP threads that wait spin only briefly: long spinning slows other processes of a busy machine,
# no spinning doubles the time of a small step on an idle one.
export GOMP_SPINCOUNT ?= 20000

.DEFAULT_GOAL := help
.PHONY: help setup course lab site results bench growth bench-gpu lint test test-notebooks elsewhere notebooks lock clean

help:  ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Course

setup: $(READY)  ## create .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

course: setup  ## restore shapes and learn from few labels on built-in shapes, and report it
	$(BIN)/serp run course

lab: setup  ## open JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/00_welcome.ipynb

site: setup  ## build the static pages in notebooks/site/_build/html; executes no notebook
	rm -rf notebooks/site/_build
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going notebooks/site notebooks/site/_build/html
	@echo "open notebooks/site/_build/html/index.html"

##@ Experiments (serp run list shows the suites)

results: setup  ## write the results page and the leaderboard from the committed records
	$(BIN)/python -m serplib.experiments.report

bench: setup  ## time operations and training steps beside their peers; needs an idle machine
	$(BIN)/python tests/benchmarks/bench.py

growth: setup  ## fit time and memory against sizes; needs an idle machine
	$(BIN)/python tests/benchmarks/growth.py

bench-gpu: setup  ## check and time the GPU kernels and training steps; under 8 minutes
	$(BIN)/python tests/benchmarks/gpu.py

##@ Development

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread each: the two workers share the cores, and `elsewhere` tries other counts.
test: export OMP_NUM_THREADS ?= 1
test: lint  ## lint, unit tests, and every notebook executed and compared
	$(PYTEST) -m "not slow" tests $(NBVAL)

test-notebooks: setup  ## execute every notebook and compare its outputs
	$(PYTEST) -q $(NBVAL)

elsewhere: WORKERS = 2
elsewhere: setup  ## the same with the instructions and thread counts of other processors
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 SERP_FAST=0 \
	  $(PYTEST) -q $(NBVAL)
	OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
	  $(PYTEST) -q $(NBVAL)

notebooks: setup  ## execute the committed notebooks again and clean them
	env -u SERP_DATA $(BIN)/jupyter nbconvert --to notebook --execute --inplace $(NOTEBOOKS)
	$(BIN)/python tests/clean_notebooks.py $(NOTEBOOKS)

lock: setup  ## renew requirements.lock after a change of pyproject.toml
	$(BIN)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --extra fast --extra course --extra test --extra site \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements.lock pyproject.toml
	sed -i.bak -E 's/^(torch==[0-9.]+)\+.*/\1/' requirements.lock && rm requirements.lock.bak
	@echo "now ask whether every package has its wheels: $(BIN)/python tests/check_wheels.py"

clean:  ## remove .venv, runs/, the pages and caches
	rm -rf $(VENV) runs .ruff_cache .mypy_cache .pytest_cache .hypothesis *.egg-info
	rm -rf notebooks/site/_build notebooks/site/api notebooks/site/notebooks notebooks/site/results.md
	find . -name __pycache__ -prune -exec rm -rf {} +
