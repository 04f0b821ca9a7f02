"""The repository of a data set: its card, its parquet files, and the statistics beside them."""

import shutil
from pathlib import Path

from huggingface_hub import DatasetCard

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_text

CARD, STATISTICS, DATA = "README.md", "statistics.json", "data/*.parquet"


def prepare_dataset(folder: Path, target: Path, repo_id: str) -> None:
    """Copies what belongs to the data set, and lets its card load it by the name that it will have.

    Args:
        folder (`Path`): with a card and `data/*.parquet`.
        target (`Path`): an empty folder.
        repo_id (`str`): owner/name.

    Raises:
        InputError: if there is no card, no licence in its metadata, or no data.
    """
    if not (folder / CARD).is_file():
        raise InputError(f"folder {folder}: there is no data set's card in it ({CARD})")
    try:
        card = DatasetCard.load(folder / CARD)
    except ValueError as error:
        raise InputError(f"{folder / CARD}: its metadata cannot be read: {error}") from error
    if not card.data.license:
        raise InputError(f"{folder / CARD}: its metadata name no license")
    files = sorted(folder.glob(DATA))
    if not files:
        raise InputError(f"folder {folder}: there are no data in it ({DATA})")
    for path in (*files, folder / STATISTICS):
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    # The card names the folder, which nobody else has.
    card.text = card.text.replace(f'load_dataset("{folder.resolve().name}"', f'load_dataset("{repo_id}"')
    write_text(target / CARD, str(card))
