"""Table and curves of a comparison, from the results and arrays that its runs saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter

from mosaic_lab.core.figures import GREY, colour_of, name_of, plt, save_figure, tidy
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import FIGURES, RESULTS, TABLES, gather, load_gathered

REFERENCE = "gpt2"

Results = list[dict[str, Any]]


def group_runs(results: Results) -> dict[tuple[int, str], Results]:
    """Groups the runs of each model, which differ in their seeds, by depth and then in the recipe's order."""
    groups: dict[tuple[int, str], Results] = {}
    for result in sorted(results, key=lambda result: result["num_layers"]):
        groups.setdefault((result["num_layers"], result["model"]), []).append(result)
    return groups


def losses_of(runs: Results, split: str) -> np.ndarray:
    """Last losses of the runs, one per seed, in nats per token."""
    return np.array([run[f"{split}_loss"] for run in runs])


def spread_of(losses: np.ndarray) -> float:
    """Largest minus smallest loss: the effect of the seed."""
    return float(losses.max() - losses.min())


def format_table(results: Results) -> str:
    """Formats one row per model as Markdown: last losses by seed, mean, spread, and time."""
    head = ["layers", "model", "parameters", "train loss", "validation loss", "spread", "by seed", "minutes"]
    rows = []
    for (depth, model), runs in group_runs(results).items():
        train, validation = losses_of(runs, "train"), losses_of(runs, "validation")
        row = [str(depth), model, f"{runs[0]['num_parameters']:,}", f"{train.mean():.3f}"]
        row += [f"{validation.mean():.3f}", f"{spread_of(validation):.3f}"]
        row += [", ".join(f"{loss:.3f}" for loss in validation)]
        rows.append([*row, f"{np.mean([run['seconds'] for run in runs]) / 60:.1f}"])
    return table(head, rows)


def format_differences(results: Results) -> str:
    """Formats each validation loss minus GPT-2's at the same depth, with the spread over the seeds."""
    groups = group_runs(results)
    references = {depth: runs for (depth, _), runs in groups.items() if runs[0]["model_type"] == REFERENCE}
    lines = []
    for (depth, model), runs in groups.items():
        if depth in references and runs is not references[depth]:
            ours, theirs = losses_of(runs, "validation"), losses_of(references[depth], "validation")
            lines.append(
                f"{model} minus {references[depth][0]['model']}: {ours.mean() - theirs.mean():+.3f} "
                f"(spreads over seeds: {spread_of(ours):.3f} and {spread_of(theirs):.3f})"
            )
    return "\n\n".join(lines) + "\n"


def write_report(folder: Path, results: Results) -> str:
    """Gathers the results and arrays in `folder`, and reports on them; returns the table."""
    gather(folder, results)
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes table and curves from what `gather` left in `folder`; returns the table."""
    runs = load_gathered(folder)
    results = [result for result, _ in runs]
    text = f"{format_corpus(results)}\n{format_table(results)}\n{format_differences(results)}"
    write_text(folder / TABLES, text)
    save_figure(draw_curves(runs), folder / "curves.png")
    return f"{text}\nin {folder}: {TABLES}, curves.png, {RESULTS}, {FIGURES}, and a folder with each model"


def format_corpus(results: Results) -> str:
    """Says on which stories the models were trained, with their fingerprint; warns of several corpora."""
    corpora = {json.dumps(result["corpus"]): result["corpus"] for result in results}
    lines = ["Not all models were trained on the same stories.\n"] if len(corpora) > 1 else []
    for corpus in corpora.values():
        if corpus is None:
            lines.append("Trained on a stream of stories.\n")
        else:
            lines.append(
                f"Corpus `{corpus['dataset']}`: {corpus['num_train']:,} stories to train on, "
                f"{corpus['num_validation']:,} to validate on, sha256 {corpus['sha256']}\n"
            )
    return "\n".join(lines)


def draw_curves(runs: list[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> plt.Figure:
    """Draws figure 9 of the paper: training and validation losses by tokens seen, a column per depth."""
    depths = sorted({result["num_layers"] for result, _ in runs})
    figure, axes = plt.subplots(
        2, len(depths), figsize=(3.7 * len(depths) + 0.5, 6), sharex=True, sharey=True, squeeze=False
    )
    for row, split in zip(axes, ("train", "validation"), strict=True):
        row[0].set_ylabel(f"{'training' if split == 'train' else split} loss, nats per token")
        for panel, depth in zip(row, depths, strict=True):
            for result, arrays in runs:
                if result["num_layers"] == depth:
                    tokens = arrays[f"{split}_step"] * arrays["tokens_per_step"]
                    style = {"color": colour_of(result["model_type"]), "linewidth": 1.1, "alpha": 0.8}
                    panel.plot(tokens, arrays[f"{split}_loss"], **style)
            panel.xaxis.set_major_formatter(EngFormatter())
            tidy(panel)
    for panel, depth in zip(axes[0], depths, strict=True):
        panel.set_title(f"{depth} layer{'' if depth == 1 else 's'}", fontsize=11)
    for panel in axes[1]:
        panel.set_xlabel("training tokens")
    kinds = list(dict.fromkeys(result["model_type"] for result, _ in runs))
    handles = [plt.Line2D([], [], color=colour_of(kind), label=name_of(kind)) for kind in kinds]
    # The first steps, from log(vocabulary) down, are alike and would flatten the rest.
    lowest = min(arrays["train_loss"].min() for _, arrays in runs)
    highest = max(arrays["validation_loss"][0] for _, arrays in runs)
    bigram = runs[0][0]["bigram_loss"]
    if bigram is not None:
        handles.append(plt.Line2D([], [], color=GREY, linestyle="--", label="bigrams"))
        for panel in axes[1]:
            panel.axhline(bigram, color=GREY, linestyle="--", linewidth=1.0)
        highest = max(highest, bigram)
    axes[0, 0].set_ylim(lowest - 0.1, highest + 0.5)
    axes[0, -1].legend(handles=handles, frameon=False, fontsize=9)
    figure.tight_layout()
    return figure
