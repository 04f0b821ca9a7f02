"""Pictures of attention by position: figures 12, 13 and 15 of the paper."""

from typing import Any

import numpy as np
from matplotlib.colors import Normalize

from mosaic_lab.attention_maps.metrics import plateau
from mosaic_lab.core.figures import GREY, plt, tidy

# Below it, attention of single precision is as good as none.
LEAST_SCORE = 1e-7
HEADS, LAYERS = plt.get_cmap("viridis"), plt.get_cmap("plasma")
# Positions of the curves that lambda colours.
SHOWN = 64

# By the name of a result, its arrays by name.
Arrays = dict[str, dict[str, np.ndarray]]


def pick_first(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Picks the first of models that differ only in their weights."""
    first = {}
    for result in results:
        first.setdefault(result["architecture"], result)
    return list(first.values())


def draw_maps(results: list[dict[str, Any]], arrays: Arrays) -> plt.Figure:
    """Draws the attention of the last position, by position, a line per head and a panel per model.

    Args:
        results (`list[dict]`): `name`, `architecture`, `context`, the same in all, `block_size`, and
            `num_sequences`; positions more than `block_size` tokens back are shaded.
        arrays (`dict`): by name, `mean (layers, heads, context)`.
    """
    shown = pick_first(results)
    num_columns = 2 if len(shown) in (2, 4) else min(len(shown), 3)
    num_rows = -(-len(shown) // num_columns)
    figure, axes = plt.subplots(
        num_rows,
        num_columns,
        figsize=(11, 0.7 + 2.9 * num_rows),
        sharey=True,
        squeeze=False,
    )
    for panel, result in zip(axes.flat, shown, strict=False):
        mean_NHT = arrays[result["name"]]["mean"]
        _draw_heads(panel, mean_NHT.reshape(-1, result["context"]), result["block_size"])
        panel.set_title(result["architecture"], fontsize=10)
        panel.set_xlabel("position")
    axes[0, 0].set_ylim(*_choose_limits(shown, arrays))
    for panel in axes.flat[len(shown) :]:
        panel.remove()
    for panel in axes[:, 0]:
        panel.set_ylabel("attention score")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper center", ncols=2)
    sequences = f"{shown[0]['num_sequences']:,} sequences of {shown[0]['context']:,} tokens"
    figure.suptitle(f"Attention of the last position, a line per head: mean over {sequences}", fontsize=11)
    figure.tight_layout()
    return figure


def _draw_heads(panel: plt.Axes, score_HT: np.ndarray, block_size: int) -> None:
    context = score_HT.shape[-1]
    if context > block_size:
        panel.axvspan(0, context - block_size, color=GREY, alpha=0.12, lw=0, label="further than in training")
    colours = HEADS(np.linspace(0, 0.9, len(score_HT)))
    for score_T, colour in zip(score_HT, colours, strict=True):
        panel.plot(np.where(score_T > 0, score_T, np.nan), color=colour, linewidth=0.9)
        panel.plot(0, score_T[0], "o", color=colour, markersize=3.5)
    panel.axhline(1 / context, color="black", linestyle="--", linewidth=1, label="uniform")
    panel.set(yscale="log", xlim=(-0.02 * context, 1.01 * context))
    tidy(panel)


def _choose_limits(results: list[dict[str, Any]], arrays: Arrays) -> tuple[float, float]:
    means = [arrays[result["name"]]["mean"] for result in results]
    lowest = min(mean_NHT[mean_NHT > 0].min() for mean_NHT in means)
    return max(LEAST_SCORE, lowest / 2), min(1, 4 * max(mean_NHT.max() for mean_NHT in means))


def draw_recency(results: list[dict[str, Any]], arrays: Arrays) -> plt.Figure:
    """Draws bumps of recent positions against lambda, beside the curves themselves; a row per architecture.

    Args:
        results (`list[dict]`): of mosaics, with the metrics of `heads`.
        arrays (`dict`): as for [`draw_maps`].
    """
    shown = pick_first(results)
    figure, axes = plt.subplots(
        len(shown), 3, figsize=(11, 0.4 + 3.1 * len(shown)), squeeze=False, layout="constrained"
    )
    for row, first in zip(axes, shown, strict=True):
        same = [result for result in results if result["architecture"] == first["architecture"]]
        _draw_bumps(row[0], same, "recency_share", "attention above plateau")
        _draw_bumps(row[1], same, "recency_reach", "tokens to half the excess")
        mean_NHT = arrays[first["name"]]["mean"]
        _draw_recent(figure, row[2], mean_NHT, np.array(first["heads"]["lambda"]))
        row[0].set_title(first["architecture"], fontsize=10)
        num_layers = len(first["heads"]["lambda"])
        if num_layers > 1:
            row[0].legend(title="layer", frameon=False, fontsize=8, ncols=-(-num_layers // 6))
    return figure


def format_correlation(results: list[dict[str, Any]], metric: str) -> str:
    """Rank correlation of a metric with lambda, mean over mosaics; "-" if there is none."""
    found = [result["rank_correlation_with_lambda"][metric] for result in results]
    found = [correlation for correlation in found if correlation is not None]
    return f"{np.mean(found):.2f}" if found else "-"


def _draw_bumps(panel: plt.Axes, results: list[dict[str, Any]], metric: str, label: str) -> None:
    lambda_SNH = np.array([result["heads"]["lambda"] for result in results])
    value_SNH = np.array([result["heads"][metric] for result in results], dtype=float)
    num_layers = lambda_SNH.shape[1]
    for layer, colour in enumerate(LAYERS(np.linspace(0, 0.8, num_layers))):
        panel.plot(lambda_SNH[:, layer].ravel(), value_SNH[:, layer].ravel(), "o", color=colour, label=layer)
    correlation = format_correlation(results, metric)
    panel.set(xlabel=f"lambda of the head (rank correlation {correlation})", ylabel=label, xlim=(-0.03, 1.03))
    tidy(panel)


def _draw_recent(figure: plt.Figure, panel: plt.Axes, mean_NHT: np.ndarray, lambda_NH: np.ndarray) -> None:
    colours = plt.cm.ScalarMappable(Normalize(0, 1), HEADS)
    distance_t = np.arange(SHOWN)[::-1]
    for score_T, coefficient in zip(mean_NHT.reshape(-1, mean_NHT.shape[-1]), lambda_NH.ravel(), strict=True):
        recent_t = np.where(score_T > 0, score_T / plateau(score_T), np.nan)[-SHOWN:]
        panel.plot(distance_t, recent_t, color=colours.to_rgba(coefficient), linewidth=1.2)
    panel.axhline(1, color="black", linestyle="--", linewidth=1)
    panel.set_yscale("log", base=2)
    panel.set(xlabel="tokens before the last", ylabel="attention / plateau", xlim=(SHOWN, 0))
    figure.colorbar(colours, ax=panel, label="lambda")
    tidy(panel)
