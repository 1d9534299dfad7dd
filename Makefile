# `make run` trains, `make test` proves, `make check` reads, `make docs` builds the pages. Each sets up .venv first; the second time that is quick.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: setup run test test-reliability matrix check benchmark docs clean

setup: .venv/.installed

# Installed again only when what is to be installed has changed.
.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Setting up .venv with the versions of constraints.txt (the first time takes a few minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@touch $@

run: setup
	@$(BIN)/python scripts/run_agent.py --agent dqn $(ARGS)

# Each process begins with a half of the files, so that a file's fixtures are set up once; who is done takes from the other.
test: setup
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# The full numbers of tests/reliability, which `make test` has in a short form: an hour on two cores.
test-reliability: setup
	@$(BIN)/python -m pytest tests/reliability --reliability -v $(ARGS)

# What can be tied, docs/results/matrix.md: trains some hundred small networks, a few minutes on one core.
matrix: setup
	@$(BIN)/python -m tests.reliability.matrix

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: setup
	@$(BIN)/python scripts/benchmark.py $(ARGS)

# The pages, into site/: open site/index.html. Every warning is an error.
docs: .venv/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

.venv/.docs: .venv/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

clean:
	rm -rf .venv build site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
