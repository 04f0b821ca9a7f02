"""Reading, emptying, compressing, and what a memory shows of itself."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import AutoTokenizer

from memory_texts import continue_after, draw_text, list_tensors
from modeling_mosaic import MosaicForCausalLM, read, read_tokens
from modeling_mosaic.memories import reading
from modeling_mosaic.memories.reading import TokenisedText
from modeling_mosaic.memories.tokens import BEGINNING, NO_TOKEN, SOURCE

BOS = 0


def test_reading_in_batches_and_chunks_changes_nothing(model, take, monkeypatch):
    lengths = (40, 3, 1, 25)
    whole, texts = take(*lengths, batch_size=1)
    monkeypatch.setattr(reading, "CHUNK_SIZE", 16)
    memory, _ = take(*lengths, batch_size=3)
    for found, expected in zip(list_tensors(memory), list_tensors(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    alone = read_tokens(model, [TokenisedText("alone", texts[-1])])
    for found, expected in zip(memory.states, alone.states, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert len(memory) == sum(map(len, texts)) - 4


def test_reading_leaves_the_model_as_it_was(make_model):
    model = make_model(attention_dropout=0.5, hidden_dropout=0.5).train()
    text = draw_text(Random(0), "a", 12)
    memory = read_tokens(model, [text])
    assert model.training
    torch.testing.assert_close(memory.keys, read_tokens(model.eval(), [text]).keys)


def test_places_lead_back_to_the_text(demo):
    model = MosaicForCausalLM.from_pretrained("runs/demo")
    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    texts = {"story": "Once upon a time", "other": "there was a story."}
    memory = read(model, tokenizer, texts)
    for name, text in texts.items():
        ids = tokenizer(text)["input_ids"]
        part = memory.keep(name)
        assert len(part) == len(ids) - 1
        for pair in range(len(part)):
            own, following = part.where(pair)
            assert (own.number, following.number) == (pair, pair + 1)
            assert part.sources[own.source] == part.sources[following.source] == name
            assert tokenizer.decode(own.id) == text[own.start : own.end]
            assert tokenizer.decode(following.id) == text[following.start : following.end]
    end = len("there was")
    without = memory.forget("other", span=(6, 9))
    words = ["there", " was", " a"]
    spans = [[(t.start, t.end) for t in without.where(pair)] for pair in range(len(without))]
    assert all(not (start < 9 and stop > 6) for pair in spans[-3:] for start, stop in pair), (words, end)
    ids = tokenizer(texts["story"])["input_ids"]
    assert read(model, tokenizer, texts["story"]).sources[0].startswith("text-")
    assert read(model, tokenizer, list(texts.values())).tokens[:, :, SOURCE].max() == 1
    assert len(read_tokens(model, [TokenisedText("a", ids)])) == len(ids) - 1


def test_emptied_memories_continue_as_if_only_the_beginning_had_been_read(model, take):
    memory, _ = take(8, 9)
    emptied = memory.forget("text 0").forget("text 1")
    assert (len(emptied), emptied.sources) == (0, ())
    begun = read_tokens(model, [TokenisedText("a", [BOS])])
    for other in (begun, begun.forget("a"), memory.forget(pairs=slice(None)).end_text()):
        logits, expected = (continue_after(model, each, [5, 6, 7]) for each in (other, emptied))
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert emptied.tokens.tolist() == [[[BEGINNING, 0, -1, -1, BOS], list(NO_TOKEN)]]
    assert len(read_tokens(model, [draw_text(Random(0), "a", 3)], after=emptied)) == 3


def test_compressing_keeps_recent_pairs_or_unusual_keys(model, take):
    memory, _ = take(14, 9)
    recent = memory.compress(8, "recent")
    assert torch.equal(recent.keys, memory.keys[:, :, -8:])
    units = torch.nn.functional.normalize(memory.keys, dim=-1)
    likeness = torch.nn.functional.cosine_similarity(units, units.mean(2, keepdim=True), dim=-1)
    rank = likeness.flatten(0, 1).argsort(1).argsort(1).double().mean(0)
    kept = rank.argsort()[:6].sort().values
    unusual = memory.compress(6, "keydiff")
    assert torch.equal(unusual.keys, memory.keys[:, :, kept])
    assert torch.equal(unusual.tokens[:-1], memory.tokens[kept])
    assert memory.compress(len(memory), "keydiff") is memory
    both = memory.compress(6, "keydiff_recent")
    kept = torch.cat([rank[:-3].argsort()[:3].sort().values, torch.arange(len(memory) - 3, len(memory))])
    assert torch.equal(both.tokens[:-1], memory.tokens[kept])
    # What a short-term memory holds does not count, and stays.
    kept = replace(memory.keep(pairs=kept), window=both.window)
    logits, expected = (continue_after(model, each, [5]) for each in (both, kept))
    torch.testing.assert_close(logits, expected)
    assert torch.equal(both.window.keys, memory.window.keys)


def test_repr_and_sums(take):
    memory, _ = take(5, 4)
    assert len(memory) == 7
    shown = repr(memory)
    assert "7 pairs in 2 layers x 4 units of 8; {'text 0': 4, 'text 1': 3}; continues 'text 1'" in shown
    assert "continues a new text" in repr(memory.end_text())
    # Of a text of one token no pair is left, unless it goes on.
    assert take(5, 1, 4)[0].sources == ("text 0", "text 2")
    assert take(5, 1)[0].sources == ("text 0", "text 1")
    assert take(5, 1)[0].end_text().sources == ("text 0",)
    both = memory.keep("text 0") + memory.keep("text 1").rename("text 1", "other")
    assert both.sources == ("text 0", "other")
    with pytest.raises(TypeError):
        memory + 1
