# The verbs of the pack. Every one does the set-up it needs by itself; see `make help`.
# COMFYUI_PATH=/path/to/ComfyUI make demo    uses that host and writes nothing into it.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  VENV_PYTHON := .venv/Scripts/python.exe
else
  VENV_PYTHON := .venv/bin/python
endif

# glibc gives big buffers back to the system at every step and asks for them again; keeping them makes an
# 80-frame forward about twice as fast (5.5 -> 2.4 s).
ifeq ($(shell uname -s 2>/dev/null),Linux)
  export MALLOC_MMAP_THRESHOLD_ := 8589934592
  export MALLOC_TRIM_THRESHOLD_ := 17179869184
  export MALLOC_TOP_PAD_ := 268435456
endif

# Given through the environment, so that quotes and apostrophes in a prompt arrive as typed.
export SEED OUT HD
ifeq ($(OS)$(origin PROMPT),Windows_NTenvironment)
  unexport PROMPT
else # not cmd.exe's own PROMPT
  export PROMPT
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-core test-browser bench gpu evaluate pictures locales train fuzz test-host lint clean

help: ## Show the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s%s\n", $$1, $$2}'

setup: ## Make .venv, .host/ComfyUI and .host/base (every other verb does it too)
	@$(PYTHON) .ci/setup.py

demo: setup ## Text to video on the real host; PROMPT="a red ball bouncing on grass" SEED=7 OUT=clip.mp4, HD=1 for 512x512
	@$(VENV_PYTHON) nodes/headless/demo.py

# Two processes, each with a host of its own; the tests of a file stay together. WORKERS=0 for one process.
WORKERS ?= 2
SHARED = -n $(WORKERS) --dist loadgroup
# Two processes with two threads each on two cores wait for one another.
ONE_THREAD := $(if $(filter 0,$(WORKERS)),,OMP_NUM_THREADS=1)

test: setup ## Lint and every test that needs no accelerator; ARGS="-k name" narrows it
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(ONE_THREAD) LUMIERE_REQUIRE_HOST=1 $(VENV_PYTHON) -m pytest $(SHARED) tests/core tests/nodes tests/workflows tests/robustness $(ARGS)

test-core: setup ## Only the tests that need no host
	$(VENV_PYTHON) -m pytest tests/core $(ARGS)

test-browser: ## The tests in a real Chromium: LUMIERE_CHROMIUM, else one is downloaded
	@$(PYTHON) .ci/setup.py --browser
	LUMIERE_REQUIRE_HOST=1 $(VENV_PYTHON) -m pytest tests/browser $(ARGS)

bench: setup ## Measure speed and memory against their bars; ARGS="--only flops"
	$(VENV_PYTHON) tests/benchmarks/run.py $(ARGS)

# On a bare machine: no set-up, no network; .gpu/ holds what `tests/gpu/pack.py` gathered for it.
PLAN ?= bench
MINUTES ?= 9
gpu: ## Run a prepared plan on the GPU at hand; PLAN=bench, nodes or train, MINUTES=9
	PYTHONPATH=.gpu/site:$$PYTHONPATH COMFYUI_PATH=$${COMFYUI_PATH:-$(wildcard .gpu/ComfyUI)} \
	  $(PYTHON) tests/gpu/gpu.py $(PLAN) --minutes $(MINUTES)

evaluate: setup ## Measure the shipped weights against the procedural world's oracle
	$(VENV_PYTHON) -m lumiere_core evaluate $(or $(ARGS),mini)

pictures: setup ## Run the templates and draw their pictures anew; ARGS="text_to_video" for some
	@$(VENV_PYTHON) nodes/headless/pictures.py $(ARGS)

locales: setup ## Write locales/en anew from the nodes' schemas
	@$(VENV_PYTHON) nodes/headless/locales.py

train: setup ## Train lumiere-mini again, in runs/mini (days on a CPU; the same command goes on); ARGS="--device cuda"
	$(VENV_PYTHON) -m lumiere_core train --recipe mini $(ARGS)

RUNS ?= 5000
fuzz: setup ## The robustness tests at length, hours; RUNS=5000 executions of nodes, a fifth of it damaged files, a 25th kills
	LUMIERE_REQUIRE_HOST=1 LUMIERE_FUZZ=$(RUNS) $(VENV_PYTHON) -m pytest tests/robustness -m "slow or not slow" $(ARGS)
	$(VENV_PYTHON) -c "import sys; sys.path.insert(0, 'tests/benchmarks'); import stored; stored.PAGE.write_text(stored.page(), 'utf-8')"

test-host: setup ## Every node once on another ComfyUI: HOST=path/to/ComfyUI; ARGS=tests/nodes for all of their tests
	LUMIERE_REQUIRE_HOST=1 COMFYUI_PATH="$(HOST)" $(VENV_PYTHON) -m pytest $(or $(ARGS),tests/nodes/test_every_node.py)

lint: setup ## Lint and layout
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

clean: ## Remove what the set-up made; models and outputs in .host/base and output/ stay
	rm -rf .venv .host/ComfyUI .host/ComfyUI-0.27 .host/oldest.stamp .host/ComfyUI.partial .host/downloads .host/tools .host/host.stamp .pytest_cache .ruff_cache
