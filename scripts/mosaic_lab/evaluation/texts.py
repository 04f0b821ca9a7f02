"""The texts that models are measured on, as documents and as rows of tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mosaic_lab.core.errors import InputError
from mosaic_lab.training.corpus import load_splits, load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows

# What stands between the documents of a text that is no collection of stories.
BLANK_LINE = "\n\n"


@dataclass(frozen=True)
class Text:
    """A text, with a short name.

    Attributes:
        name (`str`): the end of its path, or its Hub id.
        documents_N (`list[np.ndarray]`): tokens of each document with end of text in front and behind;
            those longer than a row in pieces, which share their border token.
        rows_NT (`np.ndarray` of shape `(rows, time)`): tokens of the documents one after the other.
        num_characters (`int`): of the documents, their pieces that are here.
    """

    name: str
    documents_N: list[np.ndarray]
    rows_NT: np.ndarray
    num_characters: int


def load_in_distribution(
    data: DataArguments, tokenizer: PreTrainedTokenizerBase, num_rows: int, num_documents: int
) -> Text:
    """The validation stories, alone and packed into rows as in training.

    Raises:
        InputError: if there are none, or if they do not fill two rows.
    """
    _, stories = load_stories(data)
    if stories is None:
        raise InputError(f"dataset {data.dataset}: has no validation stories; set validation_fraction")
    rows = pack_rows(stories, tokenizer, data.block_size)
    rows_NT = rows.select(range(min(num_rows, len(rows)))).with_format("numpy")[:]["input_ids"]
    return _make_text(stories, data.dataset, rows_NT, tokenizer, num_documents)


def load_other(
    source: str, data: DataArguments, tokenizer: PreTrainedTokenizerBase, num_rows: int, num_documents: int
) -> Text:
    """Another text, its validation or test split if it has one, its documents joined by blank lines.

    To a model of stories, the end of a text means that all of it is over.

    Raises:
        InputError: if it cannot be read, or if it does not fill two rows.
    """
    splits = load_splits(replace(data, dataset=source, dataset_config=None))
    # Models may have been trained on the others.
    held_out = [split for split in (data.validation_split, "test") if split in splits]
    documents = splits[(held_out or list(splits))[0]]
    tokens = chain.from_iterable(
        tokenizer(text + BLANK_LINE, add_special_tokens=False)["input_ids"] for text in documents["text"]
    )
    stream = np.fromiter(islice(tokens, num_rows * data.block_size), dtype=np.int64)
    stream = stream[: len(stream) // data.block_size * data.block_size]
    return _make_text(documents, source, stream.reshape(-1, data.block_size), tokenizer, num_documents)


def _make_text(
    documents: Dataset,
    source: str,
    rows_NT: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    num_documents: int,
) -> Text:
    context = rows_NT.shape[1]
    if len(rows_NT) < 2:
        raise InputError(f"{source}: fewer than two rows of block_size {context} tokens")
    pieces_N = list(islice(_cut_documents(documents, tokenizer, context), num_documents))
    num_characters = sum(len(tokenizer.decode(ids[1:], skip_special_tokens=True)) for ids in pieces_N)
    return Text("/".join(Path(source).parts[-2:]), pieces_N, rows_NT.astype(np.int64), num_characters)


def _cut_documents(
    documents: Dataset, tokenizer: PreTrainedTokenizerBase, context: int
) -> Iterator[np.ndarray]:
    end = [tokenizer.eos_token_id]
    for text in documents["text"]:
        ids = np.array(end + tokenizer(text, add_special_tokens=False)["input_ids"] + end)
        # Pieces share their border token, so that each token but the first is predicted once.
        yield from (ids[start : start + context] for start in range(0, len(ids) - 1, context - 1))
