# Everything runs in .venv, which is made from nothing but Python 3.10 or later and make; nothing is installed elsewhere.
#   make test PYTHON=python3.12        another Python for .venv (`make clean` first if there is one already)
#   make test ARGS='-k staging'        arguments for pytest
#   make test WORKERS=0                in one process, for a debugger; `auto` is one for each core
PYTHON ?= python3
ARGS ?=
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DIGITS := build/digits/.written

# Packages of the user's own environment (a ROS installation sets PYTHONPATH) must not get between .venv and its tests.
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-thorough test-arm64 test-farm fuzz audit endurance endurance-devices lint wheel docs bench clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(STAMP) ## make .venv with everything for development

demo: $(STAMP) $(DIGITS) ## export, check and time a real checkpoint; ends with a table
	DTVIT_DEPLOY_CACHE="$(CURDIR)/build/cache" $(BIN)/dtvit-deploy run examples/digits/recipe.toml -o build/demo

test: $(STAMP) ## every test that can run on this machine, but for what takes longest
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses=4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-thorough: $(STAMP) ## what `make test` leaves out for its length: more images, more moments, farms; some 10 minutes
	DTVIT_DEPLOY_THOROUGH=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses=4 --dist loadfile -m thorough $(ARGS)

test-arm64: $(STAMP) ## ONNX Runtime for ARM64 on an emulated core, which is set up in build/arm64; some 20 minutes
	$(BIN)/python tests/arm64/environment.py build/arm64
	$(BIN)/python tests/arm64/device.py build/arm64
	DTVIT_DEPLOY_ARM64="$(CURDIR)/build/arm64" $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses=4 --dist loadgroup -m arm64 tests/arm64 $(ARGS)

test-farm: $(STAMP) ## farms, with workers without PyTorch and in network namespaces too (these as root)
	DTVIT_DEPLOY_THOROUGH=1 $(BIN)/python -m pytest tests/integration/test_farm.py $(ARGS)

fuzz: $(STAMP) ## thousands of changed graphs and checkpoints, counted; ARGS='--onnx 100' for fewer
	cd tests && ../$(BIN)/python -m fuzz $(ARGS) && ../$(BIN)/python -m fuzz.moments

endurance: $(STAMP) ## plans that are killed, share a cache, or run on farms, against one that nobody disturbs
	$(BIN)/python tests/endurance.py $(ARGS)

endurance-devices: $(STAMP) ## commands on a device while whoever works for them is killed, and on three behind bad lines (as root); half an hour
	$(BIN)/python tests/endurance_devices.py $(ARGS)

lint: $(STAMP) ## style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(STAMP) ## dist/*.whl, built from the source distribution and so from nothing that it lacks
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

docs: $(STAMP) ## docs/recipe.md, report.md and report.schema.json, from the types of recipes and reports
	$(BIN)/python -c 'from dtvit_deploy.recipe.keys import reference; print(reference(), end="")' > docs/recipe.md.new
	mv docs/recipe.md.new docs/recipe.md
	$(BIN)/python -c 'from dtvit_deploy.report.reference import page; print(page(), end="")' > docs/report.md.new
	mv docs/report.md.new docs/report.md
	$(BIN)/dtvit-deploy report --schema > docs/report.schema.json.new
	mv docs/report.schema.json.new docs/report.schema.json

audit: $(STAMP) ## what every command does behind one's back, under strace; 20 minutes
	$(BIN)/python tests/audit.py

bench: $(STAMP) $(DIGITS) ## the side-by-side measurements in benchmarks/
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "Python 3.10 or later is needed, and '$(PYTHON)' is not: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON)' cannot make a virtual environment: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

$(DIGITS): examples/digits/data.py $(STAMP)
	$(BIN)/python examples/digits/data.py $(@D)
	@touch $@
