"""Rows from a stream of stories, and a Trainer that goes on where it stopped in one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object, write_json
from mosaic_lab.training.rows import ROWS, pack_batch
from mosaic_lab.training.watched import WatchedTrainer

# Stories that are held in memory, to be shuffled among each other, tokenised and packed.
STREAMED_PER_BATCH = 1_000
# Where a checkpoint's run is in its stream.
PLACE = "stream.json"
BEGINNING = {"num_rows": 0, "source": None}


class RowStream(torch.utils.data.IterableDataset):
    """Rows of tokens from a stream of stories, over and over without end, in an order that the seed tells.

    Stories are shuffled, tokenised and packed in batches of 1,000, each for itself: data in a systematic
    order should be shuffled before. Thus a place in the stream is one in the source, where a batch begins,
    and a number of rows of this batch.

    Args:
        stories (`datasets.IterableDataset`): a column `text`.
        tokenizer (`PreTrainedTokenizerBase`): with an end-of-text token.
        block_size (`int`): tokens per row.
        seed (`int`): seed of the order.

    Raises:
        InputError: if the stories do not fill one row.
    """

    def __init__(
        self,
        stories: datasets.IterableDataset,
        tokenizer: PreTrainedTokenizerBase,
        block_size: int,
        seed: int,
    ):
        rows = stories.map(
            _pack_shuffled,
            batched=True,
            batch_size=STREAMED_PER_BATCH,
            with_indices=True,
            remove_columns="text",
            features=ROWS,
            fn_kwargs={"tokenizer": tokenizer, "block_size": block_size, "seed": seed},
        )
        if next(iter(rows), None) is None:
            raise InputError(f"the stories do not fill one row of block_size {block_size} tokens")
        self._rows = rows.repeat(None)
        self.load_state_dict(BEGINNING)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Dictionaries with `input_ids`, from the loaded place on."""
        self._num_read = self._start["num_rows"]
        for row in self._rows:
            self._num_read += 1
            if self._num_read > self._num_seen:
                yield row

    def state_dict(self) -> dict[str, Any]:
        """The place behind the row that was read last, as JSON has it."""
        if self._num_read is None:
            return self._start
        return {"num_rows": self._num_read, "source": self._rows.state_dict()}

    def load_state_dict(self, place: dict[str, Any], num_seen: int = 0) -> None:
        """Goes on from `place`, but not before `num_seen` rows from the beginning of the stream."""
        self._start, self._num_seen, self._num_read = place, num_seen, None
        self._rows.load_state_dict(place["source"])


def _pack_shuffled(batch: dict, indices: list[int], seed: int, **options) -> dict[str, list]:
    order = np.random.default_rng([seed, indices[0]]).permutation(len(indices))
    return pack_batch({"text": [batch["text"][index] for index in order]}, **options)


class StreamTrainer(WatchedTrainer):
    """`WatchedTrainer` for streams too: a resumed run reads on from the place that its checkpoint keeps.

    This is some batches before the first row not yet trained on. It is known where the process that trains
    reads the rows: with `dataloader_num_workers`, transformers reads all again and passes over those seen.
    """

    @property
    def _has_place(self) -> bool:
        return isinstance(self.train_dataset, RowStream) and self.args.dataloader_num_workers == 0

    def _init_training_state(self, max_steps, *args):
        num_epochs, num_batches = super()._init_training_state(max_steps, *args)
        self._random_state_of = None
        if not self._has_place:
            return num_epochs, num_batches
        *_, checkpoint, _ = args
        self._place, self._num_seen, self._random_state_of = BEGINNING, 0, checkpoint
        if checkpoint is not None:
            saved = read_object(Path(checkpoint, PLACE))
            self._place, self._num_seen = saved["place"], saved["num_seen"]
        self.train_dataset.load_state_dict(self._place, self._num_seen)
        # No batches are left for transformers to pass over.
        return num_epochs, 0

    def _run_epoch(self, **options):
        if self._random_state_of is not None:
            # To a stream of unknown length, all steps are one epoch.
            options |= dict.fromkeys(
                ("epoch", "epochs_trained"), self.state.global_step / self.state.max_steps
            )
        super()._run_epoch(**options)

    def get_batch_samples(self, *args):
        if self._has_place:
            # Not afterwards: more has been read ahead then than this step trains on.
            self._place = self.train_dataset.state_dict()
        samples, num_items = super().get_batch_samples(*args)
        if self._has_place:
            self._num_seen += self.args.world_size * sum(len(batch["input_ids"]) for batch in samples)
        if self._random_state_of is not None:
            # A new iterator draws random numbers, the one of an undisturbed run does not.
            self._load_rng_state(self._random_state_of)
            self._random_state_of = None
        return samples, num_items

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self._has_place and self.args.should_save:
            checkpoint = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            write_json(checkpoint / PLACE, {"num_seen": self._num_seen, "place": self._place})
