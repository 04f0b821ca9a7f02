"""Tables and picture of bounded memories, from the results and arrays that the runs saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.core.figures import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    name_of,
    plt,
    save_figure,
    tidy,
)
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import ARRAYS, FIGURES, RESULTS, TABLES, gather, load_gathered, read_arrays

RED = "#A50F15"
# Positions whose values are averaged.
BIN = 64
WHOLE, WINDOW = "whole", "window"
COLOURS = {
    "recent": GREY,
    "lru": BLUE,
    "h2o": GREEN,
    "tova": SKY,
    "snapkv": AMBER,
    "keydiff": PINK,
    "keydiff_recent": RED,
    WINDOW: ORANGE,
    WHOLE: "black",
}
NAMES = {WINDOW: "sliding window", WHOLE: "whole memory"}
NOTES = """\
Means over the second half of rows of {context:,} tokens, of which {num_rows} were read, by pairs per unit;
memories evict every {chunk_size} tokens. In brackets, the difference to the whole memory, and its standard
error over rows. GPT-2's window has as many tokens, and is read anew each time. Of Memory Mosaics v2, the
long-term memory is bounded; the short-term one, a window of its own, stays as it is.

"""
RECALL_NOTES = """
Recall of {num_facts} facts, planted after {lead:,} tokens of stories: nats per token by which {fact_size}
random tokens, read {distance:,} tokens before, make the second half of their repetition likelier than other
random tokens do; mean and standard error over facts.

