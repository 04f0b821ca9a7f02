"""RegBench as a data set that `datasets` and the Hub can read: parquet files and a card."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from mosaic_lab.core.command import check_least
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import replacing, write_text
from mosaic_lab.core.shipped import shipped
from mosaic_lab.core.work import LOCK, OPTIONS, RESULT, Experiment, Run
from mosaic_lab.regbench.automata import ALPHABET, NUM_SYMBOLS, SEPARATOR, STATES
from mosaic_lab.regbench.data import NUM_STRINGS, Sizes, load

TEMPLATE = shipped("hub_cards") / "regbench.md"
LICENSE = "apache-2.0"


@dataclass
class PublishArguments:
    """The number of languages, and the length of their strings."""

    output_dir: str = field(metadata={"help": "Folder for the data set."})
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
        check_least(self, num_train=1, num_validation=1, num_test=1, max_string_length=1, seed=0)


def plan_runs(arguments: PublishArguments) -> list[Run]:
    """Plans the one run that makes the data set, in `output_dir` itself.

    Raises:
        InputError: if there is something of that name already.
    """
    folder = Path(arguments.output_dir)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and not names & {OPTIONS, RESULT}:
        raise InputError(f"output_dir {folder}: there is something already")
    recipe = {name: value for name, value in asdict(arguments).items() if name != "output_dir"}
    return [Run(".", recipe)]


def run_one(run: Run, folder: Path, arguments: PublishArguments) -> dict[str, Any]:
    """Writes the card and the splits.

    Returns:
        `dict`: `sequences`, the number of them in each split.
    """
    splits = load(Sizes(**run.options))
    if (folder / "data").exists():
        raise InputError(f"output_dir {folder}: there are data of an unfinished run; delete them")
    with replacing(folder / "data") as partial:
        partial.mkdir()
        for split, rows in splits.items():
            rows.with_format(None).to_parquet(partial / f"{split}-00000-of-00001.parquet")
    write_text(folder / "README.md", f"{make_card(folder.absolute().name, splits, run.options)}\n")
    return {"sequences": {split: len(rows) for split, rows in splits.items()}}


def report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Says where the data set is."""
    sizes = ", ".join(f"{split} {number:,}" for split, number in results[0]["sequences"].items())
    return f"The data set is in {folder}: {sizes} sequences"


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
    description="Makes RegBench as a data set.",
    groups=(PublishArguments,),
    plan=plan_runs,
    run=run_one,
    report=report,
)
