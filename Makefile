# musicon: `make demo` shows everything, `make test` checks it. `make help` lists the rest.
#
# The environment is .venv, made from requirements.lock with the Python named by PYTHON, and made
# anew when the lock file changes. Nothing outside this folder is installed or changed.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-lock
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export FIFTYONE_DO_NOT_TRACK := 1
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: help env demo test real lint types lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, generate pictures, train, evaluate, infer, load the review"
	@echo "make test    install, then run the tests (under 10 minutes)"
	@echo "make env     install only: .venv from requirements.lock"
	@echo "make real    the tests on the real collections in ../shared/fixture"
	@echo "make lint    ruff          make types   mypy"
	@echo "make lock    resolve pyproject.toml anew into requirements.lock"
	@echo "make clean   remove .venv, caches and the demo's output"
	@echo "PYTHON=python3.12 make env   takes another Python (3.10 to 3.13)"

env: $(STAMP)

$(STAMP): requirements.lock requirements-mongod.txt pyproject.toml setup.py
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no program '$(PYTHON)'; install Python 3.10 to 3.13, or name yours:" \
	       "PYTHON=python3.12 make $(firstword $(MAKECMDGOALS))" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), musicon needs Python 3.10 to 3.13;" \
	       "name one: PYTHON=python3.12 make $(firstword $(MAKECMDGOALS))" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv" \
	  >&2; exit 2; }
	@if [ ! -x $(BIN)/python ] || ! cmp -s requirements.lock $(VENV)/requirements.lock; then \
	  echo "making $(VENV) from requirements.lock (about 7 GB on Linux, a few minutes)"; \
	  if [ -t 1 ]; then quiet=; else quiet="--quiet --quiet"; fi; \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install $$quiet --require-hashes -r requirements.lock && \
	  cp requirements.lock $(VENV)/requirements.lock; \
	fi
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python tools/setup_review.py || echo "(training and inference work without it)"
	@touch $(STAMP)

demo: env
	$(BIN)/python tools/demo.py

test: env
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

real: env
	$(BIN)/python -m pytest -m real $(PYTEST_ARGS)

lint: env
	$(BIN)/ruff check .

# mypy does not read the editable install's import hook: it gets the code folders as links under
# their import names.
types: env
	@mkdir -p .cache/types/musicon
	@for folder in datasets detect styletransfer; do \
	  ln -sfn ../../../$$folder .cache/types/musicon/$$folder; done
	@ln -sfn ../../tools .cache/types/tools
	$(BIN)/mypy -p musicon -p tools

# Pins already in requirements.lock stay; LOCK_ARGS=--upgrade takes the newest of everything.
# uv resolves for all Pythons and platforms at once; it is needed for nothing else.
lock:
	$(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv
	UV_CUSTOM_COMPILE_COMMAND="make lock" .cache/uv/bin/uv pip compile --quiet --universal \
	  --python-version 3.10 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --extra review --extra explain --extra dev $(LOCK_ARGS) \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info \
	  data/demo runs/demo results/demo
