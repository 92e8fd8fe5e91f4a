# Everything runs in an environment of its own, .venv, which the first command makes.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
PYTHON38 ?= python3.8
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_DIR := work_dirs/demo
export CFLAGS ?= -g0
export MAX_JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

# Two at once, each with one thread: that is fastest on the two cores of most CI machines.
PYTEST_OPTIONS ?= -n 2
ONEDL_TESTS := capture structures visualization runs apis engine models/test_featviz_detectors.py utils
MM30_TESTS := capture engine models/test_featviz_detectors.py
MATRIX_TESTS := engine structures visualization
MATRIX := $(notdir $(basename $(wildcard requirements/matrix/*.txt)))

# $(call run_tests,PYTHON,TESTS,NAME): RECORD=1 also writes the row of this run in the table of tested stacks.
define run_tests
OMP_NUM_THREADS=1 $(1) -m pytest $(PYTEST_OPTIONS) --junitxml=work_dirs/tests/$(or $(3),$@).xml $(addprefix tests/test_,$(2))
$(if $(RECORD),$(1) docs/tested_stacks.py '$(or $(3),$@)' work_dirs/tests/$(or $(3),$@).xml)
endef

# $(call install_stack,PYTHON,FILE): mmcv builds against the torch that is there, so torch comes first and mmcv without
# build isolation.
define install_stack
$(1) -m pip install -c requirements/$(2).txt -r requirements/build.txt
bash tools/install_mmcv.sh $(1) "$$(grep 'mmcv==' requirements/$(2).txt)"
$(1) -m pip install --no-build-isolation -r requirements/$(2).txt -r requirements/runtime.txt
$(1) -m pip install --no-build-isolation --no-deps -e .
endef

# INSTALLED=1 takes the mmdet of PYTHON instead of installing another one.
ifdef INSTALLED
DEMO_PYTHON := PYTHONPATH="$(CURDIR)" "$(PYTHON)"
DEMO_NEEDS := check-installed
else
DEMO_PYTHON := $(BIN)/python
DEMO_NEEDS := .venv/installed
endif

.PHONY: help demo test test-onedl test-oldest test-mm30 test-matrix $(addprefix test-matrix-,$(MATRIX)) lint format docs clean announce check-installed
.DELETE_ON_ERROR:

help:  ## List these commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1	/' | expand -t 20

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
	$(call run_tests,$(BIN)/python)

test-onedl: .venv-onedl/installed  ## The engine's, the hook's and the detectors' tests on OneDL's stack
	$(call run_tests,.venv-onedl/bin/python,$(ONEDL_TESTS))

test-oldest: .venv-oldest/installed  ## All tests on Python 3.8 and torch 1.13; PYTHON38=... names that Python
	$(call run_tests,.venv-oldest/bin/python)

test-mm30: .venv-mm30/installed  ## The same tests of the hook on mmdet 3.0, mmengine 0.7.1 and mmcv 2.0.0
	$(call run_tests,.venv-mm30/bin/python,$(MM30_TESTS))

test-matrix: $(addprefix test-matrix-,$(MATRIX))  ## The engine's tests with NumPy 1 and 2, OpenCV 4 and 5, Pillow 9 to 13

$(addprefix test-matrix-,$(MATRIX)): test-matrix-%: .venv-matrix/%/installed
	$(call run_tests,.venv-matrix/$*/bin/python,$(MATRIX_TESTS))

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
	rm -rf .venv .venv-onedl .venv-oldest .venv-mm30 .venv-matrix data/demo work_dirs build dist *.egg-info mmdet_featviz/.mim docs/_build

.venv/made:
	"$(PYTHON)" -m venv .venv
	touch $@

.venv/installed: .venv/made setup.py $(wildcard requirements/*.txt)
	$(call install_stack,$(BIN)/python,stack)
	touch $@

.venv/tests-installed: .venv/installed requirements/tests.txt
	$(PIP) install -c requirements/stack.txt -r requirements/tests.txt -r requirements/coverage.txt
	touch $@

.venv-onedl/installed: PYTHON_HERE = $(PYTHON)
.venv-oldest/installed .venv-mm30/installed: PYTHON_HERE = $(PYTHON38)

# The pip of Python 3.8 finds no set of versions that fits, so a newer one comes first.
.venv-onedl/installed .venv-oldest/installed .venv-mm30/installed: .venv-%/installed: setup.py $(wildcard requirements/*.txt)
	@command -v "$(PYTHON_HERE)" >/dev/null || { echo 'there is no Python $(PYTHON_HERE)' >&2; exit 1; }
	"$(PYTHON_HERE)" -m venv .venv-$*
	.venv-$*/bin/python -m pip install 'pip>=25; python_version < "3.9"'
	$(call install_stack,.venv-$*/bin/python,$*)
	.venv-$*/bin/python -m pip install -c requirements/$*.txt -r requirements/tests.txt -r requirements/coverage.txt
	touch $@

# Three packages of its own; all others, mmcv among them, are those of .venv, which come later on the path.
.venv-matrix/%/installed: requirements/matrix/%.txt .venv/tests-installed
	$(BIN)/python -m venv --without-pip .venv-matrix/$*
	$(PIP) --python .venv-matrix/$*/bin/python install --no-deps -r requirements/matrix/$*.txt
	packages() { "$$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
		printf '%s\n' "$$(packages $(BIN)/python)" '$(CURDIR)' >"$$(packages .venv-matrix/$*/bin/python)/stack.pth"
	touch $@

.venv/docs-installed: .venv/installed requirements/docs.txt
	$(PIP) install -r requirements/docs.txt
	touch $@

.venv/lint-installed: .venv/made requirements/lint.txt
	$(PIP) install -r requirements/lint.txt
	touch $@

data/demo/val.json: mmdet_featviz/benchmarks/demo_data.py | $(DEMO_NEEDS)
	$(DEMO_PYTHON) -m mmdet_featviz demo-data --train 0
