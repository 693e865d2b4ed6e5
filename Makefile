# `make demo` and `make test` set up what is missing: Debian packages (as root), then
# .venv, made from pyproject.toml when missing or older.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test differential lint packages demo-packages clean

demo: demo-packages $(VENV)/ready
	@$(BIN)/wgpy demo

test: packages lint
	@echo "running the tests"
	@$(BIN)/pytest -n 2 --dist loadgroup

differential: packages
	WGPY_DIFFERENTIAL=20000 $(BIN)/pytest -q tests/text/test_against_wg_quick.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

packages:
	@bash .ci/install-packages packages

demo-packages:
	@bash .ci/install-packages demo-packages

$(VENV)/ready: pyproject.toml | demo-packages
	@echo "setting up $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) out .cache
