# make            rebuild everything into build/ and compare it with what is published
# make test       all checks
# make figures    publish: verdicts, figures, tables, generated text
# make notebooks  publish: execute the notebooks in place and store their outputs
# make bench      benchmarks in full
# make mutants    break formulas on purpose and report which checks notice
# make clean      remove build/ and caches (not the environment)
#
# TORCH_INDEX=https://download.pytorch.org/whl/cpu installs the CPU build of torch; PYTHON chooses another interpreter;
# EXTRAS=dev,oracles also installs the libraries that some tests compare with and skip without.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
EXTRAS ?= dev

export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := all
.PHONY: all test lint types unit notebooks-check verify bench bench-check mutants notebooks figures clean
.NOTPARALLEL:

all: $(READY)
	kdtheory reproduce --out build

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install -c constraints.txt torch --index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

test: lint types unit notebooks-check verify bench-check

lint: $(READY)
	ruff check .
	ruff format --check .

types: $(READY)
	mypy

unit: $(READY)
	pytest -n $(WORKERS) --dist loadscope tests

notebooks-check: $(READY)
	pytest -n $(WORKERS) --dist loadscope --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg notebooks

verify: $(READY)
	kdtheory verify

bench-check: $(READY)
	python -m tests.benchmarks --quick

bench: $(READY)
	python -m tests.benchmarks

mutants: $(READY)
	python -m tests.mutations

notebooks: $(READY)
	python -c 'from kdtheory.reproduce import notebooks; notebooks.in_place()'

figures: $(READY)
	kdtheory verify --json figures/data/verdicts.json
	kdtheory figures --out figures
	python -m kdtheory.publish.generated

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kdtheory tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
