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
                with written.open("rb") as file:
                    os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        shutil.rmtree(place)
