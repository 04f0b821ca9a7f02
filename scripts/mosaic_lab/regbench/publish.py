"""RegBench as a data set that `datasets` and the Hub can read: parquet files and a card."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_range
from mosaic_lab.core.dataset_folder import check_free, write_dataset
from mosaic_lab.core.shipped import shipped
from mosaic_lab.core.work import Experiment
from mosaic_lab.regbench.automata import ALPHABET, NUM_SYMBOLS, SEPARATOR, STATES
from mosaic_lab.regbench.data import LONGEST_STRING, MOST_SEQUENCES, NUM_STRINGS, Sizes, load

TEMPLATE = shipped("hub_cards") / "regbench.md"
LICENSE = "apache-2.0"


@dataclass
class PublishArguments:
    """The number of languages, and the length of their strings."""

    output_dir: str = field(default="", metadata={"help": "New folder for the data set."})
    num_train: int = field(default=40_000, metadata={"help": "Training sequences."})
    num_validation: int = field(default=500, metadata={"help": "Validation sequences."})
    num_test: int = field(default=500, metadata={"help": "Test sequences."})
    max_string_length: int = field(default=49, metadata={"help": "Symbols of the longest string."})
    in_distribution: bool = field(
        default=False,
        metadata={"help": "Validation and test draw new sequences from the training languages."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of languages and sequences."})

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must be given")
        sequences = (1, MOST_SEQUENCES)
        check_range(self, num_train=sequences, num_validation=sequences, num_test=sequences)
        check_range(self, max_string_length=(1, LONGEST_STRING), seed=SEED)


def publish(arguments: PublishArguments) -> None:
    """Draws the splits, and writes them with a card to the new folder `output_dir`.

    Raises:
        InputError: if there is something at that folder, or if it cannot be written.
    """
    folder = Path(arguments.output_dir)
    # Before the work, not after it.
    check_free(folder)
    recipe = {name: value for name, value in asdict(arguments).items() if name != "output_dir"}
    splits = load(Sizes(**recipe))
    write_dataset(folder, splits, str(make_card(folder.absolute().name, splits, recipe)))
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in splits.items())
    print(f"The data set is in {folder}: {sizes} sequences")


def make_card(name: str, splits: DatasetDict, recipe: dict[str, Any]) -> DatasetCard:
    """Fills in the card that the Hub shows, `hub_cards/regbench.md`.

    Args:
        name (`str`): name of the folder.
        splits (`DatasetDict`): as `load` returns them.
        recipe (`dict`): the fields of `PublishArguments` but for `output_dir`.
    """
    metadata = DatasetCardData(
        license=LICENSE,
        pretty_name="RegBench for Memory Mosaics",
        tags=["synthetic", "in-context-learning", "formal-languages", "memory-mosaics"],
        task_categories=["text-generation"],
    )
    return DatasetCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        load_name=name,
        splits={split: _measure(split, rows, recipe) for split, rows in splits.items()},
        recipe=recipe,
        states=STATES,
        alphabet=ALPHABET,
        strings=NUM_STRINGS,
        num_symbols=NUM_SYMBOLS,
        separator=SEPARATOR,
    )


def _measure(split: str, rows: Any, recipe: dict[str, Any]) -> dict[str, int]:
    lengths = [len(ids) for ids in rows.with_format(None)["input_ids"]]
    num_languages = recipe["num_train"] if recipe["in_distribution"] else len(rows)
    return {
        "sequences": len(lengths),
        "languages": min(num_languages, len(rows)),
        "tokens": sum(lengths),
        "longest": max(lengths),
    }


EXPERIMENT = Experiment(
    description="Makes RegBench as a data set.", groups=(PublishArguments,), carry_out=publish
)
