"""Loads stories from files, folders, the Hub or the embedded grammar: `datasets` with one column `text`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    Value,
    concatenate_datasets,
    load_dataset,
)
from datasets.data_files import DataFilesDict, get_data_patterns
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.hub_access import first_line
from mosaic_lab.stories import grammar
from mosaic_lab.stories.loading import text_folder
from mosaic_lab.training import story_files
from mosaic_lab.training.options import EMBEDDED_CORPUS, DataArguments
from mosaic_lab.training.story_files import PIECE_SIZE, SUFFIXES, cut, read_stories

TEXT = Features({"text": Value("string")})
# The files of the released BabiStories, whose names `datasets` does not take for those of splits.
RELEASED_SPLITS = {"traindataset.txt": "train", "valdataset.txt": "validation"}


def load_stories(arguments: DataArguments) -> tuple[Dataset, Dataset | None]:
    """Loads the training and the validation stories; `datasets` caches them, so that they are read once.

    Args:
        arguments (`DataArguments`): where the stories are. A file in a folder belongs to the split in its
            name, as `datasets` reads names (`validation.jsonl`, `test-00000.parquet`; `traindataset.txt` and
            `valdataset.txt` too), and to training if there is none.

    Returns:
        `tuple[Dataset, Dataset | None]`: training and validation stories, each with a column `text`. `None`
        if the data have no validation split and `validation_fraction` is 0.

    Raises:
        InputError: for data that are missing, empty or unreadable; the message names the file and line.
    """
    splits = load_splits(arguments)
    _refuse_without_training_split(arguments, splits)
    train = splits[arguments.train_split]
    if arguments.validation_split in splits:
        return train, splits[arguments.validation_split]
    validation = None
    if arguments.validation_fraction > 0:
        num_held_out = count_held_out(len(train), arguments.validation_fraction)
        held_out = train.train_test_split(num_held_out, seed=arguments.corpus_seed)
        train, validation = held_out["train"], held_out["test"]
    if arguments.single_plot_stories:
        opening = _load_embedded(arguments.corpus_seed, arguments.single_plot_stories, num_plots=1)
        train = concatenate_datasets([opening, train])
    return train, validation


def count_held_out(num_stories: int, validation_fraction: float) -> int:
    """How many stories to hold out for validation: the fraction, but one at least.

    Raises:
        InputError: if none would be left to train on.
    """
    number = max(1, round(validation_fraction * num_stories))
    if number >= num_stories:
        raise InputError(
            f"validation_fraction {validation_fraction}: holds out {number:,} of the {num_stories:,} stories "
            "and leaves none to train on; 0 holds out none"
        )
    return number


def stream_stories(
    arguments: DataArguments, is_shuffled: bool = False
) -> tuple[IterableDataset, Dataset | None]:
    """Reads stories while training: `load_stories` for data that are too large to be copied into a cache.

    Validation stories come from the validation split only: how many stories could be held out of a stream is
    not known. Errors in the data are raised when they are reached.

    Args:
        arguments (`DataArguments`): where the stories are.
        is_shuffled (`bool`): whether the pieces of files (`cut`) come in an order that `corpus_seed` draws.
    """
    source, column = Path(arguments.dataset).expanduser(), arguments.text_column
    if arguments.dataset == EMBEDDED_CORPUS:
        parts = [(arguments.single_plot_stories, 1), (arguments.num_stories, None)]
        told = {"seed": arguments.corpus_seed, "parts": parts}
        return IterableDataset.from_generator(_tell, TEXT, gen_kwargs=told), None
    if source.is_dir():
        files = _list_files(source)
    elif source.suffix in SUFFIXES:
        files = {arguments.train_split: [source]}
    elif source.exists():
        raise InputError(f"{source}: unknown kind of data file; {', '.join(SUFFIXES)} can be read")
    else:
        splits = _download(arguments, streaming=True)
        _refuse_without_training_split(arguments, splits)
        held_out = splits.get(arguments.validation_split)
        return splits[arguments.train_split], held_out and Dataset.from_list(list(held_out), TEXT)
    _refuse_without_training_split(arguments, files)
    # Each is a shard for `datasets`, which keeps count of those that have been read.
    pieces = [piece for path in files[arguments.train_split] for piece in cut(path, PIECE_SIZE)]
    if is_shuffled:
        order = np.random.default_rng(arguments.corpus_seed).permutation(len(pieces))
        pieces = [pieces[index] for index in order]
    read = {"pieces": pieces, "text_column": column}
    held_out = files.get(arguments.validation_split)
    return (
        IterableDataset.from_generator(read_stories, TEXT, gen_kwargs=read),
        held_out and _read(held_out, column),
    )


def _refuse_without_training_split(arguments: DataArguments, splits: dict) -> None:
    if arguments.train_split not in splits:
        raise InputError(f"{arguments.dataset}: no split {arguments.train_split!r}, only {', '.join(splits)}")


def load_splits(arguments: DataArguments) -> dict[str, Dataset]:
    """Loads all splits of the data; a single file, and the embedded stories, are `train_split`."""
    source = Path(arguments.dataset).expanduser()
    if arguments.dataset == EMBEDDED_CORPUS:
        return {arguments.train_split: _load_embedded(arguments.corpus_seed, arguments.num_stories)}
    if source.is_dir():
        files = _list_files(source)
        return {split: _read(paths, arguments.text_column) for split, paths in files.items()}
    if source.suffix in SUFFIXES:
        return {arguments.train_split: _read([source], arguments.text_column)}
    if source.exists():
        raise InputError(f"{source}: unknown kind of data file; {', '.join(SUFFIXES)} can be read")
    return _download(arguments)


def _load_embedded(seed: int, num_stories: int, num_plots: int | None = None) -> Dataset:
    told = {"seed": seed, "parts": [(num_stories, num_plots)]}
    engine, text = Path(grammar.__file__).parent.glob("*.py"), text_folder().glob("*.yaml")
    return _cached(_tell, told, sorted([*engine, *text]))


def _tell(seed: int, parts: list[tuple[int, int | None]]) -> Iterator[dict[str, str]]:
    for num_stories, num_plots in parts:
        for story in grammar.tell_stories(num_stories, seed, num_plots):
            yield {"text": story}


def _list_files(folder: Path) -> dict[str, list[Path]]:
    # First, since the authors' own preparation leaves train.bin beside them, which looks like a split.
    released = {split: sorted(folder.rglob(name)) for name, split in RELEASED_SPLITS.items()}
    if any(released.values()):
        return {split: paths for split, paths in released.items() if paths}
    try:
        patterns = get_data_patterns(str(folder))
        files = DataFilesDict.from_local_or_remote(patterns, str(folder), allowed_extensions=list(SUFFIXES))
    except FileNotFoundError:
        files = {}
    if not any(files.values()):
        raise InputError(f"{folder}: no data files ({', '.join(SUFFIXES)}) in this folder")
    return {str(split): sorted(map(Path, paths)) for split, paths in files.items() if paths}


def _read(paths: list[Path], text_column: str) -> Dataset:
    pieces = [piece for path in paths for piece in cut(path)]
    return _cached(read_stories, {"pieces": pieces, "text_column": text_column}, paths)


def _cached(generator: Callable, arguments: dict, sources: list[Path]) -> Dataset:
    """Caches the generator's stories until its arguments, its sources or this code change."""
    try:
        stamps = [
            (path.stat().st_size, path.stat().st_mtime_ns)
            for path in (*sources, Path(__file__), Path(story_files.__file__))
        ]
        fingerprint = Hasher.hash([generator.__name__, arguments, stamps])
        return Dataset.from_generator(generator, TEXT, gen_kwargs=arguments, fingerprint=fingerprint)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _download(arguments: DataArguments, **options) -> DatasetDict:
    """Loads a Hub dataset, reduced to its text column."""
    name, column = arguments.dataset, arguments.text_column
    try:
        splits = load_dataset(name, arguments.dataset_config, **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"dataset {name}: neither a file nor a dataset on the Hub: {first_line(error)}"
        ) from error
    for split, dataset in splits.items():
        if column not in dataset.column_names:
            columns = ", ".join(dataset.column_names)
            raise InputError(f"dataset {name}: no text_column {column!r} in {split}, only {columns}")
    return splits.select_columns(column).rename_columns({column: "text"} if column != "text" else {})
