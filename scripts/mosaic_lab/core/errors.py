"""Errors that the user can correct: one line on the terminal, exit status 2, no traceback."""

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A line on the terminal is enough for those who gave wrong input; with this set, the traceback comes first.
TRACEBACK = "MOSAIC_TRACEBACK"
_LONG_LINE = 200
_PROGRAMS = str(Path(__file__).parents[1]) + os.sep


class InputError(ValueError):
    """Wrong input by the user; the message names it."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, on the way to the end of the process as Ctrl-C is."""


@contextmanager
def reported_as(program: str, resume: str = "") -> Iterator[None]:
    """Ends the process with one line for errors that the user can correct, and for signals.

    Such errors become `program: error: ...` and exit status 2; see `explain` for which they are. Ctrl-C ends
    with status 130, SIGTERM with 143.

    Args:
        program (`str`): name in front of the line; the command's name instead if `mosaic` runs it.
        resume (`str`): for stopped programs, how to resume.
    """
    program = _called_as(program)
    before = _catch_sigterm()
    try:
        yield
    except KeyboardInterrupt as stop:
        print(f"\n{program}: stopped" + (f"; {resume}" if resume else ""), file=sys.stderr)
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        print(f"{program}: error: {_printable(message)}", file=sys.stderr)
        sys.exit(2)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def explain(error: Exception) -> str | None:
    """The message for an error that the user can correct; `None` for a bug of ours.

    The user's are `InputError`, what the machine refuses (`OSError`, `MemoryError`), a missing package
    (`ImportError`), exceptions of types that libraries define, and built-in ones that are raised in the code
    of a library: transformers, torch, the standard library; `modeling_mosaic` too, for a `ValueError` or a
    `TypeError`, with which it refuses arguments. Built-in ones that are raised in the programs' own code are
    bugs, and so are `AttributeError` and `NameError` anywhere. The cause of an exception counts in its place.
    """
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    if isinstance(cause, InputError):
        return str(cause)
    if not _is_users(cause):
        return None
    if isinstance(cause, OSError) and cause.strerror and cause.filename is not None:
        return f"{os.fsdecode(cause.filename)}: {cause.strerror}"
    first, last = first_line(error), first_line(cause)
    message = first if last in first else f"{first}: {last}"
    module = _raised_in(cause)
    # Its messages tell enough.
    if module.startswith("modeling_mosaic"):
        return message
    return f"{message} ({type(cause).__name__}{f' in {module}' if module else ''})"


def first_line(error: BaseException) -> str:
    """What went wrong, without the advice that libraries append."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    sentence, *_ = re.split(r"(?<=[.!]) (?=[A-Z])", line)
    return line if len(line) <= _LONG_LINE else sentence


def _is_users(error: BaseException) -> bool:
    library = _raised_in(error).partition(".")[0]
    if isinstance(error, ImportError):
        return (error.name or "").partition(".")[0] not in ("mosaic_lab", "modeling_mosaic")
    if isinstance(error, AttributeError | NameError):
        return False
    if isinstance(error, OSError | MemoryError) or type(error).__module__ != "builtins":
        return True
    if library == "modeling_mosaic":
        return isinstance(error, ValueError | TypeError)
    return library != "mosaic_lab"


def _raised_in(error: BaseException) -> str:
    """Module of the innermost frame; that of the programs is `mosaic_lab` under whatever name it runs."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames:
        return ""
    if frames[-1].f_code.co_filename.startswith(_PROGRAMS):
        return "mosaic_lab"
    return frames[-1].f_globals.get("__name__", "")


def _printable(message: str) -> str:
    """In one line, whatever a path or a text in it may do to a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(message.split()))


def _called_as(program: str) -> str:
    called, _, command = Path(sys.argv[0]).name.partition(" ")
    return command if called == "mosaic" and command else program


def _catch_sigterm():
    """Lets SIGTERM unwind this process as Ctrl-C does; returns the handler before, `None` if not possible."""
    if threading.current_thread() is not threading.main_thread():
        return None
    process = os.getpid()

    def stop(number, frame):
        # Worker processes inherit the handler and should just end.
        if os.getpid() != process:
            os._exit(128 + number)
        raise _Terminated

    return signal.signal(signal.SIGTERM, stop)
