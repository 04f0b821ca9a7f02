"""Table and pictures of the benchmark, from the results and arrays that its runs have saved."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mosaic_lab.core.figures import AMBER, BLUE, GREEN, GREY, ORANGE, PINK, SKY, plt, save_figure, tidy
from mosaic_lab.core.files import write_text
from mosaic_lab.core.work import FIGURES, RESULTS, gather, load_gathered
from mosaic_lab.regbench.options import NGRAMS

METRICS = {"accuracy": "accuracy", "tvd": "total variation distance"}
# The mosaic is always blue; others take what comes next.
COLOURS = (ORANGE, GREEN, PINK, SKY, AMBER)
MARKERS = "oDs^vP"
NGRAM_DASHES = {"1-gram": "-.", "2-gram": ":", "3-gram": "--"}
# Later positions occur in few sequences.
LEAST_COUNT = 30


def choose_best(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each contestant and number of automata, the run with the lowest validation loss."""
    best = {}
    for result in results:
        key = (result["contestant"], result["num_automata"])
        if key not in best or result["validation_loss"] < best[key]["validation_loss"]:
            best[key] = result
    return list(best.values())


def format_table(best: list[dict[str, Any]]) -> str:
    """The best runs as Markdown, by number of automata and then by total variation distance."""
    lines = [
        "| automata | contestant | parameters | chosen | best step | validation loss | accuracy | TVD |",
        "|" + " --- |" * 8,
    ]
    for result in sorted(best, key=lambda result: (result["num_automata"] or 0, result["tvd"])):
        number, parameters, step = (
            "-" if result[name] is None else f"{result[name]:,}"
            for name in ("num_automata", "num_parameters", "best_step")
        )
        chosen = ", ".join(f"{name} {value}" for name, value in result["chosen"].items()) or "-"
        loss = "-" if result["validation_loss"] is None else f"{result['validation_loss']:.4f}"
        row = [number, result["contestant"], parameters, chosen, step, loss]
        row += [f"{result['accuracy']:.3f}", f"{result['tvd']:.3f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Leaves the table, the pictures and what they are drawn from in `folder`; returns the table."""
    gather(folder, results, lambda result, name: False)
    arrays = {result["name"]: arrays for result, arrays in load_gathered(folder)}
    best = choose_best(results)
    table = format_table(best)
    write_text(folder / "results.md", table)
    save_figure(draw_sizes(best), folder / "sizes.png")
    save_figure(draw_places(best, arrays), folder / "places.png")
    return f"{table}\nin {folder}: results.md, sizes.png, places.png, {RESULTS}, {FIGURES}"


def style_of(contestant: str, contestants: list[str]) -> dict[str, Any]:
    """Colour and marker of a contestant, or dashes of an n-gram."""
    if contestant in NGRAMS:
        return {"color": GREY, "linestyle": NGRAM_DASHES[contestant], "label": contestant}
    others = [name for name in contestants if name not in NGRAMS and name != "mosaic"]
    number = 0 if contestant == "mosaic" else 1 + others.index(contestant)
    colour = BLUE if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[number % len(MARKERS)], "label": contestant}


def draw_sizes(best: list[dict[str, Any]]) -> plt.Figure:
    """Figure 11 of the paper: both metrics against the number of training automata."""
    contestants = list(dict.fromkeys(result["contestant"] for result in best))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for panel, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for contestant in contestants:
            runs = [result for result in best if result["contestant"] == contestant]
            style = style_of(contestant, contestants)
            if contestant in NGRAMS:
                panel.axhline(runs[0][metric], **style)
                continue
            runs.sort(key=lambda result: result["num_automata"])
            panel.plot([run["num_automata"] for run in runs], [run[metric] for run in runs], **style)
        sizes = sorted({result["num_automata"] for result in best if result["num_automata"]})
        panel.set(xlabel="training automata", ylabel=label, ylim=(0, 1))
        if sizes:
            panel.set_xscale("log")
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
            panel.minorticks_off()
            panel.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
        tidy(panel)
    axes[1].legend(frameon=False, fontsize=9, ncols=2)
    figure.tight_layout()
    return figure


def draw_places(best: list[dict[str, Any]], arrays: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """Both metrics by position and by string of the sequence, for the largest number of automata."""
    largest = max((result["num_automata"] or 0 for result in best), default=0)
    contestants = list(dict.fromkeys(result["contestant"] for result in best))
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharey="row")
    for row, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for panel, place in zip(row, ("position", "string"), strict=True):
            for result in best:
                saved = arrays[result["name"]]
                if result["num_automata"] in (None, largest):
                    often = saved[f"count_by_{place}"] >= LEAST_COUNT
                    style = style_of(result["contestant"], contestants) | {"marker": "", "linewidth": 1.3}
                    panel.plot(np.flatnonzero(often), saved[f"{metric}_by_{place}"][often], **style)
            tidy(panel)
        row[0].set(ylabel=label, ylim=(0, 1))
    axes[1, 0].set_xlabel("position in the sequence")
    axes[1, 1].set_xlabel("strings completed before")
    for panel in axes[:, 1]:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1, 1].legend(frameon=False, fontsize=9, ncols=2)
    figure.suptitle(f"{largest:,} training automata", fontsize=11)
    figure.tight_layout()
    return figure
