# `make run` trains, `make test` proves, `make check` reads. Each sets up .venv first; the second time that is quick.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: setup run test test-reliability check benchmark clean

setup: .venv/.installed

# Installed again only when what is to be installed has changed.
.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Setting up .venv with the versions of constraints.txt (the first time takes a few minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@touch $@

run: setup
	@$(BIN)/python scripts/run_agent.py --agent dqn $(ARGS)

test: setup
	@$(BIN)/python -m pytest -n 2 $(ARGS)

# The full numbers of tests/reliability, which `make test` has in a short form: half an hour and more.
test-reliability: setup
	@$(BIN)/python -m pytest tests/reliability --reliability -v $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: setup
	@$(BIN)/python scripts/benchmark.py $(ARGS)

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
