# Everything runs in an environment of its own, .venv, which the first command makes.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_DIR := work_dirs/demo
export CFLAGS ?= -g0
export MAX_JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

# Two at once, each with one thread: that is fastest on the two cores of most CI machines.
PYTEST_OPTIONS ?= -n 2
ONEDL_TESTS := capture structures visualization runs apis engine models/test_featviz_detectors.py utils

# INSTALLED=1 takes the mmdet of PYTHON instead of installing another one.
ifdef INSTALLED
DEMO_PYTHON := PYTHONPATH="$(CURDIR)" "$(PYTHON)"
DEMO_NEEDS := check-installed
else
DEMO_PYTHON := $(BIN)/python
DEMO_NEEDS := .venv/installed
endif

.PHONY: help demo test test-onedl lint format docs clean announce check-installed
.DELETE_ON_ERROR:

help:  ## List these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 20

demo: announce $(DEMO_NEEDS) data/demo/val.json  ## Install, then test a bundled detector and draw its heatmaps
	$(DEMO_PYTHON) -m mmdet_featviz test configs/demo/atss_shapes_hp.py --max-images 8 --work-dir $(DEMO_DIR) \
		--cfg-options model.featviz.out_dir=$(DEMO_DIR)/heatmaps model.featviz.overwrite=True
	@echo
	@echo 'Look at $(DEMO_DIR)/heatmaps: a folder per image, with one picture per level and all of them in panel.jpg.'

announce:
	@echo 'make demo tests a bundled detector on generated images and draws 8 of them: about a minute.'
	@if [ -z '$(INSTALLED)' ] && [ ! -e .venv/installed ]; then \
		echo 'Before that it installs torch, mmcv and mmdet into .venv, once: about 2 GB of downloads, and 10 to 20'; \
		echo "minutes, most of which compile mmcv's operators. Have mmdet already? make demo PYTHON=... INSTALLED=1"; \
	fi

check-installed:
	@command -v "$(PYTHON)" >/dev/null || { echo 'there is no Python $(PYTHON)' >&2; exit 1; }
	@message=$$($(DEMO_PYTHON) -c 'import mmdet_featviz' 2>&1) || \
		{ echo "$$message" | tail -n 1 >&2; echo 'Or leave INSTALLED=1 out: then all is installed into .venv.' >&2; exit 1; }

test: .venv/tests-installed  ## Install, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-onedl: .venv-onedl/installed  ## The engine's, the hook's and the detectors' tests on OneDL's stack
	OMP_NUM_THREADS=1 .venv-onedl/bin/python -m pytest $(PYTEST_OPTIONS) $(addprefix tests/test_,$(ONEDL_TESTS))

lint: .venv/lint-installed  ## Check style, formatting, imports, requirements, and that Python 3.8 has all that is used
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin -q -t=3.8- --no-tips mmdet_featviz tools setup.py
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry mmdet_featviz tools configs

format: .venv/lint-installed  ## Mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/docs-installed  ## Build the documentation as a site in docs/_build; warnings are errors
	for language in $(notdir $(patsubst %/conf.py,%,$(wildcard docs/*/conf.py))); do \
		$(BIN)/python -m sphinx -W --keep-going -n -q docs/$$language docs/_build/$$language; \
		echo "Look at docs/_build/$$language/index.html"; \
	done

clean:  ## Remove the environment, the demo's data and all results
	rm -rf .venv .venv-onedl data/demo work_dirs build dist *.egg-info mmdet_featviz/.mim docs/_build

.venv/made:
	"$(PYTHON)" -m venv .venv
	touch $@

# mmcv builds against the torch that is there, so torch comes first and mmcv without build isolation.
.venv/installed: .venv/made setup.py $(wildcard requirements/*.txt)
	$(PIP) install -r requirements/build.txt
	bash tools/install_mmcv.sh $(BIN)/python "$$(grep '^mmcv' requirements/stack.txt)"
	$(PIP) install --no-build-isolation -r requirements/stack.txt
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

.venv-onedl/installed: setup.py $(wildcard requirements/*.txt)
	"$(PYTHON)" -m venv .venv-onedl
	.venv-onedl/bin/python -m pip install -r requirements/build.txt
	bash tools/install_mmcv.sh .venv-onedl/bin/python "$$(grep '^onedl-mmcv' requirements/onedl.txt)"
	.venv-onedl/bin/python -m pip install --no-build-isolation -r requirements/onedl.txt -r requirements/tests.txt
	.venv-onedl/bin/python -m pip install --no-build-isolation --no-deps -e .
	touch $@

.venv/tests-installed: .venv/installed requirements/tests.txt
	$(PIP) install -r requirements/tests.txt
	touch $@

.venv/docs-installed: .venv/installed requirements/docs.txt
	$(PIP) install -r requirements/docs.txt
	touch $@

.venv/lint-installed: .venv/made requirements/lint.txt
	$(PIP) install -r requirements/lint.txt
	touch $@

data/demo/val.json: mmdet_featviz/benchmarks/demo_data.py | $(DEMO_NEEDS)
	$(DEMO_PYTHON) -m mmdet_featviz demo-data --train 0
