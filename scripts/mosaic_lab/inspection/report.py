"""Tables of an inspection, one for each question, from the results and arrays that its runs saved."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mosaic_lab.core.figures import save_figure
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import FIGURES, RESULTS, TABLES, gather, load_gathered
from mosaic_lab.inspection.heads import BINS
from mosaic_lab.inspection.plot import by_class, draw
from mosaic_lab.inspection.units import CLASSES, KINDS

TEXTS = ("stories", "other")
# Targets with less news than this are known beforehand.
KNOWN = 0.1
# Units that are worth more than this, in nats per token, are listed.
WORTH_LISTING = 0.05

Runs = list[tuple[dict[str, Any], dict[str, np.ndarray]]]


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Gathers the results and arrays in `folder`, and reports on them; returns the tables."""
    gather(folder, results)
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes the tables and the picture from what `gather` left in `folder`; returns the tables."""
    runs = sorted(load_gathered(folder), key=_order)
    parts = (format_predictions, format_units, format_retrieval, format_other, format_copying, format_novelty)
    text = "\n".join(part(runs) for part in parts)
    write_text(folder / TABLES, text)
    save_figure(draw(runs), folder / "predictions.png")
    return (
        f"{text}\nin {folder}: {TABLES}, predictions.png, {RESULTS}, {FIGURES}, and a folder with each model"
    )


def _order(run) -> tuple:
    """Mosaics first, shallow ones first, trained ones before their twins."""
    result, _ = run
    is_other = result["model_type"] != "mosaic"
    return is_other, result["num_layers"], not result["is_trained"], result["name"]


def mosaics(runs: Runs, is_trained: bool | None = None) -> Runs:
    """The runs of mosaics; only trained or untrained ones if that is given."""
    return [
        run for run in runs if run[0]["model_type"] == "mosaic" and is_trained in (None, run[0]["is_trained"])
    ]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation over all units; NaN for fewer than three or constant numbers."""
    if first.size < 3:
        return np.nan
    return float(pd.Series(first.ravel()).rank().corr(pd.Series(second.ravel()).rank()))


def specialisation(retrieval_RH: np.ndarray) -> np.ndarray:
    """How much better each unit retrieves its own values than the layer's other units do, `(units,)`."""
    units = retrieval_RH.shape[1]
    between_HH = retrieval_RH[:units]
    own_H = np.diagonal(between_HH)
    return own_H - (between_HH.sum(0) - own_H) / max(units - 1, 1)


def format_predictions(runs: Runs) -> str:
    """Claim 1: do values say what a memory seeks to predict?"""
    rows = []
    for result, arrays in mosaics(runs):
        worth, peek, auc, error = (
            arrays[f"stories.{name}"] for name in ("ablation_cost", "peek_share", "next_token_auc", "error")
        )
        place = np.unravel_index(worth.argmax(), worth.shape)
        predictors = peek >= KNOWN
        rows.append(
            [
                result["name"],
                f"{predictors.sum()} of {peek.size}",
                _mean(auc[predictors]),
                _mean(auc[~predictors]),
                _mean(arrays["stories.shuffled_auc"]),
                ".".join(map(str, place)),
                f"{worth[place]:.2f}",
                f"{peek[place]:.2f}",
                f"{auc[place]:.2f}",
                f"{error[place]:.2f} (place {1 + (error > error[place]).sum()})",
                f"{rank_correlation(auc, worth):+.2f}",
                f"{rank_correlation(-error, worth):+.2f}",
                _correlation_on_other(arrays),
            ]
        )
    for result, arrays in runs:
        if result["model_type"] != "mosaic":
            auc = arrays["stories.next_token_auc"]
            rows.append([result["name"], "", _mean(auc), *[""] * 10])
    head = [
        "model",
        "units with news",
        "AUC of these",
        "AUC of others",
        "AUC, other row",
        "dearest unit",
        "its worth",
        "its news",
        "its AUC",
        "its error (from the worst)",
        "AUC, worth",
        "-error, worth",
        "AUC, worth, other",
    ]
    return (
        "Claim 1. Do values say what a memory seeks to predict? AUC: the true next token's target is nearer "
        "to the answer than another token's (0.5: chance); of GPT-2s, of the first layer's heads and the "
        "next token's value. The last columns are rank correlations over units, one on the other text.\n\n"
        + table(head, rows)
    )


def _correlation_on_other(arrays: dict[str, np.ndarray]) -> str:
    """The rank correlation of AUC and worth on the other text, if there is one."""
    if "other.ablation_cost" not in arrays:
        return ""
    return f"{rank_correlation(arrays['other.next_token_auc'], arrays['other.ablation_cost']):+.2f}"


def format_units(runs: Runs) -> str:
    """The units of trained mosaics that are worth most, on either text."""
    rows = []
    names = ("peek_share", "next_token_auc", "error", "skill_over_mean", "newest_mass", "same_token_mass")
    for result, arrays in mosaics(runs, is_trained=True):
        worth = [arrays[f"{text}.ablation_cost"] for text in TEXTS if f"{text}.ablation_cost" in arrays]
        numbers = [*worth, *(arrays[f"stories.{name}"] for name in names)]
        for layer, unit in np.argwhere(np.max(worth, 0) >= WORTH_LISTING):
            cells = [f"{array[layer, unit]:.2f}" for array in numbers]
            rows.append([result["name"], f"{layer}.{unit}", *cells[: len(worth)], *[""] * (2 - len(worth))])
            rows[-1] += cells[len(worth) :]
    head = ["model", "unit", *(f"worth, {text}" for text in TEXTS), "news", "AUC", "error", "skill over mean"]
    head += ["on newest", "on same token"]
    return f"Units worth {WORTH_LISTING} nats and more on a text.\n\n{table(head, rows)}"


