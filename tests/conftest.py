"""The examples of the README and of docs/, and the model that they take."""

import os
import re
import tempfile
from pathlib import Path

if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
    # A place of its own: torch would take code compiled for another width of vectors. Importing reads this.
    folder = Path(tempfile.gettempdir(), f"torchinductor_{os.getuid()}_{capability}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from modeling_mosaic import MosaicConfig, MosaicForCausalLM


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A small untrained model where `make demo` leaves its own."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(
        ["Once upon a time there was a story."], 300, special_tokens=["<|endoftext|>"]
    )
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token=end, bos_token=end)
    config = MosaicConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    torch.manual_seed(0)
    MosaicForCausalLM(config).save_pretrained(tmp_path / "runs" / "demo")
    tokenizer.save_pretrained(tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def examples(request):
    """The blocks in one language under a heading of a page of docs, and under headings below that one."""

    def find(page, heading, language="python"):
        text = (request.config.rootpath / page).read_text()
        _, _, section = text.partition(f"\n{heading}\n")
        level = heading.split()[0]
        section = re.split(rf"^#{{2,{len(level)}}} ", section, maxsplit=1, flags=re.MULTILINE)[0]
        blocks = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
        assert blocks, f"no examples under {heading!r} in {page}"
        return blocks

    return find


@pytest.fixture
def run_examples(examples, demo):
    """Runs the blocks under a heading, one after the other; returns the names that they leave behind."""

    def run(page, heading, **names):
        for block in examples(page, heading):
            exec(compile(block, f"{page} {heading}", "exec"), names)
        return names

    return run
