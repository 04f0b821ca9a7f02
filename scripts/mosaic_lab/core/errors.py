"""Errors that are the user's to mend: one line on the terminal, exit status 2, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something that the user gave is wrong; the message names it."""


@contextmanager
def reported_as(program: str) -> Iterator[None]:
    """Turns an `InputError` into the line `program: error: ...` and exit status 2, Ctrl-C into status 130."""
    try:
        yield
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        sys.exit(130)
