"""Packs stories, each followed by the end-of-text token, into rows of equal length."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, default_data_collator

from mosaic_lab.core.errors import InputError
from mosaic_lab.training.tokenizer import count_bytes

ROWS = Features({"input_ids": List(Value("int32"))})
# Stories per batch; the tokens after a batch's last full row are dropped.
STORIES_PER_BATCH = 10_000


def pack_rows(
    stories: Dataset, tokenizer: PreTrainedTokenizerBase, block_size: int, num_proc: int | None = None
) -> Dataset:
    """Tokenises stories and packs them into rows without padding; the rows are cached by their contents.

    Args:
        stories (`Dataset`): a column `text`.
        tokenizer (`PreTrainedTokenizerBase`): with an end-of-text token.
        block_size (`int`): tokens per row.
        num_proc (`int`, *optional*): number of processes that tokenise.

    Returns:
        `Dataset`: a column `input_ids` with `block_size` tokens per row.

    Raises:
        InputError: if the stories do not fill one row.
    """
    vocabulary = (
        tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    )
    # Not the hash that `datasets` would take: a tokenizer changes when it is used.
    key = [stories._fingerprint, vocabulary, tokenizer.eos_token_id, block_size, STORIES_PER_BATCH]
    rows = stories.map(
        pack_batch,
        batched=True,
        batch_size=STORIES_PER_BATCH,
        remove_columns=stories.column_names,
        features=ROWS,
        fn_kwargs={"tokenizer": tokenizer, "block_size": block_size},
        num_proc=num_proc,
        new_fingerprint=Hasher.hash(key),
        desc="Tokenising",
    )
    if len(rows) == 0:
        raise InputError(f"{len(stories):,} stories do not fill one row of block_size {block_size} tokens")
    return rows


def pack_batch(batch: dict, tokenizer: PreTrainedTokenizerBase, block_size: int) -> dict[str, list]:
    """Rows of some stories, without the tokens that do not fill the last one."""
    ids = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    stream = np.fromiter(
        chain.from_iterable([*story, tokenizer.eos_token_id] for story in ids), dtype=np.int32
    )
    num_rows = len(stream) // block_size
    return {"input_ids": list(stream[: num_rows * block_size].reshape(num_rows, block_size))}


def bytes_per_token(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> float | None:
    """Bytes of text per token of rows that a model predicts, which is all but the first of each row.

    By it, a loss in nats per token is `loss / ln(2) / bytes_per_token` bits per byte.

    Args:
        rows (`Dataset`): a column `input_ids`, all rows equally long.
        tokenizer (`PreTrainedTokenizerBase`): that made them.

    Returns:
        `float | None`: `None` where it is not known how many bytes a token is, see `count_bytes`.
    """
    num_bytes = count_bytes(tokenizer)
    if num_bytes is None:
        return None
    total, num_tokens = 0, 0
    for batch in rows.with_format("numpy").iter(batch_size=10_000):
        predicted = batch["input_ids"][:, 1:]
        total += int(num_bytes[predicted].sum())
        num_tokens += predicted.size
    return total / num_tokens or None


def collate_rows(rows: Sequence[dict], end: int | None = None) -> dict[str, torch.Tensor]:
    """Stacks rows to a batch whose labels are its tokens; the models shift them.

    Args:
        rows (`Sequence[dict]`): with `input_ids`, all equally long.
        end (`int`, *optional*): the end-of-text token, for a batch in which stories are apart: its
            `position_ids` begin anew behind each, by which models tell packed sequences.
    """
    # Streamed rows are arrays of int32.
    ids_BT = default_data_collator(rows)["input_ids"].long()
    batch = {"input_ids": ids_BT, "labels": ids_BT.clone()}
    if end is not None:
        step_T = torch.arange(ids_BT.shape[1])
        is_first_BT = F.pad(ids_BT[:, :-1] == end, (1, 0))
        batch["position_ids"] = step_T - (step_T * is_first_BT).cummax(-1).values
    return batch
