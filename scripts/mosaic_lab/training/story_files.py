"""Reads stories from files, whole or in pieces."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading
from mosaic_lab.core.hub_access import first_line

END_OF_TEXT = "<|endoftext|>"
SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")
# Bytes of a piece, and those of a text file that tell how its stories end.
PIECE_SIZE = 16 * 2**20


class Piece(NamedTuple):
    """A part of a file, which is read for itself: the stories that begin in it.

    Args:
        path (`str`): the file.
        kind (`str`): how stories are written in it, a key of `READERS`.
        begin (`int`): its first byte, of a parquet file its first row group.
        end (`int`, *optional*): the first one behind it; `None` for the last piece of a file.
    """

    path: str
    kind: str
    begin: int = 0
    end: int | None = None


def cut(path: Path, size: int | None = None) -> list[Piece]:
    """The pieces of a file, in order.

    Stories in a text file end with `<|endoftext|>` if that occurs in its first 16 MiB, and with a blank line
    otherwise. If its first lines are JSON strings, as in the released BabiStories, every line is one story.
    JSON lines are objects with a column of text, or strings; a JSON file may also be one array of these,
    which is one piece.

    Args:
        path (`Path`): with a suffix of `SUFFIXES`.
        size (`int`, *optional*): bytes of a piece, roughly; those of a parquet file are its row groups. One
            piece if `None`.

    Raises:
        InputError: if the file cannot be read.
    """
    name = str(path.absolute())
    with reading(path):
        if path.suffix == ".parquet":
            kind, step, total = "parquet", 1, 0
            if size is not None:
                with _open_parquet(name) as file:
                    total = file.num_row_groups
        else:
            kind, step, total = _find_kind(name, path.suffix), size, path.stat().st_size
    if size is None or kind == "array":
        return [Piece(name, kind)]
    begins = [*range(0, total, step)] or [0]
    ends = [*begins[1:], None]
    return [Piece(name, kind, *borders) for borders in zip(begins, ends, strict=True)]


def _find_kind(path: str, suffix: str) -> str:
    with open(path, encoding="utf-8") as file:
        if suffix != ".txt":
            return (
                "array" if next((line.lstrip()[0] for line in file if line.strip()), "") == "[" else "lines"
            )
        if _begins_with_json_strings(file):
            return "strings"
    with open(path, "rb") as file:
        return "marked" if END_OF_TEXT.encode() in file.read(PIECE_SIZE) else "blank"


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


def read_stories(pieces: list[Piece], text_column: str) -> Iterator[dict[str, str]]:
    """Reads the stories of some pieces, one after the other, without blank ones.

    Args:
        pieces (`list[Piece]`): of any files.
        text_column (`str`): column or key of the story.

    Raises:
        InputError: for a file that cannot be read, or that is one piece and holds no story.
    """
    for piece in map(Piece._make, pieces):
        num_stories = 0
        with reading(piece.path):
            for story in READERS[piece.kind](piece, text_column):
                if story.strip():
                    num_stories += 1
                    yield {"text": story}
        if num_stories == 0 and piece.begin == 0 and piece.end is None:
            raise InputError(f"{piece.path}: holds no story")


def _read_lines(piece: Piece) -> Iterator[tuple[bool, str]]:
    """The lines from the first one that begins in the piece on, and whether each begins behind it."""
    with open(piece.path, "rb") as file:
        if piece.begin > 0:
            # A line that begins with the piece begins in it.
            file.seek(piece.begin - 1)
            file.readline()
        place = file.tell()
        for line in file:
            is_behind = piece.end is not None and place >= piece.end
            yield is_behind, line.decode("utf-8").replace("\r\n", "\n")
            place += len(line)


def _read_text(piece: Piece, text_column: str) -> Iterator[str]:
    """Stories that begin behind a mark or a blank line which is in a line of this piece."""
    story = [] if piece.begin == 0 else None
    for is_behind, line in _read_lines(piece):
        if piece.kind == "marked":
            *ended, line = line.split(END_OF_TEXT)
        elif END_OF_TEXT in line:
            raise InputError(f"{piece.path}: has {END_OF_TEXT}, but not in its first {PIECE_SIZE:,} bytes")
        else:
            ended = [] if line.strip() else [""]
        for ending in ended:
            if story is not None:
                yield "".join([*story, ending]).strip()
            if is_behind:
                return
            story = []
        if story is not None:
            story.append(line)
        elif is_behind:
            return
    yield "".join(story or []).strip()


def _read_json_lines(piece: Piece, text_column: str) -> Iterator[str]:
    place = f"{piece.path}, from byte {piece.begin:,} on" if piece.begin > 0 else piece.path
    lines = (line for _, line in takewhile(lambda line: not line[0], _read_lines(piece)))
    yield from _find_stories(place, parse_lines(place, lines), text_column)


def _read_json_strings(piece: Piece, text_column: str) -> Iterator[str]:
    try:
        yield from _read_json_lines(piece, text_column)
    except InputError as error:
        raise InputError(f"{error} (its first lines are JSON strings, so all must be)") from error


def _read_json_array(piece: Piece, text_column: str) -> Iterator[str]:
    records = _parse(Path(piece.path).read_text(encoding="utf-8"), piece.path, 1)
    items = ((f"item {number}", record) for number, record in enumerate(records, start=1))
    yield from _find_stories(piece.path, items, text_column)


def _find_stories(path: str, records: Iterable[tuple[str, Any]], text_column: str) -> Iterator[str]:
    for place, record in records:
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


def parse_lines(path: str, lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Parses JSON lines; blank ones are left out.

    Returns:
        `Iterator[tuple[str, Any]]`: `line n`, and what is in that line.

    Raises:
        InputError: for a line that is not JSON; the message names the file and line.
    """
    for number, line in enumerate(lines, start=1):
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


@contextmanager
def _open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a parquet file: {first_line(error)}") from error


def _read_parquet(piece: Piece, text_column: str) -> Iterator[str]:
    with _open_parquet(piece.path) as file:
        if text_column not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names)
            raise InputError(f"{piece.path}: no text_column {text_column!r}, only {columns}")
        kind = file.schema_arrow.field(text_column).type
        groups = range(piece.begin, file.num_row_groups if piece.end is None else piece.end)
        for batch in file.iter_batches(row_groups=groups, columns=[text_column]):
            for story in batch.column(0).to_pylist():
                if not isinstance(story, str | None):
                    raise InputError(f"{piece.path}: text_column {text_column!r} holds {kind}, not text")
                yield story or ""


READERS = {
    "marked": _read_text,
    "blank": _read_text,
    "strings": _read_json_strings,
    "lines": _read_json_lines,
    "array": _read_json_array,
    "parquet": _read_parquet,
}
