"""Loads stories from files, folders, the Hub or the embedded grammar: `datasets` with one column `text`."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value, load_dataset
from datasets.data_files import DataFilesDict, get_data_patterns
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading
from mosaic_lab.core.hub_access import first_line
from mosaic_lab.stories import grammar
from mosaic_lab.stories.loading import text_folder
from mosaic_lab.training.options import EMBEDDED_CORPUS, DataArguments

END_OF_TEXT = "<|endoftext|>"
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
    if arguments.validation_fraction == 0:
        return train, None
    num_held_out = count_held_out(len(train), arguments.validation_fraction)
    held_out = train.train_test_split(num_held_out, seed=arguments.corpus_seed)
    return held_out["train"], held_out["test"]


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


def stream_stories(arguments: DataArguments) -> tuple[IterableDataset, Dataset | None]:
    """Reads stories while training: `load_stories` for data that are too large to be copied into a cache.

    Validation stories come from the validation split only: how many stories could be held out of a stream is
    not known. Errors in the data are raised when they are reached.
    """
    source, column = Path(arguments.dataset).expanduser(), arguments.text_column
    if arguments.dataset == EMBEDDED_CORPUS:
        told = {"num_stories": arguments.num_stories, "seed": arguments.corpus_seed}
        return IterableDataset.from_generator(_tell, TEXT, gen_kwargs=told), None
    if source.is_dir():
        files = _list_files(source)
    elif source.suffix in READERS:
        files = {arguments.train_split: [source]}
    elif source.exists():
        raise InputError(f"{source}: unknown kind of data file; {', '.join(READERS)} can be read")
    else:
        splits = _download(arguments, streaming=True)
        _refuse_without_training_split(arguments, splits)
        held_out = splits.get(arguments.validation_split)
        return splits[arguments.train_split], held_out and Dataset.from_list(list(held_out), TEXT)
    _refuse_without_training_split(arguments, files)
    paths = {"paths": [str(path.absolute()) for path in files[arguments.train_split]], "text_column": column}
    held_out = files.get(arguments.validation_split)
    return (
        IterableDataset.from_generator(read_stories, TEXT, gen_kwargs=paths),
        held_out and _read(held_out, column),
    )


def _refuse_without_training_split(arguments: DataArguments, splits: dict) -> None:
    if arguments.train_split not in splits:
        raise InputError(f"{arguments.dataset}: no split {arguments.train_split!r}, only {', '.join(splits)}")


def load_splits(arguments: DataArguments) -> dict[str, Dataset]:
    """Loads all splits of the data; a single file, and the embedded stories, are `train_split`."""
    source = Path(arguments.dataset).expanduser()
    if arguments.dataset == EMBEDDED_CORPUS:
        told = {"num_stories": arguments.num_stories, "seed": arguments.corpus_seed}
        engine, text = Path(grammar.__file__).parent.glob("*.py"), text_folder().glob("*.yaml")
        return {arguments.train_split: _cached(_tell, told, sorted([*engine, *text]))}
    if source.is_dir():
        files = _list_files(source)
        return {split: _read(paths, arguments.text_column) for split, paths in files.items()}
    if source.suffix in READERS:
        return {arguments.train_split: _read([source], arguments.text_column)}
    if source.exists():
        raise InputError(f"{source}: unknown kind of data file; {', '.join(READERS)} can be read")
    return _download(arguments)


def _tell(num_stories: int, seed: int) -> Iterator[dict[str, str]]:
    for story in grammar.tell_stories(num_stories, seed):
        yield {"text": story}


def _list_files(folder: Path) -> dict[str, list[Path]]:
    # First, since the authors' own preparation leaves train.bin beside them, which looks like a split.
    released = {split: sorted(folder.rglob(name)) for name, split in RELEASED_SPLITS.items()}
    if any(released.values()):
        return {split: paths for split, paths in released.items() if paths}
    try:
        patterns = get_data_patterns(str(folder))
        files = DataFilesDict.from_local_or_remote(patterns, str(folder), allowed_extensions=list(READERS))
    except FileNotFoundError:
        files = {}
    if not any(files.values()):
        raise InputError(f"{folder}: no data files ({', '.join(READERS)}) in this folder")
    return {str(split): sorted(map(Path, paths)) for split, paths in files.items() if paths}


def _read(paths: list[Path], text_column: str) -> Dataset:
    return _cached(
        read_stories, {"paths": [str(path.absolute()) for path in paths], "text_column": text_column}, paths
    )


def _cached(generator: Callable, arguments: dict, sources: list[Path]) -> Dataset:
    """Caches the generator's stories until its arguments, its sources or this code change."""
    try:
        stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (*sources, Path(__file__))]
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


