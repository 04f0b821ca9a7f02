"""Stories from files, folders, the Hub or the embedded generator, as `datasets` with one column `text`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value, load_dataset
from datasets.data_files import DataFilesDict, get_data_patterns
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

import mosaic_lab.stories.grammar
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.hub_access import first_line
from mosaic_lab.training.options import EMBEDDED_CORPUS, DataArguments

END_OF_TEXT = "<|endoftext|>"
TEXT = Features({"text": Value("string")})


def load_stories(arguments: DataArguments) -> tuple[Dataset, Dataset | None]:
    """The stories to train on and those to validate on, read once and cached by `datasets`.

    Args:
        arguments (`DataArguments`): where the stories are. A folder's files belong to the split in their
            names, as `datasets` reads them (`validation.jsonl`, `test-00000.parquet`), else to training.

    Returns:
        `tuple[Dataset, Dataset | None]`: a column `text` each; no validation stories if the data has none and
        `validation_fraction` is 0.

    Raises:
        InputError: for data that is missing, empty or cannot be read; the message names the file and line.
    """
    splits = load_splits(arguments)
    _refuse_without_training_split(arguments, splits)
    train = splits[arguments.train_split]
    if arguments.validation_split in splits:
        return train, splits[arguments.validation_split]
    if arguments.validation_fraction == 0:
        return train, None
    if len(train) < 2:
        raise InputError(f"{arguments.dataset}: one story, none to hold out; set validation_fraction to 0")
    held_out = train.train_test_split(
        max(1, round(arguments.validation_fraction * len(train))), seed=arguments.corpus_seed
    )
    return held_out["train"], held_out["test"]


def stream_stories(arguments: DataArguments) -> tuple[IterableDataset, Dataset | None]:
    """`load_stories` for data that fits neither into memory nor twice on the disk: read while training.

    Validation stories are those of the validation split; none are held out, since nobody knows how many there
    are. Wrong data are found when they are read.
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
    """All splits of the data; a single file and the embedded stories are `train_split`."""
    source = Path(arguments.dataset).expanduser()
    if arguments.dataset == EMBEDDED_CORPUS:
        told = {"num_stories": arguments.num_stories, "seed": arguments.corpus_seed}
        return {
            arguments.train_split: _cached(
                _tell, told, sorted(Path(mosaic_lab.stories.grammar.__file__).parent.glob("*.py"))
            )
        }
    if source.is_dir():
        files = _list_files(source)
        return {split: _read(paths, arguments.text_column) for split, paths in files.items()}
    if source.suffix in READERS:
        return {arguments.train_split: _read([source], arguments.text_column)}
    if source.exists():
        raise InputError(f"{source}: unknown kind of data file; {', '.join(READERS)} can be read")
    return _download(arguments)


def _tell(num_stories: int, seed: int) -> Iterator[dict[str, str]]:
    for story in mosaic_lab.stories.grammar.tell_stories(num_stories, seed):
        yield {"text": story}


def _list_files(folder: Path) -> dict[str, list[Path]]:
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
    """The generator's stories; those of an earlier run unless arguments, sources or this code changed."""
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
    """A Hub dataset, reduced to its text column."""
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
    """The stories of some files, one after the other, without blank ones.

    A text file's stories end with `<|endoftext|>` if that occurs in it, else with a blank line. JSON lines
    are objects with a column `text_column`, or plain strings; a JSON file may also be one array of them.

    Raises:
        InputError: for a file that cannot be read or holds no story.
    """
    for path in paths:
        num_stories = 0
        try:
            for story in READERS[Path(path).suffix](path, text_column):
                if story.strip():
                    num_stories += 1
                    yield {"text": story}
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from error
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a parquet file: {first_line(error)}") from error
        if num_stories == 0:
            raise InputError(f"{path}: holds no story")


def _read_text(path: str, text_column: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
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


def _read_json(path: str, text_column: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        is_array = next((line.lstrip()[0] for line in file if line.strip()), "") == "["
        file.seek(0)
        for place, record in (_parse_array if is_array else _parse_lines)(path, file):
            story = record.get(text_column) if isinstance(record, dict) else record
            if not isinstance(story, str):
                found = f", only {', '.join(record)}" if isinstance(record, dict) else ""
                raise InputError(
                    f"{path}, {place}: neither a string nor an object with a string {text_column!r}{found}"
                )
            yield story.strip()


def _parse_array(path: str, file: TextIO) -> Iterator[tuple[str, Any]]:
    try:
        records = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    yield from ((f"item {number}", record) for number, record in enumerate(records, start=1))


def _parse_lines(path: str, file: TextIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not JSON: {error.msg}") from error
            yield f"line {number}", record


def _read_parquet(path: str, text_column: str) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        if text_column not in file.schema_arrow.names:
            raise InputError(
                f"{path}: no text_column {text_column!r}, only {', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(columns=[text_column]):
            for story in batch.column(0).to_pylist():
                yield story or ""


READERS = {
    ".txt": _read_text,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
