"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

# Wider columns, of whole texts, are not aligned.
WIDEST = 80


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned, so that it is readable as plain text too.

    Args:
        head (`Sequence[str]`): titles of the columns.
        rows (`Iterable[Sequence[str]]`): as many cells as `head` each.

    Returns:
        `str`: one line per row, ended by a line end; bars and line ends in cells are escaped.
    """
    head, *rows = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    widths = [width if width <= WIDEST else 3 for width in widths]
    lines = [head, ["-" * width for width in widths], *rows]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )
