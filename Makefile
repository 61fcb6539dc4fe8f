# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`. Both need only Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test slow-test lint clean

quickstart: $(VENV)/.made
	$(BIN)/mixmerge recipe recipes/quickstart.yaml

test: $(VENV)/.made lint
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

slow-test: $(VENV)/.made
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal -m "slow or not slow"

lint: $(VENV)/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Made when it is missing, and again when what it is made from has changed.
$(VENV)/.made: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	  "error: mixmerge needs Python 3.11 or later, and %s is %d.%d\n  hint: make PYTHON=python3.12 ..." % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# What was run stays: it lies in runs/, and the converted base model in ~/.cache/mixmerge (or $MIXMERGE_CACHE).
clean:
	rm -rf $(VENV) build dist *.egg-info
