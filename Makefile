# The commands of this repository; `make setup` makes everything the others need.

PYTHON ?= python3
# First and alone, so that nothing else decides which build of torch comes in. Any version in >=2.11,<2.15 works:
#   make setup TORCH="torch>=2.11,<2.15"
TORCH  ?= torch==2.13.0
EXTRAS ?= dev,parity
DEMO   ?= forget --demo --out out/demo

VENV   := .venv
BIN    := $(VENV)/bin
# Reference implementations whose own requirements would replace torch.
PARITY_ALONE := efficientnet-lite-pytorch==0.1.0 facenet-pytorch==2.6.0
# TensorFlow.js runs the published form of the judge; parity tests compare with it.
NPM_TOOLS  := @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-converter@4.22.0 @tensorflow/tfjs-backend-cpu@4.22.0
NPM_FOLDER := .cache/npm

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint gpu wheel wheel-check clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/.setup  ## create .venv with the library, its tests and its tools

demo: setup  ## forget the person of the demonstration photo
	$(BIN)/guide-fast $(DEMO)

test: setup  ## run the tests
	$(BIN)/python -m pytest -q

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# No setup: such a machine often has no network, but a Python with torch and triton; .venv is used where it is.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU        ?=

gpu:  ## run the tests and benchmarks that need a CUDA device; GPU="--wheel dist/x.whl --minutes 30" passes options
	$(GPU_PYTHON) -m bench.run $(GPU)

wheel: setup  ## build dist/*.whl
	rm -rf build/lib build/bdist* dist
	$(BIN)/python -m build --wheel --no-isolation

wheel-check: wheel  ## install the wheel into an empty environment and start it there
	rm -rf out/wheel-check
	$(PYTHON) -m venv out/wheel-check
	out/wheel-check/bin/python -m pip install -q "$(TORCH)"
	out/wheel-check/bin/python -m pip install -q dist/*.whl
	cd out/wheel-check && bin/python -c 'import guide_fast; print(guide_fast.__file__)'
	cd out/wheel-check && bin/guide-fast --help
	cd out/wheel-check && bin/guide-fast doctor

clean:  ## remove what was built, .venv included; fetched weights stay
	rm -rf $(VENV) build dist out .cache *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "make setup: $(PYTHON) is not on PATH; install Python 3.11 or newer, or name one: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"make setup: {sys.executable} is Python {sys.version.split()[0]}, guide-fast needs 3.11 or newer; name one: make setup PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "make setup: this Python has no ensurepip, so it cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.python
	$(BIN)/python -m pip install --disable-pip-version-check "$(TORCH)"
	@touch $@

# what the native build needs; without build isolation it compiles against the torch that is there
BUILD_TOOLS := "setuptools>=77" "pybind11>=3" "cmake>=3.22" ninja

$(VENV)/.setup: $(VENV)/.torch pyproject.toml
	@command -v c++ >/dev/null || { echo "make setup: no C++ compiler on PATH; on Debian and Ubuntu: apt-get install g++"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check $(BUILD_TOOLS)
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps $(PARITY_ALONE)
	@if command -v npm >/dev/null; then \
		npm install --prefix $(NPM_FOLDER) --no-audit --no-fund --ignore-scripts $(NPM_TOOLS) \
			|| echo "make setup: npm could not install its packages: tests that compare with TensorFlow.js cannot run"; \
	else \
		echo "make setup: npm is not on PATH: the held-out judge cannot be fetched without it (install Node.js)"; \
	fi
	@touch $@
