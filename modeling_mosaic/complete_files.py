"""Files and folders that appear once they are complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a new name beside `path` for a file or a folder, and moves it to `path` once it is complete.

    What was written is on the disk before it gets its name. If the block fails, it is deleted and `path`
    stays as it was. A folder takes the place of nothing or of an empty folder only.

    Raises:
        ValueError: if nothing can be written there.
    """
    path = Path(path).absolute()
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        place = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        partial = place / path.name
        yield partial
        (place / "mode").touch()
        for written in (partial, *partial.rglob("*")):
            if written.is_file():
                # safetensors keeps its files from other users; these are like any other file.
                written.chmod((place / "mode").stat().st_mode)
            sync(written)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        shutil.rmtree(place)


def sync(path: str | os.PathLike) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
