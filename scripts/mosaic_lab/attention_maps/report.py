"""Tables and pictures of attention scores, from the arrays and the results that the runs saved."""

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.attention_maps.metrics import (
    RECENT,
    far_to_near,
    rank_correlation,
    recency_reach,
    recency_share,
    sink_share,
    unevenness,
)
from mosaic_lab.attention_maps.plot import draw_maps, draw_recency, format_correlation
from mosaic_lab.core.figures import save_figure
from mosaic_lab.core.files import write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import ARRAYS, FIGURES, RESULTS, TABLES, gather, load_gathered, read_arrays

METRICS = {
    "sink_share": sink_share,
    "far_to_near": far_to_near,
    "far_to_near_without_0": lambda score_NHT: far_to_near(score_NHT, first=1),
    "unevenness": unevenness,
    "recency_share": recency_share,
    "recency_reach": recency_reach,
}
# Ratios and distances have no useful mean over heads: one of them may be 0, or a thousand.
AVERAGES = dict.fromkeys(METRICS, np.nanmedian) | {"sink_share": np.mean, "recency_share": np.mean}
NOTES = f"""\
Attention of the last position, averaged over sequences. Each line is one architecture, its metrics taken over
all heads of its models: the mean of shares, else the median; in brackets the range over heads. Far/near is
the mean score in the far half of all positions but the last {RECENT}, over that in the near half. Unevenness
is the coefficient of variation of scores, in means over {RECENT} positions, along those without position 0.

"""
RECENCY_NOTES = f"""
Recency bumps of mosaics, and Spearman's rank correlation, over the heads of a model (mean over models), of
each metric with lambda, the coefficient of the leaky average of keys. The share is attention on the last
{RECENT} positions above the plateau, which is the median score further back; the reach is the distance, in
tokens, at which the excess over the plateau has fallen to half.

"""


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Adds metrics to the results, gathers both in `folder`, and reports on them; returns the tables."""
    results = [result | summarise(read_arrays(folder / result["name"] / ARRAYS)) for result in results]
    gather(folder, results, lambda result, name: name != "std")
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes tables and pictures from what `gather` left in `folder`; returns the tables."""
    runs = load_gathered(folder)
    results = [result for result, _ in runs]
    arrays = {result["name"]: arrays for result, arrays in runs}
    text = format_tables(results)
    write_text(folder / TABLES, text)
    pictures = {}
    for context in dict.fromkeys(result["context"] for result in results):
        some = [result for result in results if result["context"] == context]
        pictures[f"maps-{context}.png"] = draw_maps(some, arrays)
        mosaics = [result for result in some if "lambda" in result["heads"]]
        if mosaics:
            pictures[f"recency-{context}.png"] = draw_recency(mosaics, arrays)
    for name, figure in pictures.items():
        save_figure(figure, folder / name)
    return f"{text}\nin {folder}: {', '.join([TABLES, *pictures, RESULTS, FIGURES])}"


def summarise(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Metrics of each head `[layer][head]` and of the whole model, `None` where there is no such number.

    Args:
        arrays (`dict`): `mean` scores and, of a mosaic, `lambda`.
    """
    values = {name: metric(arrays["mean"]) for name, metric in METRICS.items()}
    summary = {"all_heads": {name: as_json(AVERAGES[name](heads_NH)) for name, heads_NH in values.items()}}
    lambda_NH = arrays.get("lambda")
    if lambda_NH is not None:
        summary["rank_correlation_with_lambda"] = {
            name: as_json(rank_correlation(lambda_NH.ravel(), values[name].ravel()))
            for name in ("recency_share", "recency_reach")
        }
        values["lambda"] = lambda_NH
    return {**summary, "heads": {name: as_json(heads_NH) for name, heads_NH in values.items()}}


def as_json(values: np.ndarray | float) -> Any:
    """Nested lists, with `None` for numbers that JSON lacks."""
    values = np.asarray(values, dtype=object)
    return np.where(np.isfinite(values.astype(float)), values, None).tolist()


def group(results: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups the results of models that differ only in their weights, context by context."""
    groups = {}
    for result in results:
        groups.setdefault((result["context"], result["architecture"]), []).append(result)
    return list(groups.values())


def format_tables(results: list[dict[str, Any]]) -> str:
    """Formats all architectures at all contexts as Markdown, and the recency bumps of mosaics."""
    rows, bumps = [], []
    for same in group(results):
        start = [f"{same[0]['context']:,}", same[0]["architecture"]]
        names = ("sink_share", "far_to_near", "far_to_near_without_0", "unevenness")
        sizes = [str(len(same)), f"{same[0]['num_sequences']:,}"]
        rows.append([*start, *sizes, *(_over_heads(same, name) for name in names)])
        if "lambda" in same[0]["heads"]:
            names = ("recency_share", "recency_reach")
            bumps.append(
                [
                    *start,
                    str(sum(np.size(result["heads"]["lambda"]) for result in same)),
                    *(_over_heads(same, name) for name in names),
                    *(format_correlation(same, name) for name in names),
                ]
            )
    head = ["context", "model", "models", "sequences", "on position 0", "far/near", "far/near without 0"]
    text = NOTES + table([*head, "unevenness"], rows)
    if bumps:
        head = ["context", "model", "heads", "share", "reach", "share, lambda", "reach, lambda"]
        text += RECENCY_NOTES + table(head, bumps)
    return text


def _over_heads(same: list[dict[str, Any]], name: str) -> str:
    values = np.array([result["heads"][name] for result in same], dtype=float)
    return f"{AVERAGES[name](values):.3g} ({np.nanmin(values):.3g} to {np.nanmax(values):.3g})"
