# Every command of the project. `make` alone prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUBS ?= .
OIP := server/edge/oip/stubs

# Three files of tests at a time for two cores, because tests wait for processes; those of one file share what it has made.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
QUICK := tests/server/runtime tests/server/streams tests/server/durability tests/server/edge \
	tests/server/test_random_schedules.py tests/tidegate/protocol tests/stepgraph/cells tests/stepgraph/file \
	tests/stepgraph/proving tests/stepgraph/reading tests/stepgraph/rules

export ORT_DISABLE_TELEMETRY = 1

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", "make " $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@echo "setting up $(VENV) (once; half a gigabyte to download with the small build of torch, see README.md)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(READY) ## train, export, serve and stream: watch the gates open and close (about a minute)
	@$(BIN)/python -m demo

test: $(READY) ## every test but those that need a container engine or a download
	$(BIN)/python -m pytest $(PARALLEL)

test-quick: $(READY) ## the pure core, where no test starts a process (under a minute)
	$(BIN)/python -m pytest $(PARALLEL) --no-process $(QUICK)

test-compose: $(READY) ## build, run and stop the containers (needs a Docker engine; two to four minutes)
	$(BIN)/python -m pytest tests/compose

test-clients: $(READY) ## clients in other languages, h2load and Triton's perf_analyzer, on each transport (node, npm, h2load, apt; Go and C++ say what they need)
	$(BIN)/python -m pytest tests/clients

test-real: $(READY) ## serve models that others published (downloads some 100 MB the first time)
	$(BIN)/python -m pytest tests/real

test-recipes: $(READY) ## train every recipe as it stands to the figure of its docstring; writes docs/recipes.md (half an hour)
	rm -rf .recipes
	$(BIN)/python -m pytest -o faulthandler_timeout=0 tests/recipes # a recipe may take more than five minutes

hold: $(READY) ## an hour of kills, floods and fuzzed messages, every answer compared (HOLD_MINUTES=60)
	$(BIN)/python -m tests.hold

fuzz: $(READY) ## an hour of bytes that are guided by what the code does with them (FUZZ_MINUTES=60)
	$(BIN)/python -m tests.fuzz

soak: $(READY) ## an hour of 500 sequences that come, die and are resumed; nothing may be left of them (SOAK_MINUTES=60)
	$(BIN)/python -m tests.soak

check: $(READY) ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

proto: $(READY) ## generate the stubs in tidegate/v1 and server/edge/oip/stubs from proto/
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=$(STUBS) --pyi_out=$(STUBS) proto/tidegate/v1/*.proto
	@$(BIN)/python -m grpc_tools.protoc -I proto --grpc_python_out=$(STUBS) \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(STUBS) \
		proto/tidegate/v1/admin.proto proto/tidegate/v1/tidegate.proto
	@mkdir -p $(STUBS)/$(OIP)
	@$(BIN)/python -m grpc_tools.protoc -I proto/inference --python_out=$(STUBS)/$(OIP) --pyi_out=$(STUBS)/$(OIP) \
		proto/inference/*.proto
	@sed -i 's/^import model_config_pb2/from server.edge.oip.stubs import model_config_pb2/' $(STUBS)/$(OIP)/grpc_service_pb2.py*

serve: $(READY) ## serve models/ on port 50051
	$(BIN)/python -m server

bench: $(READY) ## what is claimed about speed, as ratios in one run (40 minutes; `python -m bench --quick` 2); how long a bystander waits during attacks
	$(BIN)/python -m bench $(if $(BESIDE),--beside $(BESIDE))
	$(BIN)/python -m bench.stalls

clean: ## remove what the other commands made
	rm -rf $(VENV) build dist runs .recipes .demo .bench .real .hold .fuzz .soak .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test test-quick test-compose test-clients test-real test-recipes hold fuzz soak check proto serve bench clean
