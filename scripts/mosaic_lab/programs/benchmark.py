"""Measures a mosaic against a transformer and its equations: python scripts/benchmark.py RECIPE.yaml

The model must equal the equations, `modeling_mosaic/plain_mosaic.py` or `plain_mosaic_v2.py`, in logits and
gradients, before anything is measured.
"""

import shlex
import shutil
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

from mosaic_lab.benchmark.cells import plan_cells
from mosaic_lab.benchmark.check import check_equality
from mosaic_lab.benchmark.hardware import describe_hardware, describe_versions
from mosaic_lab.benchmark.measure import measure_cell, prepare_machine
from mosaic_lab.benchmark.models import balance_parameters
from mosaic_lab.benchmark.options import BenchmarkArguments
from mosaic_lab.benchmark.plot import draw
from mosaic_lab.benchmark.report import compute_ratios, format_report, format_tables
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import InputError, reported_as
from mosaic_lab.core.files import occupying, write_json, write_text
from mosaic_lab.core.work import Run, work_through


def run(options: BenchmarkArguments, recipe: str, argv: list[str]) -> None:
    """Measures the cells that an earlier run has not, and leaves `<day>-<recipe>-<hardware>` in `output_dir`.

    That is a `.json` file with all that was measured, a report, `.md`, and a picture of times and memory,
    `.png`. Until all cells are measured they are in a folder `<recipe>-<hardware>.partial`, from which a
    stopped run resumes.

    Raises:
        InputError: if there is such a result, if cells were measured with other options, hardware or
            versions, or if the model does not equal the plain implementation.
    """
    hardware, versions = describe_hardware(options.device), describe_versions()
    chosen = {name: value for name, value in vars(options).items() if name != "output_dir"}
    parameters = balance_parameters(options)
    folder = Path(options.output_dir)
    stem, day = f"{recipe}-{hardware['slug']}", date.today().isoformat()
    name, partial = f"{day}-{stem}", folder / f"{stem}.partial"
    paths = [folder / f"{name}{suffix}" for suffix in (".json", ".md", ".png")]
    if paths[0].exists():
        raise InputError(f"{paths[0]} exists: move it away, or name another output_dir")
    result = {
        "name": name,
        "date": day,
        "command": shlex.join(["python", "scripts/benchmark.py", *argv]),
        "recipe": recipe,
        "options": chosen,
        "hardware": hardware,
        "versions": versions,
        "parameters": parameters,
        "check": check_equality(options),
    }
    depends_on = {**chosen, **hardware, **versions}
    runs = [Run(cell.name, depends_on, inputs=cell) for cell in plan_cells(options)]
    # Processes that shared the cells would slow each other down.
    with occupying(partial):
        measured = work_through(runs, partial, lambda run, _: {"measured": measure_cell(run.inputs, options)})
    result["cells"] = [
        {"name": run.name, **asdict(run.inputs), **cell["measured"]}
        for run, cell in zip(runs, measured, strict=True)
    ]
    for cell in result["cells"]:
        cell["ratios"] = compute_ratios(cell)
    if options.measures != ["operations"]:
        draw(result, paths[2])
    write_text(paths[1], format_report(result))
    write_json(paths[0], result)
    shutil.rmtree(partial)
    print(f"{format_tables(result['cells'])}\nin {', '.join(str(path) for path in paths if path.exists())}")


def make_parser() -> CommandParser:
    """The command line: a recipe and its options."""
    return CommandParser(
        BenchmarkArguments,
        description="Measures a mosaic against a transformer and a plain implementation of the paper.",
        recipes="benchmark",
    )


def main(argv: list[str] | None = None) -> None:
    """Runs the recipe that `argv` names, with the options that follow it."""
    argv = sys.argv[1:] if argv is None else argv
    with reported_as("benchmark", resume="the same command resumes"):
        options, others = make_parser().parse(argv)
        prepare_machine(options)
        run(options, Path(others.recipe).stem, argv)


if __name__ == "__main__":
    main()
