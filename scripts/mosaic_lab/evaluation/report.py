"""Tables and pictures of `evaluate`, from what its runs measured."""

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.core.figures import colour_of, plt, save_figure, tidy
from mosaic_lab.core.files import read_object, write_arrays, write_json, write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import ARRAYS, LOCK, read_arrays
from mosaic_lab.evaluation.prompts import format_continuations
from mosaic_lab.evaluation.summary import (
    HALVES,
    architectures_of,
    bin_positions,
    summarise_induction,
    summarise_names,
    summarise_text,
    summarise_units,
)

# The summary of all models, and the curves that its picture shows.
EVALUATION, CURVES, TABLES = "evaluation.json", "evaluation.npz", "evaluation.md"
PICTURE, CONTINUATIONS = "positions.png", "prompts.md"
DASHES = ("-", "--", ":", "-.", (0, (1, 4)), (0, (6, 4, 1, 1, 1, 4)))

Results = list[dict[str, Any]]


def write_report(folder: Path, results: Results) -> str:
    """Summarises the runs in `folder`, and reports on them; returns the tables."""
    by_kind: dict[str, Results] = {}
    for result in results:
        by_kind.setdefault(result["name"].rsplit("/", 1)[1], []).append(result)
    summary: dict[str, Any] = {
        "architectures": architectures_of(results),
        "context": results[0]["block_size"],
        "texts": [],
        "induction": {},
        "names": {},
        "units": {},
    }
    curves: dict[str, np.ndarray] = {}
    for kind, same in by_kind.items():
        measured = {result["model"]: read_arrays(folder / result["name"] / ARRAYS) for result in same}
        if kind.startswith("text"):
            figures, lines = summarise_text(same, measured)
            summary["texts"].append(figures)
            curves |= {f"{kind}/{name}": line for name, line in lines.items()}
        elif kind == "induction":
            for name, arrays in measured.items():
                summary["induction"][name], curves[f"{kind}/{name}"] = summarise_induction(
                    arrays, same[0]["seed"]
                )
        elif kind == "names":
            summary["names"] = {
                name: summarise_names(arrays, same[0]["seed"]) for name, arrays in measured.items()
            }
        elif kind == "units":
            summary["units"] = {
                result["model"]: summarise_units(result, measured[result["model"]]) for result in same
            }
    write_json(folder / EVALUATION, summary)
    write_arrays(folder / CURVES, curves)
    if "prompts" in by_kind:
        continuations = {result["model"]: result["continuations"] for result in by_kind["prompts"]}
        write_text(folder / CONTINUATIONS, format_continuations(continuations))
    text = redraw(folder)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != LOCK)
    return f"{text}\nin {folder}: {', '.join(names)}"


def redraw(folder: Path) -> str:
    """Makes tables and picture from the summary and the curves in `folder`; returns the tables."""
    summary = read_object(folder / EVALUATION)
    text = format_report(summary)
    write_text(folder / TABLES, text)
    save_figure(draw_positions(summary, read_arrays(folder / CURVES)), folder / PICTURE)
    return text


def format_report(results: dict[str, Any]) -> str:
    """Formats all figures as Markdown."""
    parts = []
    for text in results["texts"]:
        parts.append(f"## {text['name']}\n")
        parts.append(
            f"{text['num_documents']:,} documents with {text['num_tokens']:,} tokens, "
            f"{text['num_rows']:,} rows of {results['context']} tokens; sha256 of all documents: "
            f"{text['sha256']}. Intervals hold 95% of resampled documents or rows.\n"
        )
        parts += [_format_documents(text), _format_differences(text, results), _format_stretches(text)]
        parts.append(_format_halves(text))
    if results["induction"]:
        parts += ["## A random segment, repeated\n", _format_induction(results["induction"])]
    if results["names"]:
        parts += ["## Names\n", _format_names(results["names"])]
    if results["units"]:
        parts += ["## Units before a repeated name\n", _format_units(results["units"])]
    return "\n".join(parts)


def _interval(record: dict[str, float], sign: str = "") -> str:
    return f"{record['mean']:{sign}.3f} ({record['low']:{sign}.3f} to {record['high']:{sign}.3f})"


def _format_documents(text: dict[str, Any]) -> str:
    head = ["model", "loss, nats per token", "perplexity", "nats per character"]
    return table(
        head,
        [
            [
                name,
                _interval(figures["loss"]),
                _interval(figures["perplexity"]),
                f"{figures['loss_per_character']:.3f}",
            ]
            for name, figures in text["models"].items()
        ],
    )


def _format_differences(text: dict[str, Any], results: dict[str, Any]) -> str:
    first = next(iter(results["architectures"].values()))
    rows = [[name, _interval(record, "+")] for name, record in text["differences"].items()]
    return table([f"minus {first}", "loss, paired by document"], rows) if rows else ""


