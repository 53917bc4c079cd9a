# The commands of this repository; `make setup` makes everything the others need.

PYTHON ?= python3
# First and alone, so that nothing else decides which build of torch comes in. Any version in >=2.11,<2.15 works:
#   make setup TORCH="torch>=2.11,<2.15"
TORCH  ?= torch==2.13.0
EXTRAS ?= dev,export,parity,tensorrt
# Processes that share the tests; each takes up to 3 GB.
WORKERS ?= 2
DEMO   ?= forget --demo --out out/demo

VENV   := .venv
BIN    := $(VENV)/bin
# Reference implementations whose own requirements would replace torch.
PARITY_ALONE := efficientnet-lite-pytorch==0.1.0 facenet-pytorch==2.6.0
# TensorFlow.js runs the published form of the judge; parity tests compare with it.
NPM_TOOLS  := @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-converter@4.22.0 @tensorflow/tfjs-backend-cpu@4.22.0
NPM_FOLDER := .cache/npm

INSTALL_NATIVE = $(BIN)/python -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e . && touch $(VENV)/.native

.DEFAULT_GOAL := help
.PHONY: help setup native demo test fuzz lint gpu wheel wheel-check example sanitize clean

NATIVE_SOURCES := setup.py $(shell find csrc kernels -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name 'CMakeLists.txt' -o -name '*.in')

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/.setup $(VENV)/.native  ## create .venv with the library, its tests and its tools

native: $(VENV)/.setup  ## build the native libraries anew, as far as something changed (nvcc, too)
	$(INSTALL_NATIVE)

demo: setup  ## forget the person of the demonstration photo
	$(BIN)/guide-fast $(DEMO)

test: setup  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

FUZZ_SECONDS ?= 600
fuzz: setup  ## mutate checkpoints for FUZZ_SECONDS; anything but a generator or a clean error is a finding
	OMP_NUM_THREADS=1 $(BIN)/python tests/models/fuzz_checkpoint.py --seconds $(FUZZ_SECONDS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# No setup: such a machine often has no network, but a Python with torch and triton; .venv is used where it is.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU        ?=

gpu:  ## run the tests and benchmarks that need a CUDA device; GPU="--wheel dist/x.whl --minutes 30" passes options
	$(GPU_PYTHON) -m guide_fast.bench.run $(GPU)

wheel: setup  ## build dist/*.whl
	rm -rf build/lib build/bdist* dist
	$(BIN)/python -m build --wheel --no-isolation

wheel-check: wheel  ## install the wheel into an empty environment, without a compiler; run it there
	rm -rf out/wheel-check
	$(PYTHON) -m venv out/wheel-check
	out/wheel-check/bin/python -m pip install -q "$(TORCH)"
	PATH=$(CURDIR)/out/wheel-check/bin out/wheel-check/bin/python -m pip install -q $(CURDIR)/dist/*.whl
	cd out/wheel-check && bin/guide-fast --help
	cd out/wheel-check && bin/guide-fast doctor
	GUIDE_FAST_WHEEL=$$(echo dist/*.whl) GUIDE_FAST_WHEEL_PYTHON=out/wheel-check/bin/python $(BIN)/python -m pytest -q tests/test_wheel.py

example: setup  ## build the C++ example against the CMake package, run it
	$(BIN)/cmake -S examples/embed_cpp -B build/embed_cpp -DCMAKE_BUILD_TYPE=Release \
		-Dguide_fast_DIR="$$($(BIN)/python -c 'from guide_fast import embedding; print(embedding.cmake_folder())')"
	$(BIN)/cmake --build build/embed_cpp
	build/embed_cpp/embed_cpp

SANITIZERS := -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_CXX_FLAGS=-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
sanitize: setup  ## install the C interface alone, without CUDA, under sanitizers; run the C++ example on it
	$(BIN)/cmake -S csrc -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DGF_CUDA=OFF $(SANITIZERS)
	$(BIN)/cmake --build build/sanitize
	$(BIN)/cmake --install build/sanitize --prefix build/sanitize/installed
	$(BIN)/cmake -S examples/embed_cpp -B build/embed_sanitize $(SANITIZERS) -DCMAKE_PREFIX_PATH=$(CURDIR)/build/sanitize/installed
	$(BIN)/cmake --build build/embed_sanitize
	for level in base v3 v4; do GUIDE_FAST_ISA=$$level build/embed_sanitize/embed_cpp || exit 1; done

clean:  ## remove what was built, .venv included; fetched weights stay
	rm -rf $(VENV) build dist out .cache *.egg-info guide_fast/*.so guide_fast/include guide_fast/cmake .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
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
	@$(BIN)/python -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_paths()["include"] + "/Python.h"))' || { echo "make setup: this Python has no Python.h; on Debian and Ubuntu: apt-get install python3-dev"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check $(BUILD_TOOLS)
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps $(PARITY_ALONE)
	@if command -v npm >/dev/null; then \
		npm install --prefix $(NPM_FOLDER) --no-audit --no-fund --ignore-scripts $(NPM_TOOLS) \
			|| echo "make setup: npm could not install its packages: tests that compare with TensorFlow.js cannot run"; \
	else \
		echo "make setup: npm is not on PATH: the held-out judge cannot be fetched without it (install Node.js)"; \
	fi
	@touch $@ $(VENV)/.native

# the install above has built them already; after that, only where a source is newer
$(VENV)/.native: $(NATIVE_SOURCES) | $(VENV)/.setup
	@if [ -f $@ ] && [ -z "$$(find $^ -newer $@)" ]; then exit 0; fi; $(INSTALL_NATIVE)
