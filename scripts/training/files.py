"""Files that are never half there."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from training.errors import InputError


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


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` beside `path`, and moves it there once it is complete."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """`write_text` of `content` as JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """What `write_json` wrote; `None` if there is no such file."""
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Writes a compressed `.npz` file beside `path`, and moves it there once it is complete."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def describe_difference(before: Any, now: Any) -> str:
    """`name value, not other value` for all entries of two dictionaries that differ, else for the two."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return ", ".join(f"{name} {before.get(name)!r}, not {now.get(name)!r}" for name in names)
    return f"{before!r}, not {now!r}"
