# `make demo` and `make test` set up what is missing: Debian packages (as root), then .venv,
# made from pyproject.toml when missing or older.  The demo needs none of the test tools.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
# One line per package while pip works.
SHOW := sed -un -e 's/^Collecting \([A-Za-z0-9._-]*\).*/  \1/p' -e 's/^Building \(wheel.*\) (.*started/  building \1/p'

.PHONY: demo test test-etcd differential leak-hunt lint man wheel packages demo-packages clean

demo: demo-packages $(if $(wildcard $(VENV)/ready),$(VENV)/ready,$(VENV)/ready-demo)
	@$(BIN)/wgpy demo

test: packages lint
	@echo "running the tests"
	@$(BIN)/pytest -n 2 --dist loadgroup

differential: packages
	WGPY_DIFFERENTIAL=20000 $(BIN)/pytest -q tests/text/test_against_wg_quick.py

# Packets by chance against whatever may happen to a node, and a search for their bytes.
leak-hunt: packages
	@$(BIN)/python -m tests.leaks --duration $(or $(DURATION),3600) $(if $(SEED),--seed $(SEED))

ROUNDS ?= 10
test-etcd: packages
	for round in $$(seq $(ROUNDS)); do echo "round $$round"; \
	    $(BIN)/pytest -q tests/strict/test_etcd_store.py tests/cluster/test_etcd_cluster.py; done

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

$(VENV)/ready-demo: pyproject.toml | demo-packages
	@echo "setting up $(VENV) with wgpy and the libraries it runs on (about 150 MB):"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --editable . | $(SHOW)
	@touch $@

$(VENV)/ready: pyproject.toml | demo-packages
	@echo "setting up $(VENV) with wgpy, all extras and the test tools (about 800 MB):"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --editable '.[test]' | $(SHOW)
	@touch $@

clean:
	rm -rf $(VENV) out build dist .cache
