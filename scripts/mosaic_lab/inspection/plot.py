"""The picture of an inspection: a panel for each question."""

import numpy as np

from mosaic_lab.core.figures import AMBER, BLUE, GREY, ORANGE, SKY, plt, tidy
from mosaic_lab.inspection.heads import BINS
from mosaic_lab.inspection.units import CLASSES, KINDS


def draw(runs) -> plt.Figure:
    """Draws worth by AUC, retrieval by pairs, worth on two texts, copying, and cost by novelty."""
    mosaics = [run for run in runs if run[0]["model_type"] == "mosaic"]
    trained = [run for run in mosaics if run[0]["is_trained"]]
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.4))
    _draw_predictions(axes[0, 0], mosaics)
    _draw_errors(axes[0, 1], trained)
    _draw_retrieval(axes[0, 2], runs)
    _draw_other(axes[1, 0], trained)
    _draw_copying(axes[1, 1], [run for run in runs if run[0]["is_trained"]])
    _draw_novelty(axes[1, 2], trained)
    for panel in axes.flat:
        tidy(panel)
    figure.tight_layout()
    return figure


def by_class(arrays: dict[str, np.ndarray], place: str, name: str) -> np.ndarray:
    """Cost or logit per token of each class, `(kinds, classes)`; NaN for a class without tokens."""
    tokens = arrays[f"{place}.class_tokens"]
    return arrays[f"{place}.class_{name}"] / np.where(tokens > 0, tokens, np.nan)


def _worth(arrays, place="stories") -> np.ndarray:
    return arrays[f"{place}.ablation_cost"].ravel()


def _scale_worth(panel, name: str) -> None:
    """A scale of nats that shows both the dearest units and those around 0."""
    getattr(panel, f"set_{name}scale")("symlog", linthresh=0.02)
    getattr(panel, f"set_{name}lim")(-0.2, 10)
    ticks = [-0.1, -0.02, 0, 0.02, 0.1, 1, 10]
    getattr(panel, f"set_{name}ticks")(ticks, [f"{tick:g}" for tick in ticks])


def _draw_predictions(panel, mosaics) -> None:
    for result, arrays in mosaics:
        news = arrays["stories.peek_share"].ravel() >= 0.1
        auc = arrays["stories.next_token_auc"].ravel()
        for chosen, colour in ((news, BLUE), (~news, ORANGE)):
            colour = colour if result["is_trained"] else "none"
            edge = GREY if not result["is_trained"] else colour
            panel.scatter(auc[chosen], _worth(arrays)[chosen], s=22, facecolors=colour, edgecolors=edge)
    panel.axvline(0.5, color=GREY, linewidth=0.8)
    _scale_worth(panel, "y")
    panel.set(xlabel="AUC of the true next token", ylabel="worth, nats per token", title="What units predict")
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=BLUE, label="target holds news"),
        plt.Line2D([], [], marker="o", linestyle="", color=ORANGE, label="target known beforehand"),
        plt.Line2D([], [], marker="o", linestyle="", mfc="none", color=GREY, label="untrained"),
    ]
    panel.legend(handles=handles, frameon=False, fontsize=8)


def _draw_errors(panel, trained) -> None:
    for _, arrays in trained:
        news = arrays["stories.peek_share"].ravel() >= 0.1
        error = arrays["stories.error"].ravel()
        for chosen, colour in ((news, BLUE), (~news, ORANGE)):
            panel.scatter(error[chosen], _worth(arrays)[chosen], s=22, color=colour)
    panel.axvline(1, color=GREY, linewidth=0.8)
    _scale_worth(panel, "y")
    panel.set(xlabel="prediction error (1: that of silence)", title="Errors")
    panel.set_ylabel("worth, nats per token")


def _draw_retrieval(panel, runs) -> None:
    groups = {"mosaics": (BLUE, "-"), "untrained": (GREY, "-"), "GPT-2s": (ORANGE, "-")}
    pairs = [np.sqrt(first * (last - 1)) for first, last in BINS]
    for label, (colour, _) in groups.items():
        found = [arrays["stories.retrieval"] for result, arrays in runs if _group_of(result) == label]
        if not found:
            continue
        own, joint = [], []
        for retrieval in found:
            units = retrieval.shape[-1]
            own.append(np.diagonal(retrieval[:, :, :units], axis1=2, axis2=3).mean((0, 2)))
            joint.append(retrieval[:, :, units].mean((0, 2)))
        panel.plot(pairs, np.mean(own, 0), color=colour, marker="o", label=f"{label}: own weights")
        panel.plot(pairs, np.mean(joint, 0), color=colour, marker="o", linestyle=":", label=f"{label}: joint")
    panel.set_xscale("log")
    panel.set(xlabel="pairs stored", ylabel="anomaly correlation", title="Separate and joint memories")
    panel.legend(frameon=False, fontsize=8)


def _group_of(result) -> str | None:
    if result["model_type"] == "mosaic":
        return "mosaics" if result["is_trained"] else "untrained"
    return "GPT-2s" if result["is_trained"] else None


def _draw_other(panel, trained) -> None:
    for _, arrays in trained:
        if "other.ablation_cost" in arrays:
            panel.scatter(_worth(arrays), _worth(arrays, "other"), s=22, color=BLUE)
    for name in "xy":
        _scale_worth(panel, name)
    panel.axline((0, 0), (1, 1), color=GREY, linewidth=0.8)
    panel.set(xlabel="worth on stories, nats", ylabel="worth on the other text", title="Units on other text")


def _draw_copying(panel, trained) -> None:
    shown = {
        "second": ("as it is", BLUE),
        "forgotten": ("match forgotten", ORANGE),
        "other": ("another forgotten", SKY),
    }
    for offset, (name, (label, colour)) in enumerate(shown.items()):
        changes = [result["copying"][name] - result["copying"]["first"] for result, _ in trained]
        panel.bar(np.arange(len(trained)) + 0.25 * offset - 0.25, changes, 0.25, color=colour, label=label)
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set_xticks(range(len(trained)), [result["name"] for result, _ in trained], rotation=60, ha="right")
    panel.tick_params(axis="x", labelsize=7)
    panel.legend(frameon=False, fontsize=8)
    panel.set(ylabel="second loss - first, nats per token", title="Random segments said twice")


def _draw_novelty(panel, trained) -> None:
    costs = []
    for _, arrays in trained:
        costs.append(by_class(arrays, "stories", "cost"))
    for kind, colour in enumerate((BLUE, AMBER)):
        places = np.arange(len(CLASSES)) + 0.4 * kind - 0.2
        panel.bar(places, np.mean(costs, 0)[kind], 0.4, color=colour, label=f"{KINDS[kind]} units")
        for cost in costs:
            panel.plot(places, cost[kind], ".", color="black", markersize=4)
    panel.set_xticks(range(len(CLASSES)), CLASSES)
    panel.set(ylabel="cost without them, nats", xlabel="next token", title="Work by novelty")
    panel.legend(frameon=False, fontsize=8)