def format_retrieval(runs: Runs) -> str:
    """Claim 2: do separate memories need fewer pairs than a joint one?"""
    rows = []
    for result, arrays in runs:
        for first, last, (own, others, joint, uniform) in zip(
            *zip(*BINS, strict=True), retrieval_by_pairs(arrays), strict=True
        ):
            numbers = (own, others, joint, uniform, own - joint)
            rows.append([result["name"], f"{first} to {last - 1}", *(f"{number:.3f}" for number in numbers)])
    head = ["model", "pairs stored", "own weights", "other units'", "joint memory", "uniform", "own - joint"]
    return (
        "Claim 2. Do separate memories need fewer pairs than a joint one? Anomaly correlation of targets and "
        "what weights make of the unit's values, mean over units.\n\n" + table(head, rows)
    )


def retrieval_by_pairs(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Own weights, other units', the joint memory's, uniform ones: means over units, `(bins, 4)`."""
    means = []
    for retrieval_RH in np.moveaxis(arrays["stories.retrieval"], 1, 0):
        units = retrieval_RH.shape[-1]
        own = np.diagonal(retrieval_RH[:, :units], axis1=1, axis2=2)
        others = (retrieval_RH[:, :units].sum(1) - own) / max(units - 1, 1)
        means.append(
            [own.mean(), others.mean(), retrieval_RH[:, units].mean(), retrieval_RH[:, units + 1].mean()]
        )
    return np.array(means)


def format_other(runs: Runs) -> str:
    """Claim 5: do units that are specialised carry what is gained on other text?"""
    references = {
        (result["num_layers"], _seed_of(result)): result["losses"]
        for result, _ in runs
        if result["model_type"] == "gpt2" and result["is_trained"]
    }
    rows = []
    for result, arrays in mosaics(runs):
        if "other.loss" not in arrays:
            continue
        gap = references.get((result["num_layers"], _seed_of(result))) if result["is_trained"] else None
        # Specialisation over the most pairs.
        special = np.array([specialisation(layer[-1]) for layer in arrays["stories.retrieval"]])
        worth = {place: arrays[f"{place}.ablation_cost"] for place in TEXTS}
        late = arrays["other.worth_late"] - arrays["other.worth_early"]
        rows.append(
            [
                result["name"],
                *(f"{result['losses'][place]:.2f}" for place in TEXTS),
                *(f"{result['losses'][p] - gap[p]:+.2f}" if gap else "" for p in TEXTS),
                *(f"{worth[place].sum():+.2f}" for place in TEXTS),
                f"{late.sum():+.2f}",
                f"{rank_correlation(special, worth['other']):+.2f}",
                f"{rank_correlation(special, late):+.2f}",
                f"{rank_correlation(worth['stories'], worth['other']):+.2f}",
            ]
        )
    head = [
        "model",
        "loss, stories",
        "loss, other",
        "- GPT-2's, stories",
        "- GPT-2's, other",
        "worth of all, stories",
        "worth of all, other",
        "late - early, other",
        "special, worth",
        "special, late - early",
        "worth, worth",
    ]
    text = (
        "Claim 5. Which units carry what is gained on text unlike the training data? Worth of all: sum over "
        "units of what removing each alone costs. Special: own minus other units' retrieval. The last three "
        "columns are rank correlations over units.\n\n"
    )
    return text + (table(head, rows) if rows else "No other text was given.\n")


def _seed_of(result: dict[str, Any]) -> str:
    return result["model"].rpartition("-seed")[2]


def format_copying(runs: Runs) -> str:
    """Claim 6: does copying hang on the matching pairs?"""
    rows = []
    for result, _ in runs:
        copying = result["copying"]
        gain = copying["first"] - copying["second"]
        lost = [(copying[name] - copying["second"]) / gain for name in ("forgotten", "other")]
        shares = [f"{share:.0%}" if gain > 0.2 else "" for share in lost]
        rows.append([result["name"], *(f"{copying[name]:.2f}" for name in copying), f"{gain:.2f}", *shares])
    head = ["model", "first time", "second time", "match forgotten", "other forgotten", "gain"]
    return (
        "Claim 6. Does copying hang on the matching pairs? Losses on random segments said twice, nats per "
        "token, and the shares of the gain that are lost without the pair that matches, or another one.\n\n"
        + table([*head, "lost without the match", "lost without the other"], rows)
    )


def format_novelty(runs: Runs) -> str:
    """Claim 11: do contextual and persistent memories share the work by novelty?"""
    rows = []
    for (result, arrays), place in product(mosaics(runs), TEXTS):
        if f"{place}.class_tokens" in arrays:
            tokens = arrays[f"{place}.class_tokens"]
            cost, logit = (by_class(arrays, place, name) for name in ("cost", "logit"))
            for number, name in enumerate(CLASSES):
                numbers = [
                    f"{array[kind, number]:+.2f}" for array in (cost, logit) for kind in range(len(KINDS))
                ]
                rows.append([result["name"], place, name, f"{tokens[number]:,.0f}", *numbers])
    head = ["model", "text", "next token", "tokens"]
    head += [f"{what}, {kind}" for what in ("cost", "logit") for kind in KINDS]
    return (
        "Claim 11. Do contextual and persistent memories share the work by novelty? Familiar: training has "
        "the four tokens that the next one completes; repeated: it has not, but the row has the last two. "
        "Cost: of replacing all units of a kind by their means; logit: their direct part of the next "
        "token's, above the mean.\n\n" + table(head, rows)
    )


def _mean(numbers: np.ndarray) -> str:
    return f"{np.nanmean(numbers):.2f}" if numbers.size else ""
