"""The card that the Hub shows for a data set of stories."""

from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from mosaic_lab.core.shipped import shipped

TEMPLATE = shipped("hub_cards") / "stories.md"


def make_card(name: str, statistics: dict[str, Any], columns: list[str], license: str) -> DatasetCard:
    """Fills in the template `hub_cards/stories.md`.

    Args:
        name (`str`): the data set's folder.
        statistics (`dict`): content of `statistics.json`.
        columns (`list[str]`): of the data, `text` first.
        license (`str`): the Hub's identifier of a licence.
    """
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
        requested=columns[1:],
        **statistics,
    )


def size_category(num_rows: int) -> str:
    """The Hub's name for a number of rows: "10K<n<100K"."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    place = len(str(num_rows)) - 4
    return "n<1K" if place < 0 else f"{names[place]}<n<{names[place + 1]}"
