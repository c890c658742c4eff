# `make demo` and `make test` do all the set-up that is still missing. STACK=onedl uses the OneDL
# forks, STACK=torch21 the oldest versions that are supported, each in an environment of its own.
STACK ?= openmmlab
VENV := .venv$(if $(filter-out openmmlab,$(STACK)),-$(STACK))
PYTHON := $(VENV)/bin/python
COVERAGE := --cov --cov-fail-under=90
CORES := $(shell getconf _NPROCESSORS_ONLN)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs clean

help:
	@echo 'make demo    train a Faster R-CNN with an SE-ResNet-50 on the built-in data'
	@echo 'make test    run all tests'
	@echo 'make test TESTS="tests/models tests/engine"   run some of them'
	@echo 'make lint    check the style with ruff and the types with mypy'
	@echo 'make docs    build the documentation into site/'
	@echo 'make setup   only install what these need, into $(VENV); what is there is skipped'
	@echo 'make clean   remove build products and caches; data, work_dirs and $(VENV) stay'
	@echo 'STACK=onedl  with any of them: the OneDL forks instead of OpenMMLab, in .venv-onedl'
	@echo 'MMCV_WHEEL=1 with make setup: take a compiled mmcv where OpenMMLab or OneDL has one'
	@echo 'STACK=torch21  torch 2.1, the oldest that is supported, in .venv-torch21'

setup:
	@MMCV_WHEEL='$(MMCV_WHEEL)' bash tools/setup_env.sh '$(STACK)' '$(VENV)'

demo: setup
	$(PYTHON) tools/train.py configs/faster_rcnn_se_r50.py

# The coverage is that of all tests.
test: setup
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(CORES) --durations=15 $(or $(TESTS),$(COVERAGE))

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

docs: setup
	$(PYTHON) tools/build_docs.py

clean:
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find mmse configs tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'data, work_dirs and the environments (.venv, .venv-onedl, .venv-torch21) are kept'
