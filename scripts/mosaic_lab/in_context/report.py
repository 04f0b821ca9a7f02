"""Tables and picture of a task, from the results and arrays that its runs saved."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from mosaic_lab.core.figures import plt, save_figure, style_of, tidy
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import FIGURES, RESULTS, TABLES, gather, load_gathered
from mosaic_lab.in_context.options import TASKS
from mosaic_lab.training.contestants import choose_best, format_values

PICTURE = "accuracy.png"
# More places than this share bars, of which there are so many.
MOST_PLACES, NUM_BARS = 40, 8
# Fewer answers say little.
LEAST_COUNT = 30
# Arrays of a run for each test, with its length and count behind them.
COUNTS = ("number", "right")
LEGEND_HEIGHT = 0.09

Best = dict[str, list[dict[str, Any]]]
Arrays = dict[str, dict[str, np.ndarray]]


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Gathers the results and arrays in `folder`, and reports on them; returns the tables."""
    gather(folder, results)
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes tables and picture from what `gather` left in `folder`; returns the tables."""
    runs = load_gathered(folder)
    best = choose_best([result for result, _ in runs], key=lambda result: result["model"])
    text = f"{format_runs(best)}\n{format_accuracy(best)}"
    write_text(folder / TABLES, text)
    save_figure(draw(best, {result["name"]: arrays for result, arrays in runs}), folder / PICTURE)
    return f"{text}\nin {folder}: {TABLES}, {PICTURE}, {RESULTS}, {FIGURES}"


def format_runs(best: Best) -> str:
    """The chosen hyperparameters of each model as Markdown, and how well it learned; means over the seeds."""
    head = ["model", "parameters", "positions", "chosen", "seeds", "best step", "validation loss", "seconds"]
    rows = []
    for model, results in best.items():
        first = results[0]
        rows.append(
            [
                model,
                f"{first['num_parameters'] - first['num_positions']:,}",
                f"{first['num_positions']:,}" if first["num_positions"] else "-",
                ", ".join(f"{name} {value}" for name, value in first["chosen"].items()) or "-",
                str(len(results)),
                f"{np.mean([result['best_step'] for result in results]):.0f}",
                format_values([result["validation_loss"] for result in results]),
                f"{np.mean([result['seconds'] for result in results]):.0f}",
            ]
        )
    return table(head, rows)


def format_accuracy(best: Best) -> str:
    """The accuracy of each model on each test as Markdown."""
    ((first, *_), *_) = best.values()
    counted = TASKS[first["task"]].counted
    head = ["model", *(f"{length} tokens, {count} {counted}" for length, count in first["tests"])]
    rows = []
    for model, results in best.items():
        by_test = zip(*(result["accuracy"] for result in results), strict=True)
        rows.append([model, *(format_values(list(values)) for values in by_test)])
    return table(head, rows)


def draw(best: Best, arrays: Arrays) -> plt.Figure:
    """Accuracy by count and by place, a column for each length of the tests; lines are means over the seeds,
    and bands reach from the worst seed to the best one."""
    ((first, *_), *_) = best.values()
    task, tests = TASKS[first["task"]], [tuple(test) for test in first["tests"]]
    lengths = list(dict.fromkeys(length for length, _ in tests))
    figure, axes = plt.subplots(
        2, len(lengths), figsize=(2.6 + 2.6 * len(lengths), 6.6), sharey=True, squeeze=False
    )
    for column, length in zip(axes.T, lengths, strict=True):
        counts = [count for tested, count in tests if tested == length]
        # Places of the largest count that training had, too: several counts would mix both effects.
        shown = max((count for count in counts if count <= max(first["counts"])), default=counts[0])
        for model, results in best.items():
            style = style_of(model, list(best)) | {"linewidth": 1.3, "markersize": 4}
            accuracy = [
                [result["accuracy"][tests.index((length, count))] for count in counts] for result in results
            ]
            draw_line(column[0], counts, np.array(accuracy), style)
            by_place = [
                split_by_place(*(arrays[result["name"]][f"{name}_{length}_{shown}"] for name in COUNTS))
                for result in results
            ]
            draw_line(column[1], by_place[0][0], np.array([values for _, values in by_place]), style)
        beyond = "" if length <= first["length"] else f", {length / first['length']:g} times the training's"
        column[0].set(title=f"{length} tokens{beyond}", xlabel=task.counted, xscale="log", ylim=(-0.03, 1.03))
        column[0].title.set_size(10)
        column[0].xaxis.set_major_locator(FixedLocator(counts))
        column[0].xaxis.set_minor_locator(NullLocator())
        column[0].set_xticklabels([str(count) for count in counts])
        column[1].set_xlabel(f"{task.place}, {shown} {task.counted}")
        column[1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for panel in axes.flat:
        tidy(panel)
    for row in axes:
        row[0].set_ylabel("accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(lengths) + 1, frameon=False, fontsize=9)
    # Below the panels is room for the legend.
    figure.tight_layout(rect=(0, LEGEND_HEIGHT, 1, 1))
    return figure


def draw_line(panel: plt.Axes, places, values_SP: np.ndarray, style: dict[str, Any]) -> None:
    """Draws the mean over seeds of `(seeds, places)` with a band."""
    panel.plot(places, values_SP.mean(0), **style)
    if len(values_SP) > 1:
        panel.fill_between(places, values_SP.min(0), values_SP.max(0), color=style["color"], alpha=0.15, lw=0)


def split_by_place(number: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy by place, in bars if there are many places.

    Args:
        number, right (`np.ndarray` of shape `(places,)`): answers, and right ones.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: mean places of the bars that have enough answers, and accuracies.
    """
    place = np.arange(len(number))
    bar = place if len(place) <= MOST_PLACES else place * NUM_BARS // len(place)
    number, right, sum_of_places = (
        np.bincount(bar, weights=weights) for weights in (number, right, number * place)
    )
    enough = number >= LEAST_COUNT
    return sum_of_places[enough] / number[enough], right[enough] / number[enough]
