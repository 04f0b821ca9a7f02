"""Table and pictures of RegBench, from the results and arrays that its runs saved."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mosaic_lab.core import figures
from mosaic_lab.core.figures import GREY, plt, save_figure, tidy
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import FIGURES, RESULTS, TABLES, gather, load_gathered
from mosaic_lab.regbench.options import NGRAMS
from mosaic_lab.training import contestants
from mosaic_lab.training.contestants import Result, format_values

METRICS = {"accuracy": "accuracy", "tvd": "total variation distance"}
MEASURED = ("best_step", "validation_loss", *METRICS)
NGRAM_DASHES = {"1-gram": "-.", "2-gram": ":", "3-gram": "--"}
# Later positions occur in few sequences.
LEAST_COUNT = 30


def choose_best(results: list[Result]) -> list[Result]:
    """Chooses, for each model and number of automata, the hyperparameters with the lowest validation loss.

    Returns:
        `list[dict]`: results of the chosen runs, which differ in their seeds, as one each: means over the
        seeds, and in `by_seed` the results themselves.
    """
    best = contestants.choose_best(results, key=lambda result: (result["model"], result["num_automata"]))
    return [average(runs) for runs in best.values()]


def average(runs: list[Result]) -> Result:
    """The first of several results, with means of what is measured, and all of them as `by_seed`."""
    means = {
        name: None if runs[0][name] is None else float(np.mean([run[name] for run in runs]))
        for name in ("validation_loss", *METRICS)
    }
    return runs[0] | means | {"by_seed": runs}


def format_table(best: list[Result]) -> str:
    """The best runs as Markdown, by number of automata and then by total variation distance."""
    head = ["automata", "model", "parameters", "chosen", "best step", "validation loss", "accuracy", "TVD"]
    rows = []
    for result in sorted(best, key=lambda result: (result["num_automata"] or 0, result["tvd"])):
        number, parameters = (
            "-" if result[name] is None else f"{result[name]:,}"
            for name in ("num_automata", "num_parameters")
        )
        chosen = ", ".join(f"{name} {value}" for name, value in result["chosen"].items()) or "-"
        by_seed = {name: [run[name] for run in result["by_seed"]] for name in MEASURED}
        is_trained = result["seed"] is not None
        step = ", ".join(f"{step:,}" for step in by_seed["best_step"]) if is_trained else "-"
        loss = format_values(by_seed["validation_loss"], 4) if is_trained else "-"
        row = [number, result["model"], parameters, chosen, step, loss]
        rows.append([*row, *(format_values(by_seed[metric]) for metric in METRICS)])
    return table(head, rows)


def write_report(folder: Path, results: list[Result]) -> str:
    """Gathers the results and arrays in `folder`, and reports on them; returns the table."""
    gather(folder, results)
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes table and pictures from what `gather` left in `folder`; returns the table."""
    runs = load_gathered(folder)
    arrays = {result["name"]: arrays for result, arrays in runs}
    best = choose_best([result for result, _ in runs])
    text = format_table(best)
    write_text(folder / TABLES, text)
    save_figure(draw_sizes(best), folder / "sizes.png")
    save_figure(draw_places(best, arrays), folder / "places.png")
    return f"{text}\nin {folder}: {TABLES}, sizes.png, places.png, {RESULTS}, {FIGURES}"


def style_of(model: str, models: list[str]) -> dict[str, Any]:
    """Colour and marker of a model, or dashes of an n-gram."""
    if model in NGRAMS:
        return {"color": GREY, "linestyle": NGRAM_DASHES[model], "label": model}
    return figures.style_of(model, [name for name in models if name not in NGRAMS])


def average_arrays(arrays: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of each array over runs that were tested on the same rows."""
    return {name: np.mean([saved[name] for saved in arrays], 0) for name in arrays[0]}


def draw_sizes(best: list[Result]) -> plt.Figure:
    """Figure 11 of the paper: both metrics against the number of training automata."""
    models = list(dict.fromkeys(result["model"] for result in best))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for panel, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for model in models:
            runs = [result for result in best if result["model"] == model]
            style = style_of(model, models)
            if model in NGRAMS:
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


def draw_places(best: list[Result], arrays: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """Both metrics by position and by string of the sequence, for the largest number of automata."""
    largest = max((result["num_automata"] or 0 for result in best), default=0)
    models = list(dict.fromkeys(result["model"] for result in best))
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharey="row")
    for row, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for panel, place in zip(row, ("position", "string"), strict=True):
            for result in best:
                saved = average_arrays([arrays[run["name"]] for run in result["by_seed"]])
                if result["num_automata"] in (None, largest):
                    often = saved[f"count_by_{place}"] >= LEAST_COUNT
                    style = style_of(result["model"], models) | {"marker": "", "linewidth": 1.3}
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
