"""Decoding after a long text: time, memory and loss of a searched memory and of plain attention."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories.searched_cache import BLOCK_SIZE, MODES, PairArchive, SearchedCache
from modeling_mosaic.memory_masks import create_memory_masks

# Tokens that are stored, and read, at a time: reading takes memory for a weight of each pair.
CHUNK, READ = 4096, 32
# What each archive was chosen to do, and the modes that all of them can be set to.
CHOSEN = "chosen"
WAYS = (CHOSEN, *MODES)


@torch.no_grad()
def fill(model: PreTrainedModel, cache: SearchedCache, ids_T: np.ndarray) -> None:
    """Reads a text into the memories of a mosaic of one layer, whose pairs depend on no answer.

    The last block is read as usual, after which the states are right as well.
    """
    ids = torch.from_numpy(ids_T)[None]
    block = model.base_model.layers[0]
    for part in ids[:, :-BLOCK_SIZE].split(CHUNK, 1):
        embeds = model.base_model.embed_tokens(part)
        masks = create_memory_masks(model.config, embeds, None, cache)
        query_BHTD, *_ = block.contextual_memory.store(block.contextual_norm(embeds), masks, cache)
        cache.layers[0].store_only(query_BHTD, masks["recall"])
    model(ids[:, -BLOCK_SIZE:], use_cache=True, **{CACHE_NAME: cache})


@contextmanager
def kept(cache) -> Iterator[None]:
    """Puts the first layer of a cache back as it was, if nothing went to the archives meanwhile."""
    layer = cache.layers[0]
    before = vars(layer) | {"conv_states": dict(layer.conv_states)}
    before["conv_states"] = {number: state.clone() for number, state in before["conv_states"].items()}
    yield
    vars(layer).update(before)


@contextmanager
def set_mode(cache: SearchedCache, way: str) -> Iterator[None]:
    """Lets all units answer in one way."""
    before = [archive.mode for archive in archives_of(cache)]
    for archive in archives_of(cache):
        archive.mode = archive.mode if way == CHOSEN else way
    yield
    for archive, mode in zip(archives_of(cache), before, strict=True):
        archive.mode = mode


def archives_of(cache: SearchedCache) -> list[PairArchive]:
    """The archives of the units of the first layer."""
    return cache.layers[0].archives[0]


def as_dynamic(model: PreTrainedModel, cache: SearchedCache) -> DynamicCache:
    """The same memories as a plain cache."""
    plain, layer = DynamicCache(config=model.config), cache.layers[0]
    states = []
    for name in ("keys", "values"):
        archived = torch.stack([getattr(archive, name).rows for archive in archives_of(cache)])[None]
        recent = getattr(layer, name)
        states.append(torch.cat([recent[:, :, :1], archived, recent[:, :, 1:]], 2))
    plain.update(*states, 0)
    for state_idx, state_BC1 in layer.conv_states.items():
        plain.update_conv_state(state_BC1, 0, state_idx=state_idx, conv_kernel_size=1)
    return plain


@torch.no_grad()
def losses_after(model: PreTrainedModel, cache, ids_T: np.ndarray) -> np.ndarray:
    """Losses of all tokens but the first after what the cache holds, in nats; the cache stays as it was."""
    ids = torch.from_numpy(ids_T)[None]
    with kept(cache):
        parts = [model(part, use_cache=True, **{CACHE_NAME: cache}).logits[0] for part in ids.split(READ, 1)]
    return F.cross_entropy(torch.cat(parts)[:-1].float(), ids[0, 1:], reduction="none").numpy()


@torch.no_grad()
def seconds_per_token(model: PreTrainedModel, cache, ids_T: np.ndarray) -> np.ndarray:
    """Time of the processor for each token, read one by one; the cache stays as it was.

    Not that of a clock, so that other programs do not count; one thread is used.
    """
    seconds = []
    with kept(cache):
        for token in torch.from_numpy(ids_T)[:, None, None]:
            start = time.process_time()
            model(token, use_cache=True, **{CACHE_NAME: cache})
            seconds.append(time.process_time() - start)
    return np.array(seconds)


def measure_decoding(
    model: PreTrainedModel, memory_T: np.ndarray, next_T: np.ndarray, num_timed: int, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measures losses and times after a long text, in all ways of answering and with plain attention.

    Ways take turns while they are timed; of the times of a way, the median counts.

    Returns:
        `tuple[dict, dict]`: `modes`, what each unit chose, and `errors`, those on trial; `bytes` by part; by
        way `milliseconds`, `loss`, and `loss_change` against plain attention; and the losses of each token.
    """
    cache = SearchedCache(model.config, **options)
    start = time.process_time()
    fill(model, cache, memory_T)
    filled = time.process_time() - start
    archives, plain = archives_of(cache), as_dynamic(model, cache)
    ways = {way: cache for way in WAYS} | {"plain": plain}
    losses, seconds = {}, {way: [] for way in ways}
    for way, its_cache in ways.items():
        with set_mode(cache, way) if way in WAYS else set_mode(cache, CHOSEN):
            losses[way] = losses_after(model, its_cache, next_T)
    for turn in range(3):
        for way, its_cache in ways.items():
            with set_mode(cache, way if way in WAYS else CHOSEN):
                part = next_T[turn * num_timed // 3 : (turn + 1) * num_timed // 3]
                seconds[way] += list(seconds_per_token(model, its_cache, part))
    result = {
        "num_pairs": plain.layers[0].keys.shape[2] - 1,
        "fill_seconds": filled,
        "modes": [archive.mode for archive in archives],
        "errors": [archive.errors for archive in archives],
        "bytes": count_bytes(plain, archives),
        "milliseconds": {way: 1e3 * float(np.median(times)) for way, times in seconds.items()},
        "loss": {way: float(loss_T.mean()) for way, loss_T in losses.items()},
        "loss_change": {way: float((loss_T - losses["plain"]).mean()) for way, loss_T in losses.items()},
        "loss_change_error": {
            way: float((loss_T - losses["plain"]).std(ddof=1) / len(loss_T) ** 0.5)
            for way, loss_T in losses.items()
        },
    }
    return result, losses


def count_bytes(plain: DynamicCache, archives: list[PairArchive]) -> dict[str, int]:
    """Bytes of pairs, which a plain cache needs too, and of what the archives hold besides."""
    states = [plain.layers[0].keys, plain.layers[0].values]
    extra = 0
    for archive in archives:
        for rows in (archive.keys, archive.values):
            extra += (len(rows.storage) - rows.length) * rows.storage[0].nbytes
        extra += archive.cluster.storage.nbytes
        # The index holds a copy of each key, and its number.
        extra += archive.index.ntotal * (archive.keys.rows[0].nbytes + 8)
        extra += archive.key_sum_LD.nbytes + archive.value_sum_LD.nbytes
    return {"pairs": sum(state.nbytes for state in states), "search": extra}
