"""Data sets as folders that `datasets` and the Hub read: parquet files, statistics and a card."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading, replacing, write_json, write_text

CARD, STATISTICS, DATA = "README.md", "statistics.json", "data"
ROWS_PER_FILE = 250_000


def check_free(folder: str | os.PathLike) -> None:
    """Checks that a data set may be written to `folder`: there is nothing yet, or an empty folder.

    Raises:
        InputError: if there is something.
    """
    folder = Path(folder)
    with reading(f"folder {folder}"):
        is_free = not any(folder.iterdir()) if folder.is_dir() else not os.path.lexists(folder)
    if not is_free:
        raise InputError(f"folder {folder}: there is something already; name another one")


def write_dataset(
    folder: str | os.PathLike,
    splits: Mapping[str, Dataset],
    card: str,
    statistics: dict[str, Any] | None = None,
) -> None:
    """Writes a data set to a new folder, which appears once it is complete.

    Args:
        folder (`str` or `PathLike`): must not exist, or be empty.
        splits (`Mapping[str, Dataset]`): written as `data/SPLIT-00000-of-00001.parquet`, in files of at most
            250,000 rows.
        card (`str`): content of `README.md`.
        statistics (`dict`, *optional*): content of `statistics.json`.

    Raises:
        InputError: if there is something at `folder`, or if it cannot be written.
    """
    check_free(folder)
    try:
        with replacing(folder) as partial:
            (partial / DATA).mkdir(parents=True)
            for split, rows in splits.items():
                num_files = max(1, -(-len(rows) // ROWS_PER_FILE))
                for number in range(num_files):
                    part = rows.with_format(None).shard(num_files, number, contiguous=True)
                    part.to_parquet(partial / DATA / f"{split}-{number:05}-of-{num_files:05}.parquet")
            if statistics is not None:
                write_json(partial / STATISTICS, statistics)
            write_text(partial / CARD, f"{card}\n")
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be written: {error.strerror}") from error