def read_stories(paths: list[str], text_column: str) -> Iterator[dict[str, str]]:
    """Reads the stories of some files, one file after the other, without blank ones.

    Stories in a text file end with `<|endoftext|>` if that occurs in it, and with a blank line otherwise. If
    its first lines are JSON strings, as in the released BabiStories, every line is one story. JSON lines are
    objects with a column `text_column`, or strings; a JSON file may also be one array of these.

    Args:
        paths (`list[str]`): files with a suffix in `READERS`.
        text_column (`str`): column or key of the story.

    Raises:
        InputError: for a file that cannot be read or holds no story.
    """
    for path in paths:
        num_stories = 0
        with reading(path):
            try:
                for story in READERS[Path(path).suffix](path, text_column):
                    if story.strip():
                        num_stories += 1
                        yield {"text": story}
            except pa.ArrowInvalid as error:
                raise InputError(f"{path}: not a parquet file: {first_line(error)}") from error
        if num_stories == 0:
            raise InputError(f"{path}: holds no story")


def _read_text(path: str, text_column: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        if _begins_with_json_strings(file):
            try:
                yield from _read_json(path, text_column)
            except InputError as error:
                raise InputError(f"{error} (its first lines are JSON strings, so all must be)") from error
            return
        file.seek(0)
        is_marked = any(END_OF_TEXT in line for line in file)
        file.seek(0)
        story = []
        for line in file:
            if is_marked:
                *ended, line = line.split(END_OF_TEXT)
            else:
                ended = [] if line.strip() else [""]
            for ending in ended:
                yield "".join([*story, ending]).strip()
                story = []
            story.append(line)
        yield "".join(story).strip()


def _begins_with_json_strings(file: TextIO) -> bool:
    """Whether the first line is a JSON string and the second one may be; blank lines do not count.

    One line is not enough: a plain story may begin with a line of dialogue, in quotation marks.
    """
    lines = list(islice((line.strip() for line in file if line.strip()), 2))
    if not lines or not all(line.startswith('"') for line in lines):
        return False
    try:
        json.loads(lines[0])
    except json.JSONDecodeError:
        return False
    return True


def _read_json(path: str, text_column: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        is_array = next((line.lstrip()[0] for line in file if line.strip()), "") == "["
        file.seek(0)
        for place, record in (_parse_array if is_array else parse_lines)(path, file):
            story = record.get(text_column) if isinstance(record, dict) else record
            if not isinstance(story, str):
                found = f", only {', '.join(record)}" if isinstance(record, dict) else ""
                raise InputError(
                    f"{path}, {place}: neither a string nor an object with a string {text_column!r}{found}"
                )
            try:
                check_unicode(story)
            except ValueError as error:
                raise InputError(f"{path}, {place}: {error}") from error
            yield story.strip()


def check_unicode(text: str) -> None:
    """Refuses what JSON can say and UTF-8 cannot.

    Raises:
        ValueError: for a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not Unicode: a lone surrogate, character {error.start + 1}") from error


def _parse_array(path: str, file: TextIO) -> Iterator[tuple[str, Any]]:
    records = _parse(file.read(), path, 1)
    yield from ((f"item {number}", record) for number, record in enumerate(records, start=1))


def parse_lines(path: str, file: TextIO) -> Iterator[tuple[str, Any]]:
    """Parses JSON lines; blank ones are left out.

    Returns:
        `Iterator[tuple[str, Any]]`: `line n`, and what is in that line.

    Raises:
        InputError: for a line that is not JSON; the message names the file and line.
    """
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield f"line {number}", _parse(line, path, number)


def _parse(text: str, path: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {line + error.lineno - 1}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{path}, line {line}: nested too deeply") from error
    except ValueError as error:
        # A number of thousands of digits.
        raise InputError(f"{path}, line {line}: {first_line(error)}") from error


def _read_parquet(path: str, text_column: str) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        if text_column not in file.schema_arrow.names:
            raise InputError(
                f"{path}: no text_column {text_column!r}, only {', '.join(file.schema_arrow.names)}"
            )
        kind = file.schema_arrow.field(text_column).type
        for batch in file.iter_batches(columns=[text_column]):
            for story in batch.column(0).to_pylist():
                if not isinstance(story, str | None):
                    raise InputError(f"{path}: text_column {text_column!r} holds {kind}, not text")
                yield story or ""


READERS = {
    ".txt": _read_text,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
