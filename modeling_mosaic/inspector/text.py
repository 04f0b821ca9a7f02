"""Texts as tokens that people can read, with the place of each in the text."""

from collections.abc import Sequence

# In place of a character that a token holds but a part of, unless it is the last part.
PART = "\N{REPLACEMENT CHARACTER}"
# Most tokens that make up one character together.
_MOST_PARTS = 8


def encode_text(tokenizer, text: str) -> tuple[list[int], list[str], list[list[int]]]:
    """Token ids of a text, each token as it stands there, and its first character and the one after its last.

    Raises:
        ValueError: for a tokenizer that does not tell where tokens are.
    """
    if not tokenizer.is_fast:
        raise ValueError("tokenizer must be a fast one, which tells where tokens are in the text")
    encoded = tokenizer(text, return_offsets_mapping=True)
    offsets = [list(span) for span in encoded["offset_mapping"]]
    tokens = []
    for place, (token_id, (start, end)) in enumerate(zip(encoded["input_ids"], offsets, strict=True)):
        next_start = offsets[place + 1][0] if place + 1 < len(offsets) else end
        if start < end and next_start < end:
            tokens.append(text[start:next_start] + PART)
        else:
            tokens.append(text[start:end] or tokenizer.decode([token_id]))
    return encoded["input_ids"], tokens, offsets


def decode_tokens(tokenizer, token_ids: Sequence[int]) -> tuple[str, list[str], list[list[int]]]:
    """The text of token ids, and what [`encode_text`] returns of each; numbers without a tokenizer."""
    tokens: list[str] = []
    offsets: list[list[int]] = []
    text, place = "", 0
    while place < len(token_ids):
        count, piece = _next_characters(tokenizer, token_ids[place : place + _MOST_PARTS])
        tokens += [PART] * (count - 1) + [piece]
        offsets += [[len(text), len(text) + len(piece)]] * count
        text, place = text + piece, place + count
    return text, tokens, offsets


def name_token(tokenizer, token_id: int) -> str:
    """The text of a token id, or its number: vocabularies may be padded with ids that no token has."""
    if tokenizer is None or token_id >= len(tokenizer):
        return f"[{token_id}]"
    return tokenizer.decode([token_id])


def _next_characters(tokenizer, token_ids: Sequence[int]) -> tuple[int, str]:
    """How many tokens make up the next whole characters, and these."""
    if tokenizer is None:
        return 1, f"[{token_ids[0]}]"
    first = tokenizer.decode([token_ids[0]])
    for count in range(1, len(token_ids) + 1) if PART in first else ():
        piece = tokenizer.decode(token_ids[:count])
        if PART not in piece:
            return count, piece
    return 1, first