"""

Results = list[dict[str, Any]]


def write_report(folder: Path, results: Results) -> str:
    """Adds means and costs to the results, gathers them in `folder`, and reports on them."""
    arrays = {result["name"]: read_arrays(folder / result["name"] / ARRAYS) for result in results}
    whole = {result["model"]: arrays[result["name"]] for result in results if result["policy"] == WHOLE}
    gather(folder, [result | summarise(result, arrays[result["name"]], whole) for result in results])
    return redraw(folder)


def summarise(result: dict[str, Any], arrays: dict[str, np.ndarray], whole: dict) -> dict[str, Any]:
    """Means over the second half of the rows, by measure, and over facts, by distance, with standard errors.

    Args:
        result (`dict`): options of a run.
        arrays (`dict`): its arrays.
        whole (`dict`): by the name of a model, the arrays with its whole memory.

    Returns:
        `dict`: `value`, a list by measure; `recall` and `recall_error`, lists by distance; and for a bounded
        mosaic `cost` and `cost_error`, the value minus that with the whole memory.
    """
    values = [second_half(arrays[f"value{number}"]) for number in range(len(result["measures"]))]
    recalls = [arrays[f"recall{distance}"] for distance in result["distances"]]
    summary = {
        "value": [float(value_N.mean()) for value_N in values],
        "recall": [float(recall_N.mean()) for recall_N in recalls],
        "recall_error": [standard_error(recall_N) for recall_N in recalls],
    }
    if result["bound"] is not None and result["model"] in whole:
        theirs = whole[result["model"]]
        costs = [value_N - second_half(theirs[f"value{number}"]) for number, value_N in enumerate(values)]
        summary["cost"] = [float(cost_N.mean()) for cost_N in costs]
        summary["cost_error"] = [standard_error(cost_N) for cost_N in costs]
    return summary


def second_half(value_NS: np.ndarray) -> np.ndarray:
    """Mean of the later bins, by row."""
    return value_NS[:, value_NS.shape[1] // 2 :].mean(1)


def standard_error(values_N: np.ndarray) -> float | None:
    """Of the mean; `None` for a single value."""
    return float(values_N.std(ddof=1) / len(values_N) ** 0.5) if len(values_N) > 1 else None


def mean_costs(results: Results, number: int) -> dict[str, float]:
    """By policy, the mean cost of a measure over models and bounds."""
    costs = {}
    for result in results:
        if "cost" in result:
            costs.setdefault(result["policy"], []).append(result["cost"][number])
    return {policy: float(np.mean(all_)) for policy, all_ in costs.items()}


def redraw(folder: Path) -> str:
    """Makes tables and picture from what `gather` left in `folder`; returns the tables."""
    runs = load_gathered(folder)
    text = format_tables([result for result, _ in runs])
    write_text(folder / TABLES, text)
    save_figure(draw(runs), folder / "bounds.png")
    return f"{text}\nin {folder}: {TABLES}, bounds.png, {RESULTS}, {FIGURES}"


def group_by_memory(results: Results) -> dict[tuple[int, str, str], dict[int | None, dict[str, Any]]]:
    """By depth, kind of model and policy, the result for each bound."""
    groups = {}
    for result in sorted(results, key=lambda result: result["num_layers"]):
        key = (result["num_layers"], result["model_type"], result["policy"])
        groups.setdefault(key, {})[result["bound"]] = result
    return groups


def format_tables(results: Results) -> str:
    """Formats a table for each measure, the mean costs, and recall for the longest distance, if facts were
    planted."""
    first = results[0]
    chunk_size = next((result["chunk_size"] for result in results if result["chunk_size"]), None)
    about = {**first, "chunk_size": chunk_size}
    text = ""
    for number, measure in enumerate(first["measures"]):
        name, num_rows = first["texts"][number], first["num_rows"][number]
        text += f"## {name}: {measure}\n\n" + NOTES.format(**{**about, "num_rows": num_rows})
        text += _table(results, lambda result, number=number: _value(result, number)) + "\n"
    text += "## Mean cost\n\nOver models and bounds.\n\n" + table(
        ["measure", *mean_costs(results, 0)],
        [
            [f"{name}: {measure}", *(f"{cost:+.4f}" for cost in mean_costs(results, number).values())]
            for number, (name, measure) in enumerate(zip(first["texts"], first["measures"], strict=True))
        ],
    )
    if first["distances"]:
        distance = max(first["distances"])
        place = first["distances"].index(distance)
        text += "\n## Planted facts\n" + RECALL_NOTES.format(**{**about, "distance": distance})
        text += _table(results, lambda result: _recall(result, place))
    return text


def _table(results: Results, show: Callable[[dict[str, Any]], str]) -> str:
    """A line for each depth, kind of model and memory, a column for each bound."""
    bounds = sorted({result["bound"] for result in results} - {None})
    rows = [
        [str(depth), name_of(kind), NAMES.get(policy, policy), *(show(by_bound[bound]) for bound in columns)]
        for (depth, kind, policy), by_bound in group_by_memory(results).items()
        for columns in [[None] * len(bounds) if policy == WHOLE else bounds]
    ]
    return table(["layers", "model", "memory", *map(str, bounds)], rows)


def _value(result: dict[str, Any], number: int) -> str:
    shown = f"{result['value'][number]:.3f}"
    if "cost" in result:
        shown += f" ({result['cost'][number]:+.3f} ± {result['cost_error'][number]:.3f})"
    return shown


def _recall(result: dict[str, Any], place: int) -> str:
    return f"{result['recall'][place]:.2f} ± {result['recall_error'][place] or 0:.2f}"


def draw(runs: list[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> plt.Figure:
    """Draws each measure by bound, the first one by position for one bound, and recall; a column a model."""
    results = [result for result, _ in runs]
    groups, distances = group_by_memory(results), results[0]["distances"]
    labels = [
        f"{name},\n{measure}"
        for name, measure in zip(results[0]["texts"], results[0]["measures"], strict=True)
    ]
    columns = list_columns(groups)
    arrays = {result["name"]: arrays for result, arrays in runs}
    num_rows = len(labels) + (2 if distances else 1)
    size = (3.6 * len(columns) + 0.6, 2.6 * num_rows)
    figure, axes = plt.subplots(num_rows, len(columns), figsize=size, squeeze=False, sharey="row")
    for column, (depth, kind) in zip(axes.T, columns, strict=True):
        mine = {
            policy: by_bound
            for (layers, model, policy), by_bound in groups.items()
            if layers == depth and (model == kind or policy == WINDOW)
        }
        column[0].set_title(f"{name_of(kind)}, {depth} layer{'' if depth == 1 else 's'}", fontsize=11)
        for number, panel in enumerate(column[: len(labels)]):
            _draw_by_bound(panel, mine, lambda result, number=number: result["value"][number])
        _draw_by_position(column[len(labels)], mine, arrays)
        if distances:
            _draw_by_bound(column[-1], mine, lambda result: result["recall"][np.argmax(distances)])
    labels.append(labels[0])
    if distances:
        labels.append(f"recall over {max(distances):,} tokens,\nnats")
    for row, label in zip(axes, labels, strict=True):
        row[0].set_ylabel(label, fontsize=9)
    shown = [panel.get_legend_handles_labels() for panel in axes[0]]
    # Not every model has every memory.
    by_name = {name: handle for handles, names in shown for handle, name in zip(handles, names, strict=True)}
    style = {"ncols": min(4, 2 * len(columns)), "loc": "upper center", "frameon": False, "fontsize": 9}
    figure.legend(by_name.values(), by_name.keys(), **style)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 * (1 + (len(columns) == 1)) / size[1]))
    return figure


def list_columns(groups: dict[tuple[int, str, str], Any]) -> list[tuple[int, str]]:
    """Depths and kinds of models with memories; windows go with those of their depth, if there are any."""
    models = list(dict.fromkeys((depth, kind) for depth, kind, policy in groups if policy != WINDOW))
    depths = {depth for depth, _ in models}
    windows = dict.fromkeys((depth, kind) for depth, kind, _ in groups if depth not in depths)
    return sorted([*models, *windows])


def _draw_by_bound(panel: plt.Axes, by_policy, value) -> None:
    for policy, by_bound in by_policy.items():
        if policy == WHOLE:
            panel.axhline(value(by_bound[None]), color="black", linewidth=1, label=NAMES[policy])
            continue
        bounds = sorted(by_bound)
        style = {"color": COLOURS[policy], "marker": "o", "markersize": 3, "linewidth": 1.2}
        style["linestyle"] = "--" if policy == WINDOW else "-"
        style["label"] = f"GPT-2, {NAMES[policy]}" if policy == WINDOW else policy
        panel.plot(bounds, [value(by_bound[bound]) for bound in bounds], **style)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlabel("bound", fontsize=8)
    tidy(panel)


def _draw_by_position(panel: plt.Axes, by_policy, arrays) -> None:
    """The first measure at the second smallest bound, means over a sixteenth of the positions."""
    for policy, by_bound in by_policy.items():
        bounds = sorted(by_bound, key=lambda bound: bound or 0)
        bound = bounds[min(1, len(bounds) - 1)]
        result = by_bound[bound]
        value_S = arrays[result["name"]]["value0"].mean(0)
        steps = [part.mean() for part in np.array_split(value_S, min(16, len(value_S)))]
        places = (np.arange(len(steps)) + 0.5) * result["context"] / len(steps)
        style = {"linestyle": "--" if policy == WINDOW else "-", "linewidth": 1.2}
        panel.plot(places, steps, color=COLOURS[policy], **style)
        if bound is not None:
            panel.set_xlabel(f"position, bound {bound}", fontsize=8)
    tidy(panel)
