# A virtual environment of its own, so that nothing else on the machine changes.
PYTHON ?= python3
# On a machine with a GPU, take the build that fits it: make install TORCH='torch --index-url ...'
TORCH ?= torch==2.13.0
DEMO ?= runs/demo
BIN := .venv/bin

.PHONY: install demo comparison test test-versions test-vllm lint

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,test,dev]'
	touch $@

demo: install
	$(BIN)/python scripts/train.py configuration/train/demo.yaml --output_dir $(DEMO)
	$(BIN)/python scripts/generate.py $(DEMO) "Once upon a time" --temperature 0.5 --max_new_tokens 400 > $(DEMO)/story.txt
	cat $(DEMO)/story.txt
	$(BIN)/python scripts/inspect_memories.py $(DEMO) --file $(DEMO)/story.txt --output $(DEMO)/memories.html

# An hour and a half of training on two cores, and a quarter of an hour of measuring; resumes if it was stopped.
comparison: export OMP_NUM_THREADS = 1
comparison: install
	$(BIN)/torchrun --nproc-per-node 2 scripts/reproduce.py comparison/small
	for depth in 1 2 4; do $(BIN)/python scripts/evaluate.py --recipe small-$$depth || exit; done
	$(BIN)/torchrun --nproc-per-node 2 scripts/reproduce.py attention_maps/small

# One thread each, as the workers share the cores.
test: install
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto

# The model on the oldest release of transformers that setup.cfg promises, on the serving engines', and on the newest.
test-versions:
	PYTHON=$(PYTHON) TORCH='$(TORCH)' scripts/test_versions.sh .venv-versions

# The plugin for vLLM, against its build for CPUs, in an environment of its own.
test-vllm:
	PYTHON=$(PYTHON) TORCH='$(TORCH)' scripts/test_vllm.sh .venv-vllm

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mlinter --no-cache --no-progress modeling_mosaic
