"""Searched memories: exact where nothing is left to estimate, close where the rest is estimated."""

import pytest
import torch
from torch.nn import functional as F
from transformers import DynamicCache

from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories import searched_cache
from modeling_mosaic.memories.searched_cache import GrowingRows, PairArchive, SearchedCache, neglected_bound

pytest.importorskip("faiss", reason="the extra `search` is not installed")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(searched_cache, "BLOCK_SIZE", 8)


@pytest.fixture
def memory():
    """Pairs of one unit around a few centres, and queries like the keys; all of the same lengths."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 8, generator=generator)
    key_ND = centres[torch.randint(20, (3000,), generator=generator)]
    key_ND = key_ND + 0.4 * torch.randn(3000, 8, generator=generator)
    value_ND = F.normalize(torch.randn(3000, 8, generator=generator) + key_ND, dim=-1)
    key_ND = 3 * F.normalize(key_ND, dim=-1)
    return key_ND[:2900], value_ND[:2900], key_ND[2900:]


def fill(memory, **options):
    key_ND, value_ND, query_TD = memory
    archive = PairArchive(
        **{"num_nearest": 32, "num_probes": 8, "min_pairs": 400, "tolerance": 0.05, **options}
    )
    for start in range(0, len(key_ND), 290):
        part = slice(start, start + 290)
        archive.add(key_ND[part], value_ND[part], query_TD)
    return archive


def exact(memory):
    key_ND, value_ND, query_TD = (states.double() for states in memory)
    score_TN = query_TD @ key_ND.T
    return score_TN.logsumexp(-1), score_TN.softmax(-1) @ value_ND


def test_all_pairs_found_is_exact(memory):
    archive = fill(memory, num_nearest=2900, num_probes=1000)
    for answer, expected in zip(archive.answer(memory[2], "search"), exact(memory), strict=True):
        torch.testing.assert_close(answer.double(), expected, rtol=1e-4, atol=1e-4)


def test_exact_mode_is_attention(memory):
    for answer, expected in zip(fill(memory).answer(memory[2], "exact"), exact(memory), strict=True):
        torch.testing.assert_close(answer.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["estimate", "search"])
def test_estimate_equals_its_definition(memory, mode):
    """Against a loop: the nearest pairs with their own weights, all others with the mean of their cluster."""
    archive = fill(memory)
    key_ND, value_ND, query_TD = (states.double() for states in memory)
    log_mass_T, mean_TD = archive.answer(memory[2], mode)
    found_TK = archive.search(memory[2])[1] if mode == "search" else torch.zeros(len(query_TD), 0).long()
    for number, (query, found) in enumerate(zip(query_TD[:5], found_TK, strict=False)):
        similarity_N = key_ND @ query
        similarity_N = similarity_N.clone()
        is_rest_N = torch.ones(len(key_ND), dtype=torch.bool)
        is_rest_N[found[found >= 0]] = False
        for cluster in archive.cluster.rows.unique():
            members = is_rest_N & (archive.cluster.rows == cluster)
            similarity_N[members] = similarity_N[members].mean()
        torch.testing.assert_close(
            log_mass_T[number].double(), similarity_N.logsumexp(0), rtol=1e-4, atol=1e-4
        )
        expected = similarity_N.softmax(0) @ value_ND
        torch.testing.assert_close(mean_TD[number].double(), expected, rtol=1e-3, atol=1e-3)


def test_searching_is_closer_than_estimating(memory):
    archive, (log_mass_T, mean_TD) = fill(memory), exact(memory)
    errors = {}
    for mode in ("estimate", "search"):
        their_mass_T, their_mean_TD = archive.answer(memory[2], mode)
        # The exponential is convex: the mass of the rest is never overestimated.
        assert (their_mass_T <= log_mass_T + 1e-4).all()
        errors[mode] = float((their_mean_TD - mean_TD).norm(dim=-1).mean())
    assert errors["search"] < 0.7 * errors["estimate"]


def test_mode_follows_the_tolerance(memory):
    assert fill(memory, tolerance=0.0).mode == "exact"
    archive = fill(memory, tolerance=10.0)
    assert archive.mode == "estimate" and archive.errors["search"] < archive.errors["estimate"]
    between = (archive.errors["search"] + archive.errors["estimate"]) / 2
    assert fill(memory, tolerance=between).mode == "search"
    flat = (0.01 * memory[0], memory[1], 0.01 * memory[2])
    assert fill(flat, tolerance=0.01).mode == "estimate"


@pytest.mark.parametrize("num_nearest", [1, 30, 2900])
def test_the_certificate_holds(memory, num_nearest):
    key_ND, value_ND, query_TD = (states.double() for states in memory)
    nearest = (query_TD @ key_ND.T).topk(num_nearest)
    answer_TD = (nearest.values.softmax(-1)[:, None] @ value_ND[nearest.indices])[:, 0]
    error_T = (answer_TD - exact(memory)[1]).norm(dim=-1)
    bound_T = neglected_bound(nearest.values, len(key_ND), value_norm=1.0)
    assert (error_T <= bound_T + 1e-12).all() and (bound_T <= 2).all()
    assert bool((bound_T == 0).all()) == (num_nearest == len(key_ND))


def test_the_reference_takes_the_nearest_pairs(memory):
    key_ND, value_ND, query_TD = memory
    log_mass_T, mean_TD = fill(memory).answer(query_TD, "nearest")
    nearest = (query_TD @ key_ND.T).topk(32)
    torch.testing.assert_close(log_mass_T, nearest.values.logsumexp(-1))
    expected = (nearest.values.softmax(-1)[:, None] @ value_ND[nearest.indices])[:, 0]
    torch.testing.assert_close(mean_TD, expected)


def test_growing_rows():
    rows, parts = GrowingRows(), torch.arange(50.0)[:, None].split([1, 4, 30, 0, 15])
    for part in parts:
        rows.append(part)
    assert torch.equal(rows.rows, torch.cat(parts)) and len(rows.storage) < 100


def read(model, tokens, mask, cache, parts):
    logits = []
    with torch.no_grad():
        for stop in range(parts, tokens.shape[1] + parts, parts):
            seen = None if mask is None else mask[:, :stop]
            part = tokens[:, stop - parts : stop]
            logits.append(model(part, attention_mask=seen, **{CACHE_NAME: cache}).logits)
    return torch.cat(logits, 1)


EXACTLY = {"tolerance": 0.0}
SEARCHED = {"tolerance": 1e-4, "num_nearest": 100, "num_probes": 100}


@pytest.mark.parametrize(
    ("kind", "parts", "options"),
    [
        *(("mosaic", parts, options) for parts in (1, 13, 90) for options in (EXACTLY, SEARCHED)),
        ("mosaic_v2", 1, EXACTLY),
        ("mosaic_v2", 13, SEARCHED),
    ],
)
def test_equals_the_dynamic_cache(make_model, random_tokens, parts, options):
    """Read exactly, or searched for all pairs, memories give plain logits: padded, in whatever parts."""
    model, tokens = make_model(), random_tokens(2, 90)
    mask = torch.ones_like(tokens)
    mask[0, :5] = mask[0, 40:43] = mask[1, :60] = 0
    for some_mask in (None, mask):
        cache = SearchedCache(model.config, min_pairs=20, **options)
        expected = read(model, tokens, some_mask, DynamicCache(config=model.config), 90)
        logits = read(model, tokens, some_mask, cache, parts)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
        if parts < 90:
            modes = {archive.mode for archive in cache.layers[0].archives[0]}
            assert modes == {"search" if options["tolerance"] else "exact"}


def test_generate(make_model, random_tokens):
    model, tokens = make_model(), random_tokens(2, 40)
    options = dict(max_new_tokens=20, do_sample=False)
    cache = SearchedCache(model.config, min_pairs=16, tolerance=0.0)
    outputs = model.generate(tokens, **{CACHE_NAME: cache}, **options)
    assert torch.equal(outputs, model.generate(tokens, **options))


def test_refuses_what_it_cannot_do(make_model, random_tokens):
    model, tokens = make_model(), random_tokens(2, 10)
    for name in ("num_nearest", "num_probes", "min_pairs"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, not 0"):
            SearchedCache(model.config, **{name: 0})
    with pytest.raises(ValueError, match="tolerance must be at least 0, not -1"):
        SearchedCache(model.config, tolerance=-1)
    with pytest.raises(ValueError, match="serves no beams"):
        model.generate(tokens, num_beams=2, max_new_tokens=3, **{CACHE_NAME: SearchedCache(model.config)})
    with pytest.raises(ValueError, match="cannot be cropped"):
        SearchedCache(model.config).crop(-1)


def test_says_what_to_install(make_config, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install memory-mosaics\[search\]"):
        SearchedCache(make_config())
