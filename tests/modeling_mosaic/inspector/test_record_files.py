"""Records as files and as texts: what is kept, what is said, what is refused."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from modeling_mosaic import MemoryEdit, MemoryRecord, MosaicModel, record_memories
from modeling_mosaic.inspector.record import FORMAT_VERSION


def test_remote_code(make, text, tmp_path):
    model = make(num_hidden_layers=1)
    model.save_pretrained(tmp_path)
    remote_class = get_class_from_dynamic_module(model.config.auto_map["AutoModelForCausalLM"], str(tmp_path))
    remote = remote_class.from_pretrained(tmp_path)
    assert type(remote).__module__.startswith("transformers_modules")
    records = [record_memories(either, None, text, ablate=False) for either in (model, remote)]
    for name, tensor in records[0].tensors.items():
        torch.testing.assert_close(records[1].tensors[name], tensor, equal_nan=True, msg=name)
    assert records[0].model_fingerprint == records[1].model_fingerprint
    with MemoryEdit().delete(pairs=[3]).applied(remote), torch.no_grad():
        edited = remote(torch.tensor([text])).logits
    with MemoryEdit().delete(pairs=[3]).applied(model), torch.no_grad():
        torch.testing.assert_close(model(torch.tensor([text])).logits, edited)


def test_file(make, text, tmp_path):
    record = record_memories(make(), None, text, ablate=False)
    path = tmp_path / "text.safetensors"
    record.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["text.safetensors"]
    again = MemoryRecord.load(path)
    assert set(again.tensors) == set(record.tensors)
    for name, tensor in record.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, equal_nan=True, rtol=0, atol=0)
    for name in (
        "tokens",
        "offsets",
        "text",
        "config",
        "self_check",
        "model_fingerprint",
        "vocabulary",
        "sources",
        "kinds",
        "num_persistent_units",
    ):
        assert getattr(again, name) == getattr(record, name)
    assert str(again.explain(1, 2, 20)) == str(record.explain(1, 2, 20))
    again.save(path)
    complete = path.read_bytes()
    for size in (0, 4, 100, len(complete) - 1):
        path.write_bytes(complete[:size])
        with pytest.raises(ValueError, match="text.safetensors: not a record"):
            MemoryRecord.load(path)
    for metadata, message in (
        (None, "another safetensors file"),
        ({"format": "memory-mosaics-record", "version": "0"}, f"version 0, not {FORMAT_VERSION}"),
        ({"format": "memory-mosaics-record", "version": FORMAT_VERSION, "tokens": "[]"}, "a damaged record"),
    ):
        save_file({"x": torch.zeros(1)}, path, metadata)
        with pytest.raises(ValueError, match=message):
            MemoryRecord.load(path)
    with pytest.raises(OSError):
        MemoryRecord.load(tmp_path / "missing.safetensors")


@pytest.fixture
def tokenizer():
    """Bytes, and a word: characters fall into several tokens."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(["cat cat"], 300, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>")


def test_texts(make_model, tokenizer):
    model = make_model(vocab_size=320)
    text = "A cat 😀 sat — <|endoftext|>כלב</script>"
    record = record_memories(model, tokenizer, text)
    assert record.text == text and len(record.tokens) == len(record.tensors["token_ids"])
    for (start, end), token in zip(record.offsets, record.tokens, strict=True):
        assert token == text[start:end] or token.endswith("\N{REPLACEMENT CHARACTER}")
    again = record_memories(model, tokenizer, record.tensors["token_ids"].tolist())
    assert (again.text, again.offsets, again.tokens) == (text, record.offsets, record.tokens)
    pair = record.explain(0, 0, len(record.tokens) - 2).pairs[0]
    assert (
        pair.after.endswith(text[: record.offsets[pair.pair][1]][-5:])
        and pair.came == record.tokens[pair.pair + 1]
    )
    # A character that is cut off at the end.
    cut = record_memories(model, tokenizer, tokenizer("😀")["input_ids"][:2])
    assert cut.num_tokens == 2 and "\N{REPLACEMENT CHARACTER}" in cut.text
    one = record_memories(model, tokenizer, "A")
    assert one.num_tokens == 1 and one.tensors["contextual.values"].shape == (2, 4, 0, 8)
    assert all(one.measure(name).isnan().all() for name in ("error", "age", "ablation_cost"))
    assert one.explain(0, 0, 0).pairs == [] and "too short" in one.sentence(0, 0)
    two = record_memories(model, tokenizer, "Ab")
    assert two.measure("age")[:, :, 1].eq(1).all() and two.explain(0, 0, 1).pairs[0].weight == 1


def test_texts_too_short_for_a_memory(make_v2, text):
    """The long-term memory holds pairs from 3 tokens ago on."""
    for time in (1, 2, 3, 4, 5):
        record = record_memories(make_v2(), None, text[:time])
        assert max(record.self_check.values()) < 1e-5
        for unit, kind in enumerate(record.kinds):
            queries = list(range(kind.youngest, time))
            assert record.measure("age")[1, unit].isfinite().nonzero()[:, 0].tolist() == queries
            assert record.measure("error")[1, unit].isfinite().nonzero()[:, 0].tolist() == queries[:-1]
            explained = record.explain(1, unit, time - 1)
            assert [pair.pair for pair in explained.pairs] == [] or time > kind.youngest
            assert str(explained) and record.sentence(1, unit)
    assert "too short" not in record.sentence(1, 7)


def test_words(make_model, text):
    record = record_memories(make_model(), None, text)
    assert "nats a token" in record.sentence(0, 1)
    explanation = str(record.explain(1, 2, 20))
    first = record.explain(1, 2, 20).pairs[0]
    assert f"[{text[first.pair]}]» came «[{text[first.pair + 1]}]»" in explanation
    assert "of the answer" in explanation and json.dumps(record.config)


def test_what_cannot_be_recorded_is_refused(make_model, make_config):
    model = make_model()
    for text, message in (([], "1 to 8 tokens .*, not 0"), ([1] * 9, "1 to 8 tokens .*, not 9")):
        with pytest.raises(ValueError, match=message):
            record_memories(model, None, text, max_tokens=8)
    with pytest.raises(ValueError, match="tokenizer must be given"):
        record_memories(model, None, "text")
    with pytest.raises(ValueError, match="MosaicForCausalLM.*unlike MosaicModel"):
        record_memories(MosaicModel(make_config()), None, [1])
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ValueError, match="must be a Memory Mosaic"):
        record_memories(other, None, [1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_bounded():
    """A record takes less memory above the model than one layer's weights would."""
    code = """
import resource, torch
from modeling_mosaic import MosaicConfig, MosaicForCausalLM, record_memories
torch.manual_seed(0)
config = MosaicConfig(vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=8)
model = MosaicForCausalLM(config).eval()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
record_memories(model, None, torch.randint(2000, (64,)), ablate=False)
before = peak()
record_memories(model, None, torch.randint(2000, (4096,)), ablate=False)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kibibytes = int(done.stdout)
    assert kibibytes < 8 * 4096**2 * 4 / 1024


def test_examples_of_the_docs(run_examples, capsys):
    names = run_examples("docs/inspector.md", "## Record a text")
    assert "of the answer" in capsys.readouterr().out
    run_examples("docs/inspector.md", "## Persistent slots")
    assert "3 texts" in capsys.readouterr().out
    run_examples("docs/inspector.md", "## Change memories while the model runs", **names)
    assert "Once upon a time there was a" in capsys.readouterr().out
