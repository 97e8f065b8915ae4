# `make demo` runs the main job on a fresh machine, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup setup-dev demo results test slow lint clean

setup: $(VENV)/installed
setup-dev: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-peers.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement requirements-peers.txt
	touch $@

demo: setup
	$(BIN)/taskpress demo -o demo

# Figures and tables of docs/ from the stored results, the fields of presets from their classes; nothing is trained or measured.
results: setup
	$(BIN)/python docs/redraw.py
	$(BIN)/python docs/preset_page.py

test: setup-dev
	$(BIN)/python -m pytest

slow: setup-dev
	$(BIN)/python -m pytest -m slow

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo
