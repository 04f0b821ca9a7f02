"""Table and picture of how well merged memories serve."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from mosaic_lab.core.figures import AMBER, BLUE, GREEN, ORANGE, PINK, SKY, name_of, plt, save_figure, tidy
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import FIGURES, RESULTS, TABLES, gather, load_gathered
from mosaic_lab.merging.parts import ALONE, MERGED, NOTHING

COLOURS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY)
LABELS = {
    "accuracy": "accuracy",
    "distance": "total variation distance",
    "loss": "loss (nats per token)",
}
NOTES = """\
Read in a row (1 part), or cut into parts that are read apart and merged; the last part alone; nothing read.
In brackets, the mean difference to the sequence read in a row, and its standard error over sequences.

"""


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Gathers the results and arrays in `folder`, and reports on them; returns the tables."""
    gather(folder, results)
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes tables and picture from what `gather` left in `folder`; returns the tables."""
    results = [result for result, _ in load_gathered(folder)]
    panels = list_panels(results)
    tables = [f"{text}: {LABELS[metric]}\n\n{format_table(some, metric)}" for text, metric, some in panels]
    report = NOTES + "\n".join(tables)
    write_text(folder / TABLES, report)
    save_figure(draw(panels), folder / "parts.png")
    return f"{report}\nin {folder}: {TABLES}, parts.png, {RESULTS}, {FIGURES}"


def list_panels(results: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """For each text and metric: its results."""
    panels = []
    for text in dict.fromkeys(result["text"] for result in results):
        some = [result for result in results if result["text"] == text]
        metrics = [name for name in LABELS if name in some[0]["ways"][0]]
        panels += [(text, metric, some) for metric in metrics]
    return panels


def group(results: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Groups the results of models that differ in their seeds, by kind of model and depth."""
    groups = {}
    for result in sorted(results, key=lambda result: (result["model_type"], result["num_layers"])):
        groups.setdefault((result["model_type"], result["num_layers"]), []).append(result)
    return groups


def average(results: list[dict[str, Any]], memory: str, number: int, metric: str) -> dict[str, float] | None:
    """The mean over models of what `measure_ways` found in one way; `None` if it was not measured."""
    ways = [way for result in results for way in result["ways"]]
    found = [way[metric] for way in ways if (way["memory"], way["num_parts"]) == (memory, number)]
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]} if found else None


def format_table(results: list[dict[str, Any]], metric: str) -> str:
    """A line for each kind of model, depth and memory, a column for each number of parts."""
    numbers = results[0]["num_parts"]
    lines = []
    for (kind, depth), same in group(results).items():
        for memory in (MERGED, ALONE, NOTHING):
            cells = [
                average(same, memory, 0 if memory == NOTHING else number, metric)
                for number in (numbers if memory != NOTHING else numbers[:1])
            ]
            shown = ["" if cell is None else _format(cell) for cell in cells]
            lines.append([name_of(kind), str(depth), memory, *shown, *[""] * (len(numbers) - len(shown))])
    parts = [f"{number} part{'' if number == 1 else 's'}" for number in numbers]
    return table(["model", "layers", "in memory", *parts], lines)


def _format(cell: dict[str, float]) -> str:
    text = f"{cell['mean']:.3f}"
    return f"{text} ({cell['difference']:+.3f} ± {cell['error']:.3f})" if cell["difference"] else text


def draw(panels: list[tuple[str, str, list[dict[str, Any]]]]) -> plt.Figure:
    """Each metric against the number of parts: merged drawn through, the last part alone dashed."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.8), squeeze=False, layout="constrained"
    )
    for panel, (text, metric, results) in zip(axes[0], panels, strict=True):
        numbers = results[0]["num_parts"]
        # As many colours as there are groups, if need be the same ones again.
        for ((kind, depth), same), colour in zip(group(results).items(), cycle(COLOURS), strict=False):
            for memory, style in ((MERGED, "o-"), (ALONE, "o--")):
                found = [(number, average(same, memory, number, metric)) for number in numbers]
                points = [(number, cell["mean"]) for number, cell in found if cell is not None]
                layers = f"{depth} layer{'' if depth == 1 else 's'}"
                label = f"{name_of(kind)}, {layers}, {'all parts' if memory == MERGED else 'last'}"
                panel.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)
        panel.set_xscale("log", base=2)
        panel.set_xticks(numbers, [str(number) for number in numbers])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set(xlabel="parts", ylabel=LABELS[metric], title=text)
        tidy(panel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    style = {"ncols": 4, "frameon": False, "fontsize": 8, "handlelength": 3}
    figure.legend(handles, labels, loc="outside lower center", **style)
    return figure
