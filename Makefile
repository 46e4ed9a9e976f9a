# `make demo` and `make test` set themselves up; everything lives in .venv.
VENV   ?= .venv
PYTHON ?= python3
JOBS   ?= auto
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check lint format types clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,all]'
	touch $@

demo: $(STAMP)  ## compare skmoe with kernels and trees: a table and plots in results/demo
	$(BIN)/python -m benchmarks.compare --profile demo --output results/demo

test: $(STAMP)  ## all tests and doctests, in parallel; warnings are errors
	SCIPY_ARRAY_API=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: format lint types test  ## what to run before a commit (the floors test is among the tests)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
