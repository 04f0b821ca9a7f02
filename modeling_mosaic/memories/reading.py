"""Reading: from texts to a [`MosaicMemory`].

Shapes: B batch, T new tokens, L layers, H units a layer, N pairs, D head size, C hidden size.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from ..model_fingerprint import fingerprint
from .portable_memory import NO_TOKEN, MosaicMemory, Token, merge

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
            that it holds, or a memory of another model.
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
    _check_texts(texts, after, batch_size)
    after = None if after is None else after.to(model)
    beginning_id = _find_beginning(model)
    memories: list[MosaicMemory | None] = [None] * len(texts)
    num_tokens = sum(len(text.ids) for text in texts)
    with _evaluating(model), tqdm(total=num_tokens, unit="token", disable=not progress) as bar:
        beginning = None
        if beginning_id is not None:
            beginning = _states_of(_run(model, [[beginning_id]], DynamicCache(config=model.config)), 0)
        common = {"beginning": beginning, "beginning_id": beginning_id, "fingerprint": fingerprint(model)}
        # Texts of similar length go together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number].ids))
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            cache = DynamicCache(config=model.config) if after is None else after.to_cache()
            _run(model, [texts[number].ids for number in numbers], cache, bar)
            for row, number in enumerate(numbers):
                memories[number] = _take_row(cache, row, texts[number], after, common)
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


def _states_of(cache: Cache, row: int) -> tuple[torch.Tensor, ...]:
    layers = cache.layers
    return tuple(
        torch.stack([layer.conv_states[state_idx][row, :, -1] for layer in layers])
        for state_idx in range(len(layers[0].conv_states))
    )


def _take_row(cache: Cache, row: int, text: TokenisedText, after: MosaicMemory | None, common: dict):
    """The memory of one row: all slots but the dummy one and those of padding."""
    end = len(text.ids) + (0 if after is None else len(after) + 1)
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
    return MosaicMemory(
        keys=keys,
        values=values,
        states=_states_of(cache, row),
        tokens=torch.stack([own, following], 1).to(keys.device),
        sources=(*sources, text.name),
        **common,
    )


def _list_tokens(text: TokenisedText, source: int) -> torch.Tensor:
    """The tokens of a text, with none at the end, `(tokens + 1, 5)`."""
    spans = text.spans if text.spans is not None else [(-1, -1)] * len(text.ids)
    tokens = [
        Token(source, number, *span, int(token_id))
        for number, (span, token_id) in enumerate(zip(spans, text.ids, strict=True))
    ]
    return torch.tensor([*tokens, NO_TOKEN], dtype=torch.int32)
