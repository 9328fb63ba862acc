# `make` alone lists what there is. Every target sets up .venv first; that takes a moment once it is done.

# Empty: any .venv that works is kept, and one that is missing is made with python3.
PYTHON ?=
# cpu: PyTorch without CUDA.
TORCH ?=
JOBS ?= 2
VENV_PYTHON := .venv/bin/python
# The code of this checkout, also where .venv is a link to the environment of another.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
# One thread a test process: with more, the processes fight over the cores. The commands that tests start find compiled
# modules. PASSIVE, for the demo: threads that wait give their core away, many times faster where something else runs too.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint typecheck docs format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 chooses the interpreter (a .venv of another one is replaced), TORCH=cpu a PyTorch"
	@echo "  without CUDA, JOBS=4 the number of test processes"

setup:  ## make .venv with PyTorch, detectron2 and the tools
	@$(or $(PYTHON),python3) .ci/setup_env.py $(if $(PYTHON),--this-python) $(if $(TORCH),--torch $(TORCH))

demo: setup  ## make the embedded dataset, train, evaluate, leave images
	OMP_WAIT_POLICY=PASSIVE $(VENV_PYTHON) projects/panoptic_fpn/run_demo.py

test: setup lint typecheck  ## lint, type-check and run every test
	$(PYTEST) --durations 10 --durations-min 5

test-fast: setup  ## run the tests that are not marked slow
	$(PYTEST) -m "not slow"

lint: setup  ## check style and formatting
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check

typecheck: setup  ## check types
	$(VENV_PYTHON) -m mypy

docs: setup  ## build the documentation site into output/site
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV_PYTHON) -m mkdocs build --strict --quiet
	@echo "The site is in output/site: open output/site/index.html"

format: setup  ## format, and mend what ruff can mend
	$(VENV_PYTHON) -m ruff check --fix
	$(VENV_PYTHON) -m ruff format

clean:  ## remove build outputs and caches (to start over, remove .venv too)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
