# A virtual environment of its own, so that nothing else on the machine changes.
PYTHON ?= python3
# On a machine with a GPU, take the build that fits it: make install TORCH='torch --index-url ...'
TORCH ?= torch==2.13.0
DEMO ?= runs/demo
# What `make comparison` trains on, and another text that it measures on: these where they lie there.
STORIES ?= $(firstword $(wildcard ../shared/data/tinystories) stories)
OTHER_TEXT ?= $(wildcard ../shared/data/wikitext2/test.txt)
COMPARISON := runs/comparison/small
BIN := .venv/bin

.PHONY: install demo comparison test lint

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,test,dev]'
	touch $@

demo: install
	$(BIN)/python scripts/train.py configuration/train/demo.yaml --output_dir $(DEMO)
	$(BIN)/python scripts/generate.py $(DEMO) "Once upon a time" --temperature 0.5 --max_new_tokens 400

# An hour of training on two cores, one thread for each run, and a quarter of an hour of measuring.
comparison: export OMP_NUM_THREADS = 1
comparison: DATA = --dataset $(STORIES) --num_stories 4000 --validation_fraction 0.05
comparison: install
	$(BIN)/torchrun --nproc-per-node 2 scripts/run_comparison.py configuration/comparison/small.yaml --dataset $(STORIES)
	for depth in 1 2 4; do $(BIN)/python scripts/evaluate.py $(COMPARISON)/gpt2-$$depth-seed? \
	    $(COMPARISON)/[!g]*-$$depth-seed? $(DATA) $(if $(OTHER_TEXT),--other_text $(OTHER_TEXT)) \
	    --num_rows 400 --num_documents 400 --output_dir $(COMPARISON)/evaluation-$$depth || exit; done
	$(BIN)/torchrun --nproc-per-node 2 scripts/run_attention_maps.py $(COMPARISON)/*-1-seed? $(DATA) \
	    --num_sequences 500 --output_dir $(COMPARISON)/maps

# One thread each, as the workers share the cores.
test: install
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
