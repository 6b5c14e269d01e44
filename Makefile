# make demo    install, run the example production, say where the report is
# make test    install what tests need, run them all
# make test-conda     the conda environments: built, their imports, productions in them and without them
# make test-cluster   productions on a Slurm of two nodes on this machine, with faults
# make bench   measure, print tables, write benchmarks/results (bench-ingest: one topic)
# make check   formatting, lint and types

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-conda test-cluster bench check docs

$(VENV)/demo: requirements.lock
	@echo "Installing into $(VENV) (two to three minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.lock
	@touch $@

$(VENV)/test: $(VENV)/demo requirements-test.lock
	@$(PIP) -r requirements-test.lock
	@touch $@

$(VENV)/conda: $(VENV)/test requirements-conda.lock
	@$(PIP) -r requirements-conda.lock
	@touch $@

demo: $(VENV)/demo
	@$(BIN)/snakemake --quiet reason host
	@echo "Report: $(CURDIR)/results/report.html"

test: $(VENV)/test
	@$(BIN)/python -m pytest

test-conda: $(VENV)/conda
	@$(BIN)/python -m pytest tests/conda

# needs root and Debian's slurmctld, slurmd, slurm-client and munge
test-cluster: $(VENV)/test
	@$(BIN)/python -m pytest tests/slurm

bench: bench-ingest

bench-%: $(VENV)/demo
	@PYTHONPATH=workflow/scripts $(BIN)/python benchmarks/$*.py

check: $(VENV)/test
	@$(BIN)/snakemake --lint
	@$(BIN)/snakefmt --check Snakefile rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# needs Graphviz for the picture of the rules
docs: $(VENV)/demo
	@PYTHONPATH=workflow/scripts $(BIN)/python -m pidflow.config.document
	@$(BIN)/snakemake --quiet all --rulegraph dot | tred | sed 's/{/{ rankdir=LR; nodesep=0.15; ranksep=0.3;/' \
		| dot -Tsvg > docs/rulegraph.svg
