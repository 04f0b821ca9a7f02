"""Records in shards that processes share and later runs resume; each shard is the same whoever makes it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mosaic_lab.babistories.options import StoryArguments
from mosaic_lab.core.files import reading, write_text
from mosaic_lab.core.work import Run, work_through
from mosaic_lab.training.story_files import parse_lines

# File in the folder of a shard.
RECORDS = "records.jsonl"

Records = list[dict[str, Any]]
# Makes the records of a shard from their numbers and a seed, and from nothing else.
Make = Callable[[range, str], Records]


def make_records(
    folder: Path, options: StoryArguments, name: str, num_records: int, shard_size: int, make: Make
) -> Iterator[dict[str, Any]]:
    """Makes the shards that are missing in `folder`, and waits for those of other processes.

    Args:
        folder (`Path`): holds a folder for each shard.
        options (`StoryArguments`): shards that were made with other ones are refused.
        name (`str`): prefix of the shards' folders.
        num_records (`int`): number of records in all shards.
        shard_size (`int`): records per shard; the last one may have fewer.
        make (`Callable`): makes a shard's records.

    Returns:
        `Iterator[dict]`: the records of all shards, in order, read one by one.

    Raises:
        InputError: if there are shards that were made with other options, or are damaged.
    """
    recorded = options.for_stories()
    numbers = range(num_records)
    shards = [
        Run(f"{name}-{shard:05}", recorded, inputs=numbers[start : start + shard_size])
        for shard, start in enumerate(numbers[::shard_size])
    ]

    def do(shard: Run, place: Path) -> dict[str, Any]:
        records = make(shard.inputs, f"{options.seed}/{shard.name}")
        write_text(place / RECORDS, "".join(json.dumps(record) + "\n" for record in records))
        return {"num_records": len(records)}

    work_through(shards, folder, do, wait=True)
    return _read(folder / shard.name / RECORDS for shard in shards)


def _read(paths: Iterator[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with reading(path), path.open(encoding="utf-8") as file:
            for _, record in parse_lines(str(path), file):
                yield record
