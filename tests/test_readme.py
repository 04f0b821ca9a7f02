"""The README's examples run, one after the other, as they stand there."""

import re

import pytest
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
    MosaicForCausalLM(config).save_pretrained(tmp_path / "runs" / "demo")
    tokenizer.save_pretrained(tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples(demo, request, capsys):
    text = (request.config.rootpath / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == 3
    names = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    assert "Once upon a time" in capsys.readouterr().out
    assert (demo / "runs" / "cats" / "model.safetensors").exists()
    losses = [entry["train_loss"] for entry in names["trainer"].state.log_history if "train_loss" in entry]
    assert 0 < losses[-1] < 6


def test_tables_name_what_exists(request):
    """Every class, function and file that the README names is there."""
    root = request.config.rootpath
    text = (root / "README.md").read_text()
    sources = "".join(path.read_text() for path in (root / "modeling_mosaic").glob("*.py"))
    for name in re.findall(r"`(Mosaic\w+|leaky_average\w*|create_\w+|eager_\w+)`", text):
        assert f"class {name}" in sources or f"def {name}" in sources, name
    for path in re.findall(r"`((?:modeling_mosaic|scripts|tests|configuration)/[\w./]+)`", text):
        assert (root / path).exists(), path
