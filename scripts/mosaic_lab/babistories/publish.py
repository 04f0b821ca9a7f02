"""The data set: parquet files, statistics and a card, which appear together when all of them are complete."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from mosaic_lab.core.files import write_json, write_text
from mosaic_lab.core.shipped import shipped

TEMPLATE = shipped("hub_cards") / "stories.md"
STATISTICS, CARD, DATA = "statistics.json", "README.md", "data"
ROWS_A_FILE = 250_000
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("text", "verb", "noun", "adjective")]
    + [("features", pa.list_(pa.string())), ("name", pa.string()), ("opening", pa.string())]
)


def publish(
    folder: Path, splits: dict[str, list[dict[str, Any]]], statistics: dict[str, Any], license: str
) -> None:
    """Writes all of it beside its place in `folder`, and moves it there, the card last.

    Args:
        folder (`Path`): of the data set.
        splits (`dict[str, list[dict]]`): records with the columns of SCHEMA.
        statistics (`dict`): what `statistics.json` holds.
        license (`str`): the Hub's identifier of a licence.
    """
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / DATA).mkdir(parents=True)
    for split, records in splits.items():
        _write_parquet(partial / DATA, split, records)
    write_json(partial / STATISTICS, statistics)
    write_text(partial / CARD, str(make_card(folder.name, statistics, license)))
    shutil.rmtree(folder / DATA, ignore_errors=True)
    for name in (DATA, STATISTICS, CARD):
        (partial / name).replace(folder / name)
    partial.rmdir()


def _write_parquet(folder: Path, split: str, records: list[dict[str, Any]]) -> None:
    starts = range(0, len(records), ROWS_A_FILE)
    for number, start in enumerate(starts):
        table = pa.Table.from_pylist(records[start : start + ROWS_A_FILE], schema=SCHEMA)
        pq.write_table(table, folder / f"{split}-{number:05}-of-{len(starts):05}.parquet")


def make_card(name: str, statistics: dict[str, Any], license: str) -> DatasetCard:
    """The card that the Hub shows, from `hub_cards/stories.md`."""
    splits = statistics["splits"]
    # Without `configs`: `datasets` finds the splits by the files' names, and where a card lists the files, it
    # takes one folder's stories from its cache for those of another folder of that name.
    metadata = DatasetCardData(
        language="en",
        license=license,
        pretty_name=name,
        task_categories=["text-generation"],
        size_categories=[size_category(sum(split["stories"] for split in splits.values()))],
        tags=["synthetic", "children-stories", "memory-mosaics"],
    )
    return DatasetCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        pretty_name=name,
        load_name=name,
        model=statistics["recipe"]["model"],
        **statistics,
    )


def size_category(num_rows: int) -> str:
    """The Hub's name for so many rows: "10K<n<100K"."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    place = len(str(num_rows)) - 4
    return "n<1K" if place < 0 else f"{names[place]}<n<{names[place + 1]}"
