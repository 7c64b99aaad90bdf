# make          environment, then everything: ledger, experiment, figures, notebooks, into build/
# make test     what continuous integration runs
# make bench    losses and transport against peers; writes build/benchmarks/
# make publish  take over what `make` built as the published figures, tables, notebooks and texts

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# one thread per process: on two cores, two processes of one thread beat any process of two
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
# model hubs are never asked: everything is made here
export HF_HUB_OFFLINE := 1

.PHONY: all test lint types unit notebooks-check bench bench-check publish clean
all: $(VENV)/.ready
	$(BIN)/kdtheory reproduce --out build

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: lint types unit notebooks-check bench-check
	@echo "all checks passed"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2 tests

notebooks-check: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2 --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg notebooks

bench: $(VENV)/.ready
	$(BIN)/python -m tests.benchmarks --out build/benchmarks

bench-check: $(VENV)/.ready
	$(BIN)/python -m tests.benchmarks --quick

publish: $(VENV)/.ready
	$(BIN)/python -m kdtheory.publish

clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis
