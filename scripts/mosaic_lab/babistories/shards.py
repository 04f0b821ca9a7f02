"""Work in shards that processes share and later runs resume; each shard is the same whoever makes it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from mosaic_lab.core.files import write_text

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """Records to make, in shards.

    Args:
        name (`str`): prefix of the shards' files.
        num_records (`int`): number of records in all shards.
        shard_size (`int`): records per shard; the last one may have fewer.
        make (`Callable`): makes a shard's records from their numbers and a seed, and from nothing else.
    """

    name: str
    num_records: int
    shard_size: int
    make: Callable[[range, str], Records]

    def shards(self, folder: Path) -> dict[Path, range]:
        """The file of each shard, and the numbers of its records."""
        starts = range(0, self.num_records, self.shard_size)
        return {
            folder / f"{self.name}-{shard:05}.jsonl": range(
                start, min(start + self.shard_size, self.num_records)
            )
            for shard, start in enumerate(starts)
        }


def run_stage(stage: Stage, folder: Path, seed: int, state: PartialState) -> Iterator[dict[str, Any]]:
    """Makes the shards that are missing in `folder`, and waits for those of other processes.

    A shard's file appears once it is complete, and is never made again.

    Returns:
        `Iterator[dict]`: the records of all shards, in order, read one by one.
    """
    shards = list(stage.shards(folder).items())
    # All processes look between two barriers, and so see the same files.
    state.wait_for_everyone()
    missing = [shard for shard in shards if not shard[0].exists()]
    state.wait_for_everyone()
    mine = missing[state.process_index :: state.num_processes]
    for path, numbers in tqdm(mine, desc=stage.name, disable=not state.is_main_process):
        records = stage.make(numbers, f"{seed}/{path.stem}")
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    state.wait_for_everyone()
    return _read(path for path, _ in shards)


def _read(paths: Iterator[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)
