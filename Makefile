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
.PHONY: help setup demo test test-core test-browser bench evaluate pictures train lint clean

help: ## Show the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s%s\n", $$1, $$2}'

setup: ## Make .venv, .host/ComfyUI and .host/base (every other verb does it too)
	@$(PYTHON) .ci/setup.py

demo: setup ## Text to video on the real host; PROMPT="a red ball bouncing on grass" SEED=7 OUT=clip.mp4, HD=1 for 256x256
	@$(VENV_PYTHON) nodes/demo.py

test: setup ## Lint and every test that needs no accelerator; ARGS="-k name" narrows it
	$(VENV_PYTHON) -m ruff check .
	LUMIERE_REQUIRE_HOST=1 $(VENV_PYTHON) -m pytest tests/core tests/nodes tests/workflows $(ARGS)

test-core: setup ## Only the tests that need no host
	$(VENV_PYTHON) -m pytest tests/core $(ARGS)

test-browser: ## The tests in a real Chromium: LUMIERE_CHROMIUM, else one is downloaded
	@$(PYTHON) .ci/setup.py --browser
	LUMIERE_REQUIRE_HOST=1 $(VENV_PYTHON) -m pytest tests/browser $(ARGS)

bench: setup ## Measure speed and memory against their bars; ARGS="--only flops"
	$(VENV_PYTHON) tests/benchmarks/run.py $(ARGS)

evaluate: setup ## Measure the shipped weights against the procedural world's oracle
	$(VENV_PYTHON) -m lumiere_core evaluate $(or $(ARGS),mini)

pictures: setup ## Run the templates and draw their pictures anew; ARGS="text_to_video" for some
	@$(VENV_PYTHON) nodes/pictures.py $(ARGS)

# Four phases, each on the one before; the same command goes on where it stopped. More options for a phase, such as
# `--device cuda --batch-size 64`: TEXT_ARGS, IMAGE_ARGS, TEMPORAL_ARGS, CONDITION_ARGS (`python -m lumiere_core train -h`).
# Super-resolution and styles: lumiere_core/recipes/README.md.
RUN ?= runs/mini
RECIPE ?= lumiere_core/recipes/mini-cpu.json
train_phase = $(VENV_PYTHON) -m lumiere_core train $(1) --config $(RECIPE) --output $(RUN)/$(1) \
	$(if $(wildcard $(RUN)/$(1)/state.safetensors),--resume)

train: setup ## Train lumiere-mini again, in runs/mini (days on a CPU; the same command goes on)
	$(call train_phase,text) $(TEXT_ARGS)
	$(call train_phase,image) --text $(RUN)/text/text.safetensors $(IMAGE_ARGS)
	$(call train_phase,temporal) --text $(RUN)/text/text.safetensors --image $(RUN)/image/image.safetensors $(TEMPORAL_ARGS)
	$(call train_phase,condition) --text $(RUN)/text/text.safetensors --image $(RUN)/image/image.safetensors \
	  --init-from $(RUN)/temporal/temporal.safetensors $(CONDITION_ARGS)

lint: setup ## Lint and layout
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

clean: ## Remove what the set-up made; models and outputs in .host/base and output/ stay
	rm -rf .venv .host/ComfyUI .host/ComfyUI.partial .host/downloads .host/tools .host/host.stamp .pytest_cache .ruff_cache
