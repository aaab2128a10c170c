# Two commands do all the set-up on a machine that has Python 3.10 or newer, git and make:
#   make demo     inserts SimAM into the small detector in examples/ and verifies it against PyTorch
#   make test     lint, types and tests, the way CI runs them
#   make test-all all tests in parts of up to an hour; goes on where it was interrupted; PART=3/8 runs one part
#   make test-versions a few minutes of tests on other Pythons, with the lowest and the newest versions (in test-all)
#   make release  builds the source archive and the wheel, installs each, and runs the demo from them
#   make docs     the documentation as a site, in build/site/

VENV    := .venv
BIN     := $(VENV)/bin
PYTHON  ?= $(shell for p in python3.11 python3 python; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
PYTEST   = $(BIN)/python -m pytest --numprocesses=$(WORKERS)
INSTALL  = $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

EXAMPLE := examples/01_first_insertion/detector.onnx
RESULT  := build/demo/detector-simam.onnx

# An editable installation is compiled to bytecode by whoever runs it first, or again by every process.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-versions release lint docs bench clean

help:
	@echo "make demo | test | test-all | test-versions | release | lint | docs | bench | clean    (see the top)"

demo: $(VENV)/installed-demo
	@mkdir -p $(dir $(RESULT))
	$(BIN)/graphsurgery insert $(EXAMPLE) --module simam --after /model.8 --force -o $(RESULT)
	$(BIN)/graphsurgery verify $(RESULT)

test: lint
	$(PYTEST)

test-all: lint $(if $(PART),,test-versions)
	$(BIN)/python scripts/run_all_tests.py --workers $(WORKERS) $(if $(PART),--part $(PART))

test-versions: $(VENV)/installed-venv
	$(BIN)/python scripts/check_versions.py

release: $(VENV)/installed-venv
	$(BIN)/python scripts/check_release.py

lint: $(VENV)/installed-test $(VENV)/installed-parser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/typing/graphsurgery && ln -sfn ../../../patterns build/typing/graphsurgery/patterns
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/python -m mkdocs build --strict

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/insert_process.py
	$(BIN)/python benchmarks/verify_process.py
	$(BIN)/python benchmarks/latency.py

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache $(VENV)

# Each stamp marks a finished step, so that a second run starts at once. torch goes first and alone: pulled in by another
# package, pip may choose a newer build with gigabytes of CUDA libraries. It is the one large download: pip shows how far
# it is, and leaves it to the first import to compile what is used.
$(VENV)/installed-venv:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed-torch: $(VENV)/installed-venv constraints.txt
	$(subst -qq ,--no-compile ,$(INSTALL)) torch
	@touch $@

$(VENV)/installed-%: $(VENV)/installed-torch pyproject.toml
	$(INSTALL) --editable '.[$(EXTRAS_$*)]'
	@touch $@

# The site is made without PyTorch.
$(VENV)/installed-docs: $(VENV)/installed-venv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[docs]'
	@touch $@

# NVIDIA's parser (146 MB) is no part of the extra `test`: where it cannot be had, the tests that need it are skipped.
$(VENV)/installed-parser: $(VENV)/installed-test
	@$(INSTALL) --editable '.[parser]' || echo "NVIDIA's parser was not installed; its tests will be skipped" >&2
	@touch $@

EXTRAS_demo := cpu,torch
EXTRAS_test := test
