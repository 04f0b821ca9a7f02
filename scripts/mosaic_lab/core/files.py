"""Atomic file writes."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from modeling_mosaic import complete_files
from mosaic_lab.core.errors import InputError

# Held while a program writes into an output folder. Uploads of a folder by transformers pass over such names.
LOCK = "_lock"


def make_folder(folder: str | os.PathLike) -> Path:
    """Creates an output folder if it is not there.

    Raises:
        InputError: if that is not possible.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir {folder}: cannot be written: {error.strerror}") from error
    return folder


def missing_folders(folder: str | os.PathLike) -> list[Path]:
    """The folder and those that it lies in, from the inside, as far as they are not there yet."""
    folder = Path(folder).absolute()
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Deletes folders, listed from the inside, up to the first one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def occupying(folder: str | os.PathLike) -> Iterator[None]:
    """Makes an output folder, and keeps other programs out of it until the block ends.

    The lock ends with its process, however that ends. Folders that were made here and are empty at the end go
    again.

    Raises:
        InputError: if another program is at work in the folder, or if nothing can be written there.
    """
    folder = Path(folder).absolute()
    made = missing_folders(folder)
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output_dir {folder}: another program is at work in this folder") from None
    except OSError as error:
        raise InputError(f"output_dir {folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        # Before it is released: afterwards it could be another program's.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        remove_empty(made)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """The library's `replacing`.

    Raises:
        InputError: if nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            partial = stack.enter_context(complete_files.replacing(path))
        except ValueError as error:
            raise InputError(error) from error
        yield partial


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file as `replacing` does."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """`write_text` of `content` as JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def reading(name: str | os.PathLike) -> Iterator[None]:
    """Turns what goes wrong while a file of text is read into an `InputError` that begins with `name`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not text in UTF-8: {error.reason} at byte {error.start}") from error


def read_json(path: str | os.PathLike) -> Any:
    """What `write_json` wrote; `None` if there is no such file.

    Raises:
        InputError: if it is damaged or cannot be read.
    """
    with reading(path):
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: damaged, not JSON: {error}") from error


def read_object(path: str | os.PathLike) -> dict[str, Any] | None:
    """What `write_json` wrote of a dictionary; `None` if there is no such file.

    Raises:
        InputError: if it is damaged, cannot be read or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict) and (content is not None or os.path.exists(path)):
        raise InputError(f"{path}: damaged, not an object of JSON")
    return content


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Writes a compressed `.npz` file as `replacing` does."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def describe_difference(before: Any, now: Any) -> str:
    """`name value, not other value` for all entries of two dictionaries that differ, else for the two.

    Entries of dictionaries in them are named `outer.inner`.
    """
    return ", ".join(_list_differences(before, now, ""))


def _list_differences(before: Any, now: Any, name: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _list_differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} {before!r}, not {now!r}".lstrip()
