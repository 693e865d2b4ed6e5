# `make demo` and `make test` set up what is missing: Debian packages (as root), then
# .venv, made from pyproject.toml when missing or older.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint man wheel packages demo-packages clean

demo: demo-packages $(VENV)/ready
	@$(BIN)/wgpy demo

test: packages lint
	@echo "running the tests"
	@$(BIN)/pytest -n 2 --dist loadgroup

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One page for each command, from its --help.
man: $(VENV)/ready
	@$(BIN)/python -P install/man_pages.py build/man

# To be installed elsewhere: dist/*.whl, man pages and systemd unit included.
wheel: man
	@$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist

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
	rm -rf $(VENV) out build dist .cache
