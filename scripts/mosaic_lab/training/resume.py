"""What a run depends on, kept in its checkpoints, so that only the same run is resumed from them."""

import json
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig
from transformers.trainer import TRAINER_STATE_NAME

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import describe_difference, read_object
from mosaic_lab.training.options import LENGTHS
from mosaic_lab.training.rows import ROWS
from mosaic_lab.training.streaming import RowStream
from mosaic_lab.training.trainer import OPTIONS

# Of a stream, whose first batch of stories has been read anyway.
_STREAMED_ROWS = 100
# Entries of a config that training does not depend on.
_NOT_TRAINED = ("_name_or_path", "transformers_version", "use_cache")


def describe_run(
    recipe: dict[str, Any], num_devices: int, rows: Dataset | RowStream, config: PreTrainedConfig
) -> dict[str, Any]:
    """All that the weights of a run depend on, as JSON has it.

    Args:
        recipe (`dict`): its options, see `describe_recipe`.
        num_devices (`int`): that train together.
        rows (`Dataset | RowStream`): a column `input_ids`, the rows to train on.
        config (`PreTrainedConfig`): that of the model.
    """
    config = {name: value for name, value in config.to_diff_dict().items() if name not in _NOT_TRAINED}
    # As it comes back from the file.
    return json.loads(
        json.dumps(
            {
                "recipe": recipe,
                "devices": num_devices,
                "rows": sum_rows(rows),
                "model_config": config,
                "earlier_lengths": [],
            }
        )
    )


def sum_rows(rows: Dataset | RowStream) -> dict[str, Any]:
    """`number` and `crc32` of the rows' tokens; those of the first 100 rows of a stream."""
    if isinstance(rows, RowStream):
        rows = Dataset.from_list(list(islice(rows, _STREAMED_ROWS)), ROWS)
    checksum = 0
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        tokens = batch["input_ids"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        checksum = zlib.crc32(np.ascontiguousarray(tokens, dtype=np.int32), checksum)
    return {"number": len(rows), "crc32": f"{checksum:08x}"}


def check_resumed(checkpoint: str, run: dict[str, Any]) -> None:
    """Makes sure that `run` is the one that `checkpoint` belongs to, or the same with another end.

    A run with another end has its learning rates from its own schedule from here on; `run["earlier_lengths"]`
    keeps the ends that earlier parts were trained with.

    Raises:
        InputError: that names what differs.
    """
    before = read_object(Path(checkpoint, OPTIONS))
    if before is None:
        raise InputError(f"resume_from_checkpoint {checkpoint}: not of this program, there is no {OPTIONS}")
    lengths, others = _split(before)
    lengths_now, others_now = _split(run)
    if others != others_now:
        raise InputError(
            f"resume_from_checkpoint {checkpoint}: the run was begun with other options: "
            f"{describe_difference(others, others_now)}; name another output_dir for a new run"
        )
    run["earlier_lengths"] = before["earlier_lengths"]
    if lengths != lengths_now:
        step = read_object(Path(checkpoint, TRAINER_STATE_NAME))["global_step"]
        run["earlier_lengths"] = [*before["earlier_lengths"], {"until_step": step, **lengths}]


def _split(run: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that say how long a run is, and all others by one name each."""
    others = {name: value for name, value in run.items() if name not in ("recipe", "earlier_lengths")}
    options = run["recipe"]
    others = {name: value for name, value in options.items() if name not in LENGTHS} | others
    return {name: options[name] for name in LENGTHS}, others
