# demo, test, lint and bench need nothing but make and Python 3.11 to 3.13; each sets itself up first.
# The second call installs nothing: .venv/.lock-hash holds the hash of the lock that .venv was made from.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
# torchcodec brings no FFmpeg: PyAV's, under the names that torchcodec asks for.
FFMPEG := $(VENV)/ffmpeg
export LD_LIBRARY_PATH := $(CURDIR)/$(FFMPEG)$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))
# By another name than MAKE, which would let `make -n` run the recipe that calls it.
AGAIN := $(MAKE)

# Nothing phones home from a build.
export RAY_USAGE_STATS_ENABLED ?= 0
export HF_HUB_DISABLE_TELEMETRY ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help setup demo test lint types house unit integration smoke science bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

setup: ## create .venv and install requirements.lock, unless both are as they should be
	@wanted=$$(sha256sum $(LOCK) | cut -d' ' -f1)
	if [ -x $(BIN)/python ] && [ "$$(cat $(VENV)/.lock-hash 2>/dev/null)" = "$$wanted" ]; then exit 0; fi
	python=""
	for candidate in "$${PYTHON:-python3}" python3.11 python3.12 python3.13; do
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
	    python=$$candidate; break
	  fi
	done
	if [ -z "$$python" ]; then
	  echo "error: no Python 3.11, 3.12 or 3.13 found; install one (Debian: apt-get install python3 python3-venv)" \
	    "or name it: make PYTHON=/path/to/python3.11" >&2
	  exit 1
	fi
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then
	  echo "error: $$python cannot create virtual environments; install the Debian package python3-venv" >&2
	  exit 1
	fi
	echo "installing $(LOCK) into $(VENV) with $$("$$python" --version); once, a few minutes"
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then "$$python" -m venv --clear $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	mkdir -p $(FFMPEG)
	for library in $(VENV)/lib/python3.*/site-packages/av.libs/lib{av,sw}*.so.*; do
	  ln -sf "$$PWD/$$library" "$(FFMPEG)/$$(basename "$$library" | sed -E 's/-[0-9a-f]+(\.so\.[0-9]+).*/\1/')"
	done
	echo "$$wanted" > $(VENV)/.lock-hash

demo: setup ## videos, features, a trained model and a report, offline
	@$(BIN)/python -m jobs.demo

lint: setup ## ruff and the import contracts
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup ## mypy --strict
	@$(BIN)/mypy

house: setup ## the rules of the house as tests
	@$(BIN)/python -m pytest -q tests/house

unit: setup ## every test but the house and the integration tests
	@$(BIN)/python -m pytest -q tests --ignore=tests/house --ignore=tests/integration

integration: setup ## a real Ray head with submitted jobs, a real MLflow server
	@$(BIN)/python -m pytest -q tests/integration

smoke: setup ## the demo on a few videos
	@root=$$(mktemp -d "/tmp/my runs #1 ü.XXXXXX")
	trap 'rm -rf "$$root"' EXIT
	$(BIN)/python -m jobs.demo --smoke --root "$$root"

test: setup ## everything that must be green; pytest's summary comes last
	@$(BIN)/mypy & types=$$! # one core's work, beside the smoke test, which often waits
	trap 'kill $$types 2>/dev/null || true' EXIT
	"$(AGAIN)" --no-print-directory lint smoke
	wait $$types
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15 tests

science: setup ## HierVL on planted worlds: 5 seeds of every method with a gate, 2 of the others
	@$(BIN)/python -m jobs.science --config jobs/configs/science.yaml

bench: setup ## speed tables and their JSON files
	@for file in tests/bench/bench_*.py; do
	  name=$${file##*/}
	  $(BIN)/python -m tests.bench.$${name%.py}
	done

clean: ## remove what make made, but not your runs/
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
