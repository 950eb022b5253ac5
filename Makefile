# Everything a person types. `make` alone says what there is.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib || true # on all cores; some packages have files of no Python
PIP_COMPILE := pip-compile --quiet --strip-extras --generate-hashes --unsafe-package torch --unsafe-package pip --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --annotation-style line
PYTEST_ARGS ?=
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

# DVC runs each stage with the `python` it finds first
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup peers repro test test-all newest warm lint ui serve demo docs bench lock clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the locked dependencies (the other targets do it by themselves)

$(READY): requirements.lock requirements-torch.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed, {sys.executable} is {v.major}.{v.minor}: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'installing the locked dependencies into .venv: a few minutes, once'
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements.lock
	@sed -n 's/^\([^ ]*==[^ ]*\) .*/\1/p' requirements.lock > .venv/locked.txt  # without hashes: torch may bring nvidia-…
	$(PIP_INSTALL) --constraint .venv/locked.txt -r requirements-torch.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(COMPILE)
	@$(BIN)/python -m pip check >.venv/check.txt || { cat .venv/check.txt; exit 1; }  # --no-deps does not look
	@touch $@

peers: $(PEERS) ## add Keras and JAX to .venv, for the tests and benchmarks that compare with them

$(PEERS): requirements-peers.lock $(READY)
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements-peers.lock
	@$(COMPILE)
	@touch $@

repro: $(READY) ## run what must run: configure, download, preprocess, train, evaluate
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true
	dvc repro

test: $(READY) ## run the quick tests; what each change must pass: .ci/run
	python -m pytest $(PYTEST_ARGS)

test-all: $(PEERS) ## every case of every test, benchmarks in small, the newest dependencies: hours
	PIPELINE_TESTS=all python -m pytest -m 'not gpu' $(PARALLEL) --timeout 1800
	$(MAKE) newest

newest: ## the quick tests with the newest dependencies that pyproject.toml allows, in .venv-newest
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,slurm,onnx,server]'
	.venv-newest/bin/python -m pytest

warm: $(READY) ## have a process ready that runs commands at once, where PIPELINE_WARM=1 is set
	pipeline warm

lint: $(READY) ## formatting, lint, types, who may import whom
	ruff format --check .
	ruff check .
	mypy
	lint-imports

ui: $(READY) ## open the store of runs in a browser (prints the link)
	pipeline ui

docs: $(READY) ## write docs/configuration.md and make a site of docs/, strictly; look at it: site/index.html
	python docs/_build/reference.py --write
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet

serve: $(READY) ## the champion behind a REST interface on this machine, by MLflow's server
	pipeline serve

demo: $(READY) ## a page to draw on: what the champion makes of it
	pipeline demo

bench: $(PEERS) ## measure beside peers, in turn, many minutes; writes docs/results.md (MNIST through PIPELINE_MIRROR)
	python benchmarks/answers.py --write
	python benchmarks/fit.py --write
	python benchmarks/book_seeds.py --write
	python benchmarks/fast.py --write
	python benchmarks/scale.py --write
	python benchmarks/sweep.py --write
	python benchmarks/tracking.py --write

lock: $(READY) ## renew the lock files from the ranges in pyproject.toml
	$(PIP_COMPILE) --upgrade --extra dev --extra slurm --extra server --extra onnx --output-file requirements.lock pyproject.toml
	@cp requirements.lock .venv/peers.all  # these versions and hashes stay
	$(PIP_COMPILE) --extra peers --constraint requirements.lock --output-file .venv/peers.all pyproject.toml
	@sed -i.old '/^$$/,$$d' requirements.lock .venv/peers.all && rm requirements.lock.old .venv/peers.all.old  # a word on torch and pip
	@awk -F '==' '/^[a-z]/ { new = NR != FNR && !($$1 in locked); if (NR == FNR) locked[$$1] } new' requirements.lock .venv/peers.all > .venv/peers.new  # what comes on top
	@mv .venv/peers.new requirements-peers.lock && rm .venv/peers.all
	@sed -n 's/^ *"\(torch==[0-9.]*\)",.*/\1/p' pyproject.toml > requirements-torch.lock

clean: ## remove what can be made again; keeps mlflow.db, DVC's cache and .venv
	rm -rf site outputs multirun data/raw data/processed .pipeline dvc_plots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
