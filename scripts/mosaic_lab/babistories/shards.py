"""Work in shards: shared by processes, resumed, each shard the same whoever makes it."""

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
        name (`str`): of its files.
        num_records (`int`): in all.
        shard_size (`int`): records in a shard; the last one may have fewer.
        make (`Callable`): told the numbers of a shard's records and a seed, makes them from these only.
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


def run_stage(stage: Stage, folder: Path, seed: int, state: PartialState) -> None:
    """Makes the shards that are missing in `folder`, and waits for those of other processes.

    A file is there once its shard is finished, and is never made again.
    """
    shards = list(stage.shards(folder).items())
    # All processes look at the same moment, between two meetings.
    state.wait_for_everyone()
    missing = [shard for shard in shards if not shard[0].exists()]
    state.wait_for_everyone()
    mine = missing[state.process_index :: state.num_processes]
    for path, numbers in tqdm(mine, desc=stage.name, disable=not state.is_main_process):
        records = stage.make(numbers, f"{seed}/{path.stem}")
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    state.wait_for_everyone()


def read_stage(stage: Stage, folder: Path) -> Iterator[dict[str, Any]]:
    """The records of all shards, in order."""
    for path in stage.shards(folder):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)
