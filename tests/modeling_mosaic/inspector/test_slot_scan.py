"""Slots over many texts: sums over records of each text, and the heaviest of all contexts."""

import pytest
import torch

from modeling_mosaic import MosaicModel, SlotStatistics, record_memories, scan_slots
from modeling_mosaic.inspector import slot_scan, slots

LENGTHS = (9, 0, 1, 23, 4)


@pytest.fixture
def texts(random_tokens):
    tokens = iter(random_tokens(sum(LENGTHS), vocab_size=61).tolist())
    return [[next(tokens) for _ in range(length)] for length in LENGTHS]


@pytest.mark.parametrize("banks", [1, 2])
def test_sums_over_texts(make_model, texts, banks, monkeypatch):
    """Pieces of 10 tokens are texts of their own; blocks of queries change nothing."""
    model = make_model(num_persistent_banks=banks).train()
    monkeypatch.setattr(slots, "NUM_SCORES", 3 * 4 * 20 * banks)
    found = scan_slots(model, None, iter(texts), max_tokens=10, num_contexts=3)
    assert model.training and (found.num_texts, found.num_tokens) == (4, sum(LENGTHS))
    pieces = [text[first : first + 10] for text in texts for first in range(0, len(text), 10)]
    records = [record_memories(model, None, piece, ablate=False) for piece in pieces]
    for name in ("use", "shift"):
        sums = sum(record.tensors[f"persistent.slot_{name}"] * record.num_tokens for record in records)
        torch.testing.assert_close(found.tensors[name], sums / sum(LENGTHS))
    torch.testing.assert_close(found.tensors["length"], records[0].tensors["persistent.slot_length"])
    torch.testing.assert_close(
        found.tensors["most_used"], found.tensors["use"].topk(min(64, 20 * banks)).indices
    )
    # Each slot's heaviest contexts are the heaviest of those that records of all pieces name.
    for layer, unit, one in ((0, 1, found.slots(0, 1)[0]), (1, 3, found.slots(1, 3)[5])):
        callers = []
        for piece, record in zip(pieces, records, strict=True):
            place = record.tensors["persistent.slot_most_used"][layer, unit].tolist().index(one.slot)
            tensors = (record.tensors[f"persistent.slot_{name}"] for name in ("callers", "caller_weights"))
            for t, weight in zip(*(tensor[layer, unit, place].tolist() for tensor in tensors), strict=True):
                words = [" ".join(f"[{i}]" for i in piece[max(0, t - 11) : t + 1])]
                callers.append((*words, "".join(f"[{i}]" for i in piece[t + 1 : t + 2]), weight))
        best = sorted(callers, key=lambda caller: -caller[2])[:3]
        assert [context[:2] for context in one.contexts] == [caller[:2] for caller in best]
        assert [context[2] for context in one.contexts] == pytest.approx([caller[2] for caller in best])


def test_tokens_are_those_of_a_record(make_model, texts):
    model = make_model()
    record = record_memories(model, None, texts[3], ablate=False)
    found = scan_slots(model, None, [texts[3]])
    for name in ("tokens", "token_logits", "most_used"):
        torch.testing.assert_close(found.tensors[name], record.tensors[f"persistent.slot_{name}"])
    assert found.model_fingerprint == record.model_fingerprint


def test_what_is_kept_does_not_grow(make_model, texts):
    """The scan's own tensors are as large after many texts as before, and texts come from a stream."""
    scan = slot_scan._Scan(make_model().eval(), 4)

    def size():
        return sum(value.nbytes for value in vars(scan).values() if isinstance(value, torch.Tensor))

    before = size()
    for text in texts * 3:
        scan.read(text, 8)
    assert size() == before and len(vars(scan)) == len(vars(slot_scan._Scan(scan.model, 4)))


def test_words_table_and_file(model, model_v2, tokenizer, tmp_path):
    found = scan_slots(model, tokenizer, ["Once upon a time", "", "a red ball"])
    one = found.slots(1, 2)[0]
    assert any(f"{before}{came}" in "Once upon a time a red ball" for before, came, _ in one.contexts)
    assert "speaks for «" in str(one) and "2 texts" in repr(found)
    rows = list(found.rows())
    assert len(rows) == 2 * 3 * 40 and rows[0]["slot"] == found.slots(0, 0)[0].slot
    path = tmp_path / "slots.safetensors"
    found.save(path)
    again = SlotStatistics.load(path)
    assert list(again.rows()) == rows and repr(again) == repr(found)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="slots.safetensors: not statistics of slots, or damaged"):
        SlotStatistics.load(path)
    record_memories(model, tokenizer, "a ball", ablate=False).save(path)
    with pytest.raises(ValueError, match="slots.safetensors: not statistics of slots of version"):
        SlotStatistics.load(path)
    for wrong, message in (
        ({"texts": []}, "no token"),
        ({"tokenizer": None}, "tokenizer must be given"),
        ({"max_tokens": 0}, "at least 1, not 0, 4"),
        ({"model": model_v2}, "feed-forward and have no slots"),
    ):
        with pytest.raises(ValueError, match=message):
            scan_slots(**({"model": model, "tokenizer": tokenizer, "texts": ["a"]} | wrong))
    with pytest.raises(ValueError, match="must predict tokens"):
        scan_slots(MosaicModel(model.config), tokenizer, ["a"])
    with pytest.raises(ValueError, match="unit 3: the model has units 0 to 2"):
        found.slots(0, 3)
