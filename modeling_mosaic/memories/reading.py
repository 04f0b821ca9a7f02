"""Reading: from texts to a [`MosaicMemory`].

Shapes: B batch, T new tokens, L layers, H units a layer, N pairs, W columns of a window, D head size, C
hidden size.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from ..model_fingerprint import fingerprint
from .layout import find_layout
from .portable_memory import MosaicMemory, merge
from .tokens import NO_TOKEN, Token
from .window import Window

# Tokens at a time, which bounds what a long text needs besides its pairs.
CHUNK_SIZE = 1024


@dataclass(frozen=True)
class TokenisedText:
    """A text that is to be read: its name, its token ids, and the characters of each token, if known."""

    name: str
    ids: Sequence[int]
    spans: Sequence[tuple[int, int]] | None = None


def read(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: str | Sequence[str] | Mapping[str, str],
    *,
    after: MosaicMemory | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> MosaicMemory:
    """Reads texts apart from each other, and unites what the memories then hold, as [`merge`] does.

    Texts are read as the tokenizer gives them, special tokens included where it adds some.

    Args:
        model (`PreTrainedModel`): a Memory Mosaic.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer. A fast one also tells where in a text a token
            is.
        texts (`str`, `Sequence[str]` or `Mapping[str, str]`): a text, several, or several by name. Others
            are called by a digest of their tokens.
        after (`MosaicMemory`, *optional*): what has been read before; a single text then follows it.
        batch_size (`int`): texts at a time.
        progress (`bool`): whether to show a bar of tokens.

    Returns:
        `MosaicMemory`: on the model's device and in its precision.

    Raises:
        ValueError: for a text without tokens, the same text twice, `after` with several texts or with one
            that it holds, a memory of another model, or a model of another kind or without long-term memory.
    """
    if isinstance(texts, str):
        texts = [texts]
    named = texts.items() if isinstance(texts, Mapping) else ((None, text) for text in texts)
    tokenised = [tokenise(tokenizer, text, name) for name, text in named]
    return read_tokens(model, tokenised, after=after, batch_size=batch_size, progress=progress)


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str, name: str | None = None) -> TokenisedText:
    """A text as `read` reads it."""
    encoded = tokenizer(text, return_offsets_mapping=tokenizer.is_fast)
    ids = encoded["input_ids"]
    if name is None:
        name = f"text-{hashlib.sha256(repr(list(ids)).encode()).hexdigest()[:8]}"
    return TokenisedText(name, ids, encoded.get("offset_mapping"))


def read_tokens(
    model: PreTrainedModel,
    texts: Sequence[TokenisedText],
    *,
    after: MosaicMemory | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> MosaicMemory:
    """[`read`] for texts that are token ids already."""
    find_layout(model.config)
    _check_texts(texts, after, batch_size)
    after = None if after is None else after.to(model)
    beginning_id = _find_beginning(model)
    memories: list[MosaicMemory | None] = [None] * len(texts)
    num_tokens = sum(len(text.ids) for text in texts)
    with _evaluating(model), tqdm(total=num_tokens, unit="token", disable=not progress) as bar:
        beginning = None
        if beginning_id is not None:
            begun = _run(model, [[beginning_id]], DynamicCache(config=model.config))
            beginning = _take_states(begun, 0, model.config)
        common = {"beginning": beginning, "beginning_id": beginning_id, "fingerprint": fingerprint(model)}
        # Texts of similar length go together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number].ids))
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            cache = DynamicCache(config=model.config) if after is None else after.to_cache()
            _run(model, [texts[number].ids for number in numbers], cache, bar)
            for row, number in enumerate(numbers):
                num_padded = len(texts[numbers[-1]].ids) - len(texts[number].ids)
                memories[number] = _take_row(
                    cache, row, num_padded, texts[number], after, model.config, common
                )
    return memories[0] if len(memories) == 1 else merge(memories)


def _check_texts(texts: Sequence[TokenisedText], after: MosaicMemory | None, batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if not texts:
        raise ValueError("texts: there is none to read")
    names = set(() if after is None else after.sources)
    for text in texts:
        if len(text.ids) == 0:
            raise ValueError(f"text {text.name!r} has no tokens")
        if text.name in names:
            raise ValueError(f"text {text.name!r} is there twice; give it two names to have it count twice")
        names.add(text.name)
    if after is not None and len(texts) > 1:
        raise ValueError(
            f"after: only one text can follow, not {len(texts)}; read the others apart and merge"
        )


def _find_beginning(model: PreTrainedModel) -> int | None:
    """The id of the token with which texts begin, if the vocabulary has one."""
    for ids in (model.config.bos_token_id, model.config.eos_token_id):
        first = ids[0] if isinstance(ids, list) else ids
        if first is not None and first < model.config.vocab_size:
            return first
    return None


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _run(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], cache: Cache, bar: tqdm | None = None
) -> Cache:
    """Feeds rows of any length, padded to the right, into a cache."""
    lengths_B = torch.tensor([len(row) for row in rows])
    ids_BT = torch.zeros(len(rows), lengths_B.max(), dtype=torch.long)
    for row, ids in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.as_tensor(ids)
    mask_BT = (torch.arange(ids_BT.shape[1]) < lengths_B[:, None]).long().to(model.device)
    ids_BT = ids_BT.to(model.device)
    for start in range(0, ids_BT.shape[1], CHUNK_SIZE):
        end = start + CHUNK_SIZE
        # Without the head, which would compute logits.
        model.base_model(ids_BT[:, start:end], attention_mask=mask_BT[:, :end], cache=cache, use_cache=True)
        if bar is not None:
            bar.update(int(mask_BT[:, start:end].sum()))
    return cache


def _take_states(cache: Cache, row: int, config: PreTrainedConfig) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.stack([layer.conv_states[state.number][row, :, -1] for layer in cache.layers])
        for state in find_layout(config).states.values()
    )


def _take_row(
    cache: Cache,
    row: int,
    num_padded: int,
    text: TokenisedText,
    after: MosaicMemory | None,
    config: PreTrainedConfig,
    common: dict,
) -> MosaicMemory:
    """The memory of one row: all slots but the dummy one and those of padding."""
    num_before = 0 if after is None else len(after)
    end = len(text.ids) + (0 if after is None else num_before + 1)
    keys, values = (
        torch.stack([getattr(layer, name)[row, :, 1:end] for layer in cache.layers])
        for name in ("keys", "values")
    )
    sources = () if after is None else after.sources
    tokens = _list_tokens(text, len(sources))
    own = tokens[:-1]
    if after is not None:
        own = torch.cat([after.tokens[:, 0].cpu(), own])
    following = tokens[1:] if after is None else torch.cat([after.tokens[:-1, 1].cpu(), tokens])
    tokens = torch.stack([own, following], 1).to(keys.device)
    window = Window.empty(keys) if after is None else after.window
    new_pairs = torch.arange(num_before, keys.shape[2], dtype=torch.int32, device=keys.device)
    window = window._replace(
        tokens=torch.cat([window.tokens, tokens[num_before:-1]]), pairs=torch.cat([window.pairs, new_pairs])
    )
    return MosaicMemory(
        keys=keys,
        values=values,
        window=_take_window(cache, row, num_padded, window, config),
        states=_take_states(cache, row, config),
        tokens=tokens,
        sources=(*sources, text.name),
        model_type=config.model_type,
        **common,
    )


def _take_window(cache: Cache, row: int, num_padded: int, window: Window, config: PreTrainedConfig) -> Window:
    """The latest columns of a window, as the cache holds them of a row; `window` has the tokens of all."""
    num_columns = min(len(window.pairs), config.stored_window)
    layout, latest = find_layout(config), slice(len(window.pairs) - num_columns, None)
    window = window._replace(tokens=window.tokens[latest], pairs=window.pairs[latest])
    for name, state_idx in zip(("keys", "values"), layout.window, strict=False):
        end = cache.layers[0].conv_states[state_idx].shape[-1] - num_padded
        columns = slice(end - num_columns, end)
        states_LCW = torch.stack([layer.conv_states[state_idx][row, :, columns] for layer in cache.layers])
        states_LHDW = states_LCW.unflatten(1, (config.num_attention_heads, -1))
        window = window._replace(**{name: states_LHDW.transpose(2, 3)})
    return window


def _list_tokens(text: TokenisedText, source: int) -> torch.Tensor:
    """The tokens of a text, with none at the end, `(tokens + 1, 5)`."""
    spans = text.spans if text.spans is not None else [(-1, -1)] * len(text.ids)
    tokens = [
        Token(source, number, *span, int(token_id))
        for number, (span, token_id) in enumerate(zip(spans, text.ids, strict=True))
    ]
    return torch.tensor([*tokens, NO_TOKEN], dtype=torch.int32)
