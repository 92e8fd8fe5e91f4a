# Everything runs in an environment of its own, .venv, which the first command makes.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_DIR := work_dirs/demo
export CFLAGS ?= -g0

ONEDL_TESTS := boxes channels checkpoints detectors geometry hooks looks photos reduction rendering runs sinks taps \
	tokens turns views visualizer ways_of_testing workers
# Two at once, each with one thread: that is fastest on the two cores of most CI machines.
PYTEST_OPTIONS ?= -n 2

.PHONY: help demo test test-onedl lint format docs clean
.DELETE_ON_ERROR:

help:  ## List these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 20

demo: .venv/installed data/demo/val.json  ## Install, then test a bundled detector and draw its heatmaps
	$(BIN)/python tools/test.py configs/demo/atss_shapes_hp.py --max-images 8 \
		--work-dir $(DEMO_DIR) --cfg-options model.featviz.out_dir=$(DEMO_DIR)/heatmaps model.featviz.overwrite=True
	@echo
	@echo 'Look at $(DEMO_DIR)/heatmaps: a folder per photo, with one picture per level and all of them in panel.jpg.'

test: .venv/tests-installed  ## Install, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-onedl: .venv-onedl/installed  ## The engine's, the hook's and the detectors' tests on OneDL's stack
	OMP_NUM_THREADS=1 .venv-onedl/bin/python -m pytest $(PYTEST_OPTIONS) $(addprefix tests/test_,$(addsuffix .py,$(ONEDL_TESTS)))

lint: .venv/lint-installed  ## Check style, formatting, and that Python 3.8 has all that is used
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin -q -t=3.8- --no-tips mmdet_featviz tools setup.py

format: .venv/lint-installed  ## Mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/docs-installed  ## Build the documentation as a site in docs/_build; warnings are errors
	set -e; for language in $(notdir $(patsubst %/conf.py,%,$(wildcard docs/*/conf.py))); do \
		$(BIN)/python -m sphinx -W --keep-going -n -q docs/$$language docs/_build/$$language; \
		echo "Look at docs/_build/$$language/index.html"; \
	done

clean:  ## Remove the environment, the demo's data and all results
	rm -rf .venv .venv-onedl data/demo work_dirs build dist *.egg-info mmdet_featviz/.mim

.venv/made:
	$(PYTHON) -m venv .venv
	touch $@

# mmcv builds against the torch that is there, so torch comes first and mmcv without build isolation.
.venv/installed: .venv/made setup.py $(wildcard requirements/*.txt)
	$(PIP) install -r requirements/build.txt
	$(PIP) install --no-build-isolation -r requirements/stack.txt
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

.venv-onedl/installed: setup.py $(wildcard requirements/*.txt)
	$(PYTHON) -m venv .venv-onedl
	.venv-onedl/bin/python -m pip install -r requirements/build.txt
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

data/demo/val.json: tools/make_demo_data.py | .venv/installed
	$(BIN)/python tools/make_demo_data.py --train 0
