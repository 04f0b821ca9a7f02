"""Tables and pictures of `evaluate.py`, from its results and arrays."""

from typing import Any

import numpy as np

from mosaic_lab.core.figures import COLOURS_OF_MODELS, SKY, plt, tidy

RESULTS, ARRAYS = "evaluation.json", "evaluation.npz"
# Positions that are averaged in a point of the curves.
BIN = 16
DASHES = ("-", "--", ":", "-.")

Results = dict[str, Any]


def format_report(results: Results) -> str:
    """All figures as Markdown."""
    parts = []
    for text in results["texts"]:
        parts.append(f"## {text['name']}\n")
        parts.append(
            f"{text['num_documents']:,} documents with {text['num_tokens']:,} tokens, "
            f"{text['num_rows']:,} rows of {results['context']} tokens. Intervals hold 95% of resampled "
            "documents or rows.\n"
        )
        parts += [_format_documents(text), _format_differences(text, results), _format_stretches(text)]
        parts.append(_format_halves(text))
    if results["induction"]:
        parts += ["## A random segment, repeated\n", _format_induction(results["induction"])]
    return "\n".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _interval(record: dict[str, float], sign: str = "") -> str:
    return f"{record['mean']:{sign}.3f} ({record['low']:{sign}.3f} to {record['high']:{sign}.3f})"


def _format_documents(text: Results) -> str:
    head = ["model", "loss, nats a token", "perplexity", "nats a character"]
    return _table(
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


def _format_differences(text: Results, results: Results) -> str:
    first = next(iter(results["architectures"].values()))
    rows = [[name, _interval(record, "+")] for name, record in text["differences"].items()]
    return _table([f"minus {first}", "loss, paired by document"], rows) if rows else ""


def _format_stretches(text: Results) -> str:
    stretches = text["stretches"]
    head = ["tokens behind"] + [f"{stretch['first']} to {stretch['last']}" for stretch in stretches]
    rows = [[name, *(_interval(stretch["models"][name]) for stretch in stretches)] for name in text["models"]]
    rows += [
        [f"{name}, difference", *(_interval(stretch["differences"][name], "+") for stretch in stretches)]
        for name in text["differences"]
    ]
    return _table(head, rows)


def _format_halves(text: Results) -> str:
    names = ("first_half", "second_half", "second_half_alone", "gain")
    head = ["model", "first half", "second half", "second half without the first", "gain"]
    rows = [
        [name, *(_interval(figures[half]) for half in names)]
        for name, figures in text["models"].items()
        if "gain" in figures
    ]
    return _table(head, rows) if rows else ""


def _format_induction(induction: Results) -> str:
    head = ["model", "loss on the first copy", "loss on the second copy", "likeliest token right"]
    names = ("first_copy", "second_copy", "accuracy")
    return _table(
        head, [[model, *(_interval(record[name]) for name in names)] for model, record in induction.items()]
    )


def draw_positions(results: Results, arrays: dict[str, np.ndarray]) -> plt.Figure:
    """Figure 10 of the paper: loss by position, above, and differences to the first architecture, below."""
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
    axes[0, 0].set_ylabel("loss, nats a token")
    if others:
        axes[1, 0].set_ylabel(f"difference to\n{next(iter(styles))}")
    handles = [plt.Line2D([], [], label=architecture, **style) for architecture, style in styles.items()]
    axes[0, -1].legend(handles=handles, frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def style_architectures(architectures: list[str]) -> dict[str, dict[str, str]]:
    """A colour for each kind of model, and dashes for several of one kind."""
    styles, seen = {}, {}
    for architecture in architectures:
        kind = architecture.split(",")[0]
        dashes = DASHES[seen.get(kind, 0) % len(DASHES)]
        styles[architecture] = {"color": COLOURS_OF_MODELS.get(kind, SKY), "linestyle": dashes}
        seen[kind] = seen.get(kind, 0) + 1
    return styles


def bin_positions(curve_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of tokens behind, and means over 16 positions each; what is left at the end is in none.

    Args:
        curve_T (`np.ndarray` of shape `(..., time)`): a value for each position.
    """
    size = min(BIN, curve_T.shape[-1])
    num_bins = curve_T.shape[-1] // size
    means = curve_T[..., : num_bins * size].reshape(*curve_T.shape[:-1], num_bins, size).mean(-1)
    return (np.arange(num_bins) + 0.5) * size + 0.5, means
