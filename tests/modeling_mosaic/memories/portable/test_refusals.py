"""What memories refuse, and which models they fit."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from memory_texts import continue_after
from modeling_mosaic import MosaicMemory, merge, read_tokens
from modeling_mosaic.memories.reading import TokenisedText
from modeling_mosaic.model_fingerprint import fingerprint

ONE = TokenisedText("a", [1, 2, 3])
REFUSED = {
    "no texts": (lambda m, memory: read_tokens(m, []), "there is none to read"),
    "no tokens": (lambda m, memory: read_tokens(m, [TokenisedText("a", [])]), "'a' has no tokens"),
    "twice": (lambda m, memory: read_tokens(m, [ONE, ONE]), "'a' is there twice"),
    "held": (
        lambda m, memory: read_tokens(m, [replace(ONE, name="text 0")], after=memory),
        "'text 0' is there twice",
    ),
    "two after": (
        lambda m, memory: read_tokens(m, [ONE, replace(ONE, name="b")], after=memory),
        "only one text can follow, not 2",
    ),
    "unknown token": (lambda m, memory: read_tokens(m, [replace(ONE, ids=[1, 61])]), r"\[0, 61\), not 61"),
    "batch of none": (lambda m, memory: read_tokens(m, [ONE], batch_size=0), "batch_size must be at least 1"),
    "nothing to merge": (lambda m, memory: merge([]), "none to merge"),
    "itself": (lambda m, memory: memory + memory, "'text 0' is in more than one of the memories"),
    "no source": (lambda m, memory: memory.forget(), "source must name one of the texts"),
    "unknown source": (lambda m, memory: memory.keep("b"), "'b' is not in this memory, which holds"),
    "span of two": (lambda m, memory: memory.forget(span=(0, 1)), "source must name one"),
    "span outside": (lambda m, memory: memory.forget("text 0", span=(90, 99)), "no token of 'text 0' lies"),
    "span backwards": (lambda m, memory: memory.forget("text 0", span=(3, 3)), r"not \(3, 3\)"),
    "unknown span": (
        lambda m, memory: read_tokens(m, [ONE]).forget(span=(0, 1)),
        "did not tell where the tokens are",
    ),
    "unknown pair": (lambda m, memory: memory.forget(pairs=[99]), "no such pair among 7"),
    "pairs of a source": (lambda m, memory: memory.keep("text 0", pairs=[1]), "together with source or span"),
    "same name": (lambda m, memory: memory.rename("text 0", "text 1"), "different names"),
    "bound of 0": (lambda m, memory: memory.compress(0, "recent"), "at least 1, not 0"),
    "unknown policy": (lambda m, memory: memory.compress(2, "fifo"), "policy must be one of recent"),
    "policy of weights": (lambda m, memory: memory.compress(2, "h2o"), "'h2o' needs the weights of queries"),
    "NaN": (lambda m, memory: replace(memory, keys=memory.keys / 0), "keys of this memory are NaN"),
    "infinite state": (
        lambda m, memory: replace(memory, states=tuple(state / 0 for state in memory.states)),
        r"states\.\w+_average of this memory are NaN or infinite",
    ),
    "other window": (
        lambda m, memory: replace(memory, window=memory.window._replace(pairs=memory.window.pairs + 9)),
        "window.pairs must be numbers of the 7 pairs",
    ),
    "other model": (lambda m, memory: replace(memory, model_type="llama"), "mosaic, mosaic_v2, not 'llama'"),
    "no beginning": (lambda m, memory: replace(memory, beginning_id=None), "beginning_id must be"),
    "other shape": (
        lambda m, memory: replace(memory, values=memory.values[:1]),
        r"values must have shape \(2, 4, 7, 8\), not \(1, 4, 7, 8\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input(model, take, case):
    act, message = REFUSED[case]
    memory, _ = take(5, 4)
    if case == "other window" and not memory.layout.window:
        pytest.skip("the first model has none")
    with pytest.raises(ValueError, match=message):
        act(model, memory)


def test_other_kinds_of_models(make_v2):
    """A model whose short-term memory is all it has leaves nothing to carry on."""
    with pytest.raises(ValueError, match="use_long_memory is False: .* its latest 7 pairs"):
        read_tokens(make_v2(use_long_memory=False), [ONE])
    with pytest.raises(ValueError, match="config must be a Memory Mosaic's, not gpt2's"):
        read_tokens(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)), [ONE])


def test_models_without_a_beginning(make_model, take):
    model = make_model(bos_token_id=None)
    memory, _ = take(5, 4, model=model)
    assert memory.beginning is None
    kept = memory.forget("text 0")
    with pytest.raises(ValueError, match="neither bos_token_id nor eos_token_id"):
        kept.forget("text 1")
    # Not in the vocabulary, as the default is not in a small one.
    model.config.eos_token_id = 50256
    assert take(5, model=model)[0].beginning is None
    model.config.eos_token_id = [7, 8]
    assert take(5, model=model)[0].beginning_id == 7


def test_memories_of_other_models(kind, make_model, model, take, tmp_path):
    memory, _ = take(5)
    memory.save(tmp_path / "memory")
    trained = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
    trained(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    optimizer.step()
    # The same parameters; other pairs were seen, or keys were other ones.
    fields = {"mosaic": dict(layer_norm_eps=1e-3), "mosaic_v2": dict(long_memory_delay=2)}[kind]
    others = trained, make_model(num_hidden_layers=3), make_model(num_attention_heads=2), make_model(**fields)
    for other in others:
        with pytest.raises(ValueError, match="read by another model"):
            MosaicMemory.load(tmp_path / "memory", other)
        with pytest.raises(ValueError, match="read by another model"):
            read_tokens(other, [ONE], after=memory)
        with pytest.raises(ValueError, match="different models cannot be merged"):
            merge([memory, read_tokens(other, [ONE])])


def test_every_parameter_tells_models_apart(model):
    for name, parameter in model.model.named_parameters():
        before = fingerprint(model)
        with torch.no_grad():
            parameter.flatten()[-1] += 1
        assert fingerprint(model) != before, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_another_precision_is_the_same(model, take, tmp_path, dtype):
    # bfloat16 rounds float32, as models are saved.
    model = model.float()
    memory, (ids,) = take(20, model=model)
    other = copy.deepcopy(model).to(dtype)
    assert fingerprint(other) == fingerprint(copy.deepcopy(other).double()) == fingerprint(model)
    assert fingerprint(model.model) == fingerprint(model)
    memory.save(tmp_path / "memory")
    moved = MosaicMemory.load(tmp_path / "memory", other)
    assert moved.keys.dtype == dtype and moved.states[0].dtype == torch.float32
    logits = continue_after(other, moved, [5, 6, 7])
    whole = model(torch.tensor([[*ids, 5, 6, 7]])).logits[0, 20:]
    torch.testing.assert_close(logits.float(), whole, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.15)
