# The two commands of the README: `make demo` and `make test`. They need Python >= 3.11, git and
# make, create .venv and install what is missing; a second call starts at once.

PYTHON  ?= python3
VENV    ?= .venv
TORCH   ?= torch==2.13.0
WORKERS ?= 2
OUT     ?= runs/demo
SEEDS   ?= 3

BIN     := $(VENV)/bin
RUNTIME := $(VENV)/runtime.stamp
TOOLS   := $(VENV)/tools.stamp
PYTEST  := $(BIN)/python -m pytest

# pip compiles one file after the other, which takes longer than the installation; this, all cores.
# A package may hold a file for another Python, which cannot be compiled and is never imported.
INSTALL := $(BIN)/python -m pip install -qq --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

# Tests and the demo run one process a core, so a process gets one thread.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
ifneq ($(wildcard ../shared/data),)
export CM2_DATA_HOME ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs fast slow install clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(RUNTIME) ## train and evaluate on real data, write runs/demo/report.html (4 minutes)
	$(BIN)/cm2 demo --out $(OUT) --seeds $(SEEDS)

test: $(TOOLS) ## everything CI runs: format, lint, types, layers, docs, tests
	$(MAKE) -j 2 check docs
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow"

check: $(TOOLS) ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TOOLS) ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(TOOLS) ## build the site in docs/_build/html, running its examples
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@! grep -rlF --include='*.html' '&lt;Figure size' docs/_build/html || \
	  { echo "these pages have the name of a figure in its place"; exit 1; }

fast: $(TOOLS) ## the quick tests only, stop at the first failure
	$(PYTEST) -n $(WORKERS) --dist worksteal -x -m "not slow"

slow: $(TOOLS) ## the slow tests only
	$(PYTEST) -n $(WORKERS) --dist worksteal -m slow

install: $(TOOLS) ## a working checkout in .venv, nothing run

clean: ## remove .venv, caches and built docs
	rm -rf $(VENV) docs/_build docs/generated docs/api/generated .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cm2 needs Python 3.11 or later, this is " + sys.version.split()[0] + "; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'

# torch first and alone: what follows then takes the build that is there.
$(RUNTIME): pyproject.toml | $(BIN)/python
	$(INSTALL) '$(TORCH)'
	$(INSTALL) --editable '.[all]'
	@$(COMPILE)
	@touch $@

$(TOOLS): pyproject.toml $(RUNTIME)
	$(INSTALL) --group test --group check --group docs
	@$(COMPILE)
	@touch $@
