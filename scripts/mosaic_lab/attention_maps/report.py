"""Tables and pictures of the attention scores, from the arrays and the summary that a run has saved."""

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.attention_maps.measures import (
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
from mosaic_lab.core.files import read_json, write_json, write_text

ARRAYS, SUMMARY, TABLE = "scores.npz", "summary.json", "summary.md"
MEASURES = {
    "sink_share": sink_share,
    "far_to_near": far_to_near,
    "far_to_near_without_0": lambda score_NHT: far_to_near(score_NHT, first=1),
    "unevenness": unevenness,
    "recency_share": recency_share,
    "recency_reach": recency_reach,
}
# Ratios and distances have no useful mean over heads: one of them may be 0, or a thousand.
AVERAGES = dict.fromkeys(MEASURES, np.nanmedian) | {"sink_share": np.mean, "recency_share": np.mean}
NOTES = f"""\
Attention of the last position, averaged over sequences. Each line is one architecture, its measures taken
over all heads of its models: the mean of shares, else the median; in brackets the range over heads. Far/near
is the mean score in the far half of all positions but the last {RECENT}, over that in the near half.
Unevenness is the coefficient of variation of scores, in means over {RECENT} positions, along those but for 0.

| context | model | models | sequences | on position 0 | far/near | far/near without 0 | unevenness |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
RECENCY_NOTES = f"""
Recency bumps of mosaics, and Spearman's rank correlation, over the heads of a model (mean over models), of
each measure with lambda, the coefficient of the leaky average of keys. The share is attention on the last
{RECENT} positions above the plateau, which is the median score further back; the reach is the distance, in
tokens, at which the excess over the plateau has fallen to half.

| context | model | heads | share | reach | share, lambda | reach, lambda |
| --- | --- | --- | --- | --- | --- | --- |
"""


def write_report(folder: Path, results: list[dict[str, Any]], block_size: int) -> str:
    """Adds measures to the results, and leaves summary, table and pictures in `folder`; returns the table.

    Args:
        folder (`Path`): holds the arrays `NAME/mean`, `/std` and for mosaics `/lambda`.
        results (`list[dict]`): `name`, `architecture`, `context`, `num_sequences` and `num_tokens` of each.
        block_size (`int`): context of the training, marked in the pictures.
    """
    arrays = load_arrays(folder)
    results = [result | summarise(arrays, result["name"]) for result in results]
    write_json(folder / SUMMARY, {"block_size": block_size, "results": results})
    table = format_tables(results)
    write_text(folder / TABLE, table)
    pictures = draw_all(folder)
    return f"{table}\nin {folder}: {', '.join([TABLE, SUMMARY, ARRAYS, *pictures])}"


def draw_all(folder: Path) -> list[str]:
    """Draws, from nothing but the files in `folder`, the pictures; returns their names."""
    arrays, summary = load_arrays(folder), read_json(folder / SUMMARY)
    pictures = {}
    for context in dict.fromkeys(result["context"] for result in summary["results"]):
        results = [result for result in summary["results"] if result["context"] == context]
        pictures[f"maps-{context}.png"] = draw_maps(results, arrays, summary["block_size"])
        mosaics = [result for result in results if "lambda" in result["heads"]]
        if mosaics:
            pictures[f"recency-{context}.png"] = draw_recency(mosaics, arrays)
    for name, figure in pictures.items():
        save_figure(figure, folder / name)
    return list(pictures)


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays that a run has saved."""
    with np.load(folder / ARRAYS) as saved:
        return {name: saved[name] for name in saved.files}


def summarise(arrays: dict[str, np.ndarray], place: str) -> dict[str, Any]:
    """Measures of each head `[layer][head]` and of the whole model, `None` where there is no such number."""
    values = {name: measure(arrays[f"{place}/mean"]) for name, measure in MEASURES.items()}
    summary = {"model": {name: as_json(AVERAGES[name](heads_NH)) for name, heads_NH in values.items()}}
    lambda_NH = arrays.get(f"{place}/lambda")
    if lambda_NH is not None:
        summary["rank_correlation_with_lambda"] = {
            name: as_json(rank_correlation(lambda_NH.ravel(), values[name].ravel()))
            for name in ("recency_share", "recency_reach")
        }
        values["lambda"] = lambda_NH
    return {**summary, "heads": {name: as_json(heads_NH) for name, heads_NH in values.items()}}


def as_json(values: np.ndarray | float) -> Any:
    """Nested lists, with `None` for what JSON has no number for."""
    values = np.asarray(values, dtype=object)
    return np.where(np.isfinite(values.astype(float)), values, None).tolist()


def group(results: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The results of models that differ only in their weights together, context by context."""
    groups = {}
    for result in results:
        groups.setdefault((result["context"], result["architecture"]), []).append(result)
    return list(groups.values())


def format_tables(results: list[dict[str, Any]]) -> str:
    """All architectures at all contexts as Markdown, and the recency bumps of mosaics."""
    lines, bumps = [], []
    for same in group(results):
        start = f"| {same[0]['context']:,} | {same[0]['architecture']} |"
        names = ("sink_share", "far_to_near", "far_to_near_without_0", "unevenness")
        cells = [_over_heads(same, name) for name in names]
        lines.append(f"{start} {len(same)} | {same[0]['num_sequences']:,} | {' | '.join(cells)} |\n")
        if "lambda" in same[0]["heads"]:
            names = ("recency_share", "recency_reach")
            cells = [str(sum(np.size(result["heads"]["lambda"]) for result in same))]
            cells += [_over_heads(same, name) for name in names]
            cells += [format_correlation(same, name) for name in names]
            bumps.append(f"{start} {' | '.join(cells)} |\n")
    return "".join([NOTES, *lines, *([RECENCY_NOTES, *bumps] if bumps else [])])


def _over_heads(same: list[dict[str, Any]], name: str) -> str:
    values = np.array([result["heads"][name] for result in same], dtype=float)
    return f"{AVERAGES[name](values):.3g} ({np.nanmin(values):.3g} to {np.nanmax(values):.3g})"
