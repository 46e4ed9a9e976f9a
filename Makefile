# `make demo` and `make test` set themselves up; everything lives in .venv.
VENV   ?= .venv
PYTHON ?= python3
JOBS   ?= auto
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS   := $(VENV)/.installed-docs
SITE   := docs/_build/html

.PHONY: demo test check lint format types docs docs-test wheel clean

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

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(DOCS)  ## the documentation site, in docs/_build/html; examples are run, warnings are errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs $(SITE)

docs-test: docs  ## the site in a browser: navigation, search, links, pictures; needs Chromium
	$(BIN)/python -m pytest -m browser tests/docs

wheel: $(STAMP)  ## build sdist and wheel, install the wheel in a fresh environment, and use it
	rm -rf dist build
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build
	rm -rf build/venv && $(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[plot]"
	cd build && venv/bin/python -W error ../tests/wheel_smoke.py

check: format lint types test  ## what to run before a commit (the floors test is among the tests)

clean:
	rm -rf $(VENV) build dist docs/_build docs/gallery docs/api/generated *.egg-info .pytest_cache .ruff_cache .mypy_cache
