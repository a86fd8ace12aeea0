# Development tasks. `make demo` and `make test` run the setup if needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# A second environment with the lowest supported versions, and with RLlib, which requires an older Gymnasium
OLDEST       := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready

# Let idle OpenMP threads sleep instead of spinning, because spinning slows down other processes on shared cores.
export OMP_WAIT_POLICY ?= PASSIVE

# Material for MkDocs advertises its successor at every build; the site needs no change.
export NO_MKDOCS_2_WARNING := 1

# Run the tests in two processes; tests of the same file run in the same process, so that they share fixtures.
PYTEST := -m pytest -n 2 --dist loadfile

.PHONY: help setup demo test test-oldest lint docs format clean

help:
	@echo "make setup        make $(VENV), install everything but RLlib, get the bundled weights"
	@echo "make demo         the whole method on a simulated cohort; fetches an LLM of 491 MB if need be"
	@echo "make test         the tests"
	@echo "make test-oldest  those that hang on libraries' versions, with RLlib and the lowest admitted, in $(OLDEST)"
	@echo "make lint         ruff and mypy"
	@echo "make docs         the documents as a website, in site/"
	@echo "make format       let ruff format the code"
	@echo "make clean        remove $(VENV), $(OLDEST) and what tools left behind (runs/ stays)"

setup: $(READY)

$(READY): pyproject.toml setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v[:2] <= (3, 13) else "Python 3.10 to 3.13 is needed, this is %d.%d: make setup PYTHON=python3.12" % v[:2])'
	@echo "== 1/4 Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "== 2/4 Installing PyTorch (minutes; large where it comes with CUDA)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@echo "== 3/4 Installing this package and what it needs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[parquet,xlsx,rocket,lora,faiss,torchrl,trl,tune,wandb,zh,postgres,ray,docs,dev]" --editable ./integrations/pmlm_openenv
	@echo "== 4/4 Getting the small models (190 MB), checking and unpacking them"
	@$(BIN)/pmlm models --fetch
	@touch $(READY)
	@echo "== Ready"

demo: $(READY)
	@$(BIN)/pmlm demo

test: $(READY)
	@echo "== Running the tests"
	@$(BIN)/python $(PYTEST)

test-oldest: $(OLDEST_READY)
	@echo "== Running the tests with the lowest versions"
	@$(OLDEST)/bin/python $(PYTEST) -m "not once"

$(OLDEST_READY): pyproject.toml setup.cfg constraints-oldest.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v[:2] == (3, 11) else "The lowest versions are pinned for Python 3.11, this is %d.%d: make test-oldest PYTHON=python3.11" % v[:2])'
	@echo "== 1/4 Making $(OLDEST) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(OLDEST)
	@echo "== 2/4 Installing PyTorch (minutes; large where it comes with CUDA)"
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt torch
	@echo "== 3/4 Installing this package and the lowest versions of what it needs"
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt --editable ".[parquet,xlsx,rocket,lora,faiss,torchrl,tune,zh,postgres,rllib,test]"
	@echo "== 4/4 Getting the small models (190 MB), checking and unpacking them"
	@$(OLDEST)/bin/pmlm models --fetch
	@touch $(OLDEST_READY)

lint: $(READY)
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy

docs: $(READY)
	@$(BIN)/mkdocs build --quiet --strict
	@echo "== The site is in site/: open site/index.html, or $(BIN)/mkdocs serve for its search"

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
