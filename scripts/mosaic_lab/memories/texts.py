"""Texts that are to be read into a memory, from files of any kind."""

from pathlib import Path

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading
from mosaic_lab.training.corpus import load_splits
from mosaic_lab.training.options import DataArguments

# Files with a text a row; any other is a text of its own.
TABLES = (".jsonl", ".parquet")


def load_texts(files: list[str], text_column: str = "text") -> dict[str, str]:
    """The texts of files by name: a file's own path, or, of tables, that and the number of the row.

    Raises:
        InputError: for a file that is named twice, is missing, or is no text in UTF-8; and if there is no
            text at all.
    """
    texts: dict[str, str] = {}
    for file in files:
        if files.count(file) > 1:
            raise InputError(f"files: {file} is named twice")
        if Path(file).suffix in TABLES:
            (rows,) = load_splits(DataArguments(dataset=file, text_column=text_column)).values()
            texts |= {f"{file}:{number}": text for number, text in enumerate(rows["text"])}
        else:
            with reading(file):
                texts[file] = Path(file).read_text(encoding="utf-8")
    empty = [name for name, text in texts.items() if not text.strip()]
    if empty or not texts:
        raise InputError(f"{empty[0] if empty else 'files'}: there is no text in it")
    return texts