def _format_stretches(text: dict[str, Any]) -> str:
    stretches = text["stretches"]
    head = ["tokens behind"] + [f"{stretch['first']} to {stretch['last']}" for stretch in stretches]
    rows = [[name, *(_interval(stretch["models"][name]) for stretch in stretches)] for name in text["models"]]
    rows += [
        [f"{name}, difference", *(_interval(stretch["differences"][name], "+") for stretch in stretches)]
        for name in text["differences"]
    ]
    return table(head, rows)


def _format_halves(text: dict[str, Any]) -> str:
    head = ["model", "first half", "second half", "second half without the first", "gain"]
    rows = [
        [name, *(_interval(figures[half]) for half in HALVES)]
        for name, figures in text["models"].items()
        if "gain" in figures
    ]
    return table(head, rows) if rows else ""


def _format_induction(induction: dict[str, Any]) -> str:
    head = ["model", "loss on the first copy", "loss on the second copy", "likeliest token right"]
    names = ("first_copy", "second_copy", "accuracy")
    return table(
        head, [[model, *(_interval(record[name]) for name in names)] for model, record in induction.items()]
    )


def _format_names(names: dict[str, Any]) -> str:
    head = ["model", "nats per repeated name", "per token of a new name", "per other token"]
    head += ["stories told", "names in them", "share that belongs to the story"]
    keys = ("repeated", "new", "other")
    return table(
        head,
        [
            [model, *(_interval(record[key]) for key in keys)]
            + [f"{record['num_tellings']:,}", f"{record['num_told']:,}", _interval(record["belonging"])]
            for model, record in names.items()
        ],
    )


def _format_units(units: dict[str, Any]) -> str:
    head = ["model", "layer", "unit", "weight of pairs that peek at the name", "if even", "at any name"]
    head += ["if even", "share of the next token", "copies names by"]
    rows = []
    for model, record in units.items():
        for unit in record["units"]:
            weights = unit["right"], record["even_right"], unit["name"], record["even_name"]
            row = [model, str(unit["layer"]), str(unit["unit"]), *(f"{weight:.3f}" for weight in weights)]
            rows.append([*row, f"{unit['peek']:.2f}", f"{unit['copies']:+.3f}"])
    return table(head, rows)


def draw_positions(results: dict[str, Any], arrays: dict[str, np.ndarray]) -> plt.Figure:
    """Draws figure 10 of the paper: loss by position, and below it differences to the first architecture."""
    names, architectures = list(results["architectures"]), results["architectures"]
    styles = style_architectures(list(dict.fromkeys(architectures.values())))
    texts = results["texts"]
    others = list(styles)[1:]
    figure, axes = plt.subplots(
        2 if others else 1,
        len(texts),
        figsize=(5.5 * len(texts), 6.5 if others else 3.8),
        sharex=True,
        squeeze=False,
    )
    for column, text in enumerate(texts):
        above, below = axes[0, column], axes[-1, column]
        for name in names:
            behind, loss = bin_positions(arrays[f"text{column}/{name}"])
            above.plot(behind, loss, linewidth=1.2, **styles[architectures[name]])
        for architecture in others:
            mean, low, high = arrays[f"text{column}/difference/{architecture}"]
            below.plot(behind, mean, linewidth=1.4, **styles[architecture])
            colour = styles[architecture]["color"]
            below.fill_between(behind, low, high, color=colour, alpha=0.2, linewidth=0)
        above.set_title(text["name"], fontsize=11)
        below.set_xlabel("tokens behind")
        if others:
            below.axhline(0, color=styles[next(iter(styles))]["color"], linewidth=1.2)
        for panel in axes[:, column]:
            tidy(panel)
    axes[0, 0].set_ylabel("loss, nats per token")
    if others:
        first = ", ".join(next(iter(styles)).split(", ")[:2])
        axes[1, 0].set_ylabel(f"difference to\n{first}")
    handles = [plt.Line2D([], [], label=architecture, **style) for architecture, style in styles.items()]
    num_columns = len(texts)
    figure.legend(handles=handles, ncols=num_columns, loc="upper center", frameon=False, fontsize=8)
    height = 0.19 * -(-len(handles) // num_columns)
    figure.tight_layout(rect=(0, 0, 1, 1 - height / figure.get_figheight()))
    return figure


def style_architectures(architectures: list[str]) -> dict[str, dict[str, str]]:
    """A colour for each kind of model, and dashes for several of one kind."""
    styles, seen = {}, {}
    for architecture in architectures:
        colour = colour_of(architecture.split(",")[0])
        styles[architecture] = {"color": colour, "linestyle": DASHES[seen.get(colour, 0) % len(DASHES)]}
        seen[colour] = seen.get(colour, 0) + 1
    return styles
