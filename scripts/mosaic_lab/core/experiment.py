"""What the programs of all experiments do."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as
from mosaic_lab.core.work import Point, leave_group, work_through
from mosaic_lab.training.options import TrainingArguments, check_output_dir


def run_experiment(
    name: str,
    description: str,
    options: type,
    plan: Callable[[Any, TrainingArguments], list[Point]],
    run: Callable[[Point, Path, TrainingArguments], dict[str, Any]],
    report: Callable[[Path, list[dict[str, Any]]], str],
    argv: list[str] | None,
) -> None:
    """Does what is left of a recipe's runs; once there is nothing left, reports.

    Args:
        name (`str`): of the program, in front of errors.
        description (`str`): of the program, for its help.
        options (`type`): dataclass of the options besides the Trainer's.
        plan (`Callable`): the runs, from both kinds of options.
        run (`Callable`): does one in a folder with the Trainer's options, see `work_through`.
        report (`Callable`): writes all results into the folder of the experiment, and returns what to print.
        argv (`list[str]`, *optional*): a recipe and options; those of the command line if `None`.
    """
    with reported_as(name):
        leave_group()
        parser = CommandParser(options, TrainingArguments, description=description, recipes="")
        own, arguments, _ = parser.parse(sys.argv[1:] if argv is None else argv)
        points = plan(own, arguments)
        check_output_dir(arguments)
        folder = Path(arguments.output_dir)
        results = work_through(points, folder, partial(run, arguments=arguments))
        if None in results:
            print(f"{results.count(None)} runs are left to other processes; the last one of them reports")
            return
        # Two processes may both find that all is done.
        with FileLock(folder / "lock"):
            print(f"\n{report(folder, results)}")
