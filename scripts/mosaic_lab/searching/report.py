"""Tables and picture of searched memories, from the results and arrays that the runs saved."""

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.core.figures import AMBER, BLUE, GREEN, ORANGE, PINK, colour_of, plt, save_figure, tidy
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import ARRAYS, FIGURES, RESULTS, TABLES, gather, load_gathered, read_arrays

SHARES = ("mass", "oracle", "nearest", "left", "certified")
COLOURS = {"plain": ORANGE, "exact": AMBER, "search": BLUE, "estimate": GREEN, "nearest": PINK}
LABELS = {
    "plain": "plain attention (DynamicCache)",
    "exact": "all pairs, without copies",
    "search": "nearest exact, rest estimated",
    "estimate": "all estimated",
    "nearest": "nearest alone",
}
SCAN_NOTES = """\
Shares of {num_pairs:,} pairs: those that an index scans until it has found 0.95 of the attention mass; those
that hold it if the nearest come first; and those that it scans for 0.95 of the 100 nearest. Then shares of
the mass: what lies outside of the 100 nearest, and what their similarities alone certify that it cannot
exceed. Medians over units, in brackets their range. Queries come from texts that are not in the memory.

"""
DECODE_NOTES = """
Decoding after long texts, on one thread: processor time of a token, median of {num_timed}, and the loss on
{num_tokens} tokens minus that of plain attention. `chosen` takes for each unit the cheapest way whose error
on trial is at most {tolerance}; `nearest` drops all but the {num_nearest} nearest pairs, which it finds by
reading all.

"""

Results = list[dict[str, Any]]


def write_report(folder: Path, results: Results) -> str:
    """Adds shares to the results of scans, gathers all in `folder`, and reports on them."""
    gather(
        folder,
        [result | summarise(read_arrays(folder / result["name"] / ARRAYS), result) for result in results],
    )
    return redraw(folder)


def summarise(arrays: dict[str, np.ndarray], result: dict[str, Any]) -> dict[str, Any]:
    """Median, least and largest share over the units, of a scan; nothing of other runs."""
    if result["kind"] != "scan":
        return {}
    return {name: [float(of(arrays[name])) for of in (np.median, np.min, np.max)] for name in SHARES}


def redraw(folder: Path) -> str:
    """Makes tables and picture from what `gather` left in `folder`; returns the tables."""
    runs = load_gathered(folder)
    text = format_tables([result for result, _ in runs])
    write_text(folder / TABLES, text)
    save_figure(draw(runs), folder / "searching.png")
    return f"{text}\nin {folder}: {TABLES}, searching.png, {RESULTS}, {FIGURES}"


def format_tables(results: Results) -> str:
    """Formats the shares scanned by model, and times, losses and bytes by size, as Markdown."""
    scans = sorted((r for r in results if r["kind"] == "scan"), key=lambda r: r["num_layers"])
    text = SCAN_NOTES.format(**scans[0])
    head = ["layers", "model", "scanned for the mass", "holding the mass", "scanned for the nearest"]
    head += ["mass left", "certified"]
    rows = [[str(r["num_layers"]), r["model_type"], *(_share(r[name]) for name in SHARES)] for r in scans]
    text += table(head, rows)
    decodes = sorted((r for r in results if r["kind"] == "decode"), key=lambda r: r["size"])
    if decodes:
        text += DECODE_NOTES.format(**decodes[0])
        head = ["pairs", *(f"{way}, ms" for way in (*COLOURS, "chosen"))]
        rows = [
            [f"{r['num_pairs']:,}", *(f"{r['milliseconds'][way]:.1f}" for way in (*COLOURS, "chosen"))]
            for r in decodes
        ]
        text += table(head, rows) + "\n"
        ways = ["search", "estimate", "nearest", "chosen"]
        head = ["pairs", "loss", *ways, "chosen by the units", "pairs, MB", "search, MB"]
        text += table(head, [_losses(r, ways) for r in decodes])
    return text


def _share(of_units: list[float]) -> str:
    median, least, largest = of_units
    return f"{median:.1%} ({least:.1%} to {largest:.1%})"


def _losses(result: dict[str, Any], ways: list[str]) -> list[str]:
    changes, errors = result["loss_change"], result["loss_change_error"]
    return [
        f"{result['num_pairs']:,}",
        f"{result['loss']['plain']:.3f}",
        *(f"{changes[way]:+.3f} ± {errors[way]:.3f}" for way in ways),
        ", ".join(result["modes"]),
        *(f"{result['bytes'][part] / 1e6:.0f}" for part in ("pairs", "search")),
    ]


def draw(runs: list[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> plt.Figure:
    """Draws what is scanned against what would be needed, a dot a unit; times and losses by size."""
    figure, (scans, times, losses) = plt.subplots(1, 3, figsize=(12, 3.8))
    for result, arrays in runs:
        if result["kind"] == "scan":
            style = {"color": colour_of(result["model_type"]), "markersize": 4, "alpha": 0.8}
            scans.loglog(arrays["oracle"].ravel(), arrays["mass"].ravel(), "o", **style)
    scans.axline((1e-3, 1e-3), (1, 1), color="black", linewidth=0.8)
    kinds = dict.fromkeys(result["model_type"] for result, _ in runs)
    handles = [
        plt.Line2D([], [], color=colour_of(kind), marker="o", linestyle="", label=kind) for kind in kinds
    ]
    scans.legend(handles=handles, frameon=False, fontsize=8)
    scans.set(xlabel="share of pairs that hold 0.95 of the mass", ylabel="share that an index scans for it")
    decodes = sorted((r for r, _ in runs if r["kind"] == "decode"), key=lambda r: r["size"])
    for panel, name in ((times, "milliseconds"), (losses, "loss_change")):
        for way, colour in COLOURS.items():
            values = [result[name][way] for result in decodes]
            style = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.2, "label": LABELS[way]}
            panel.plot([result["num_pairs"] for result in decodes], values, **style)
        panel.set_xscale("log", base=2)
        panel.set_xlabel("pairs")
    times.set_yscale("log")
    times.set_ylabel("processor time per token, ms")
    losses.set_ylabel("loss minus plain attention, nats")
    losses.set_yscale("symlog", linthresh=0.01)
    times.legend(frameon=False, fontsize=7)
    for panel in (scans, times, losses):
        tidy(panel)
    figure.tight_layout()
    return figure
