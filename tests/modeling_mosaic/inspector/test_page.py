"""The page as a file: what goes in, how large it grows, and that no text of a record is markup."""

import base64
import gzip
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from modeling_mosaic.inspector import page as pages
from modeling_mosaic.inspector.page import ASSETS, page_html, write_page
from modeling_mosaic.inspector.record import MemoryRecord, record_memories

from .conftest import HOSTILE


def packs_of(text, place=0):
    """Arrays of a page's packs, by pack."""
    found = re.findall(rf'data-pack="{place}\.([^"]*)">([^<]*)<', text)
    return {name: load(gzip.decompress(base64.b64decode(pack))) for name, pack in found}


def test_small_records_are_there_whole(record):
    packs = packs_of(page_html(record))
    assert {name for name in packs if name.startswith("unit.")} == {
        f"unit.{layer}.{unit}" for layer in range(2) for unit in range(3)
    }
    assert "pairs" not in packs and "readout" in packs
    along = {name for name in record.measures if record.measure(name).shape[-1] == record.num_tokens}
    assert along <= set(packs)


def test_large_records_keep_to_the_bound(record, monkeypatch):
    for bound in (30_000, 100_000, 200_000, 400_000):
        monkeypatch.setattr(pages, "MAX_BYTES", bound)
        packs = packs_of(text := page_html(record))
        total = sum(map(len, re.findall(r'data-pack="[^"]*">([^<]*)<', text)))
        assert total <= bound or set(packs) == {"record"}


def test_named_units_and_no_others(record):
    packs = packs_of(page_html(record, units=[(1, 2)]))
    assert {name for name in packs if name.startswith("unit.")} == {"unit.1.2"} and "pairs" in packs
    with pytest.raises(ValueError, match=r"units: there is no unit \(2, 0\)"):
        page_html(record, units=[(2, 0)])


@pytest.mark.parametrize(("kind", "unit"), [("mosaic", 0), ("mosaic_v2", 0), ("mosaic_v2", 4)])
def test_effects_of_stored_pairs(record_of, kind, unit):
    """They are those of a unit that runs without the pair, in float64."""
    record = record_of(kind)
    pairs = packs_of(page_html(record, units=[]))["pairs"]
    names = ("keys", "values", "query_scale")
    keys, values, scale = (record.tensors[f"contextual.{name}"][1, unit].double() for name in names)
    for token in (1, 2, 30, record.num_tokens - 2):
        target, scores = values[token], scale[token] * keys[:token] @ keys[token]
        # In the second model h is 20, and m is 9.
        seen = torch.arange(token)
        if kind == "mosaic_v2":
            seen = seen[max(0, token - 20) :] if unit < 3 else seen[: max(0, token - 8)]
        scores[[pair for pair in range(token) if pair not in seen]] = -torch.inf
        error = (scores.softmax(0).nan_to_num(0) @ values[:token] - target).square().sum()
        assert (pairs["contextual.pair_index"][1, unit, token] >= 0).sum() == min(8, len(seen))
        for place, pair in enumerate(pairs["contextual.pair_index"][1, unit, token]):
            effect = pairs["contextual.pair_effect"][1, unit, token, place].item()
            if pair < 0:
                assert effect != effect
                continue
            others = scores.clone()
            others[pair] = -torch.inf
            answer = others.softmax(0).nan_to_num(0) @ values[:token]
            expected = ((answer - target).square().sum() - error) / target.square().sum()
            assert effect == pytest.approx(expected.item(), rel=2e-3, abs=1e-3)
    assert np.isnan(pairs["contextual.pair_effect"][1, unit, -1]).all()


@pytest.mark.parametrize(("length", "dtype"), [(1, "float16"), (4, "float32")])
def test_keys_are_as_precise_as_their_weights_need(record, length, dtype):
    tensors = dict(record.tensors) | {"contextual.keys": record.tensors["contextual.keys"] * length}
    longer = MemoryRecord(tensors, record._details)
    assert packs_of(page_html(longer, units=[(0, 0)]))["unit.0.0"]["contextual.keys"].dtype == dtype


def test_no_text_of_a_record_is_markup(model, tokenizer, tmp_path):
    hostile = record_memories(model, tokenizer, HOSTILE)
    plain = record_memories(model, tokenizer, "a cat")
    path = write_page(hostile, tmp_path / "new folder" / "page.html")
    frames = [re.sub(r'data-pack="[^"]*">[A-Za-z0-9+/=]*<', "<", page_html(one)) for one in (hostile, plain)]
    assert frames[0] == frames[1]
    assert [found.name for found in path.parent.iterdir()] == ["page.html"]


def test_scripts_are_short_and_ask_for_nothing():
    for path in ASSETS.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") < 300, path.name
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
        imported = re.findall(r'from "inspector/(\w+)"', text)
        assert all((ASSETS / f"{name}.js").exists() for name in imported)
