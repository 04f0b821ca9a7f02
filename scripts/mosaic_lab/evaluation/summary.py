"""Figures of all models from what the runs measured: means, their intervals, differences."""

from typing import Any

import numpy as np

from mosaic_lab.evaluation.intervals import bootstrap_weights, interval_record, ratio_interval

# Positions that are averaged in one point of the curves, and points of a long one at most.
BIN, NUM_POINTS = 16, 64
HALVES = ("first_half", "second_half", "second_half_alone", "gain")

# By model, what its run measured.
Arrays = dict[str, dict[str, np.ndarray]]
Summary = tuple[dict[str, Any], dict[str, np.ndarray]]


def summarise_text(results: list[dict[str, Any]], measured: Arrays) -> Summary:
    """Losses by document, by position and by half of all models on one text.

    Args:
        results (`list[dict]`): of the runs on this text.
        measured (`dict`): by model, see `measure_text`.

    Returns:
        `tuple[dict, dict]`: the figures; by model, its mean loss at each position, `(time - 1,)`, and by
        architecture other than the first one's, the difference to that by stretch of 16 positions, `(3,
        stretches)`, mean and ends of the 95% interval.
    """
    first = results[0]
    num_tokens_D, num_rows = measured[first["model"]]["num_tokens"], len(measured[first["model"]]["row_loss"])
    weights_SD = bootstrap_weights(len(num_tokens_D), first["seed"])
    weights_SN = bootstrap_weights(num_rows, first["seed"])
    figures, curves = {}, {}
    for result in results:
        name, arrays = result["model"], measured[result["model"]]
        loss = interval_record(arrays["loss"], num_tokens_D, weights_SD)
        figures[name] = {
            "loss": loss,
            "perplexity": {end: float(np.exp(value)) for end, value in loss.items()},
            "loss_per_character": float(arrays["loss"].sum()) / result["num_characters"],
        }
        if "alone" in arrays:
            figures[name] |= summarise_halves(arrays, first["seed"])
        curves[name] = arrays["row_loss"].mean(0)
    architectures = architectures_of(results)
    by_document, by_row = ({name: measured[name][key] for name in measured} for key in ("loss", "row_loss"))
    differences = {}
    for architecture, difference_D in differences_of(architectures, by_document).items():
        differences[architecture] = interval_record(difference_D, num_tokens_D, weights_SD)
    for architecture, difference_NT in differences_of(architectures, by_row).items():
        interval = ratio_interval(bin_positions(difference_NT)[1], np.ones(num_rows), weights_SN)
        curves[f"difference/{architecture}"] = np.stack(interval)
    summary = {
        "name": first["text"],
        "sha256": first["sha256"],
        "num_documents": len(num_tokens_D),
        "num_tokens": int(num_tokens_D.sum()),
        "num_rows": num_rows,
        "models": figures,
        "differences": differences,
        "stretches": summarise_stretches(architectures, by_row, weights_SN),
    }
    return summary, curves


def architectures_of(results: list[dict[str, Any]]) -> dict[str, str]:
    """The architecture of each model."""
    return {result["model"]: result["architecture"] for result in results}


def differences_of(architectures: dict[str, str], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each architecture but the first, its models' mean minus that of the first one's, unit by unit."""
    members: dict[str, list[np.ndarray]] = {}
    for name, architecture in architectures.items():
        members.setdefault(architecture, []).append(values[name])
    (_, reference), *others = ((name, np.mean(values, 0)) for name, values in members.items())
    return {name: mean - reference for name, mean in others}


def summarise_halves(arrays: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Losses on the halves of documents, in nats per token, each mean and interval.

    Args:
        arrays (`dict`): see `measure_halves`.
        seed (`int`): seed of the bootstrap over documents.
    """
    weights_SN = bootstrap_weights(len(arrays["alone"]), seed)
    gain = arrays["alone"] - arrays["second"]
    sums = dict(zip(HALVES, (arrays["first"], arrays["second"], arrays["alone"], gain), strict=True))
    return {
        name: interval_record(
            sum_N, arrays["num_first" if name == "first_half" else "num_second"], weights_SN
        )
        for name, sum_N in sums.items()
    }


def summarise_stretches(
    architectures: dict[str, str], by_row: dict[str, np.ndarray], weights_SN: np.ndarray
) -> list[dict[str, Any]]:
    """Losses and differences by stretch of the context: 1 to 50 tokens behind, to 100, to 200, and so on.

    Returns:
        `list[dict]`: `first` and `last` number of tokens behind, `models` and `differences`, means and
        intervals over rows.
    """
    time = next(iter(by_row.values())).shape[1]
    edges = [0, 50]
    while 2 * edges[-1] < time:
        edges.append(2 * edges[-1])
    edges = [edge for edge in edges if edge < time] + [time]
    stretches = []
    for start, end in zip(edges, edges[1:], strict=False):
        inside = {name: losses_NT[:, start:end].sum(1) for name, losses_NT in by_row.items()}
        counts_N = np.full(len(weights_SN[0]), end - start)
        record = {"first": start + 1, "last": end}
        for name, values in (("models", inside), ("differences", differences_of(architectures, inside))):
            record[name] = {
                key: interval_record(totals_N, counts_N, weights_SN) for key, totals_N in values.items()
            }
        stretches.append(record)
    return stretches


def summarise_induction(arrays: dict[str, np.ndarray], seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Loss on both copies of a segment, and how often the likeliest token is right in the second.

    Args:
        arrays (`dict`): see `measure_induction`.
        seed (`int`): seed of the bootstrap over segments.

    Returns:
        `tuple[dict, np.ndarray]`: `first_copy`, `second_copy` and `accuracy`, each mean and interval; the
        second copy's mean loss by token, `(segment_size - 1,)`.
    """
    num_segments, size = arrays["first_copy"].shape
    weights_SN, counts_N = bootstrap_weights(num_segments, seed), np.full(num_segments, size)
    figures = {
        name: interval_record(arrays[name].sum(1), counts_N, weights_SN)
        for name in ("first_copy", "second_copy", "accuracy")
    }
    return figures, arrays["second_copy"].mean(0)


def summarise_names(arrays: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Losses on names and other tokens, and the share of names in told stories that belong to the story.

    Args:
        arrays (`dict`): see `measure_names`.
        seed (`int`): seed of the bootstrap, over documents and over tellings.

    Returns:
        `dict`: `repeated`, `new`, `other` and `belonging`, each mean and interval, `NaN` where there is none;
        `num_tellings` and `num_told`, stories told and names in them.
    """
    weights_SD = bootstrap_weights(len(arrays["num_other"]), seed)
    figures = {
        name: interval_record(arrays[f"{name}_loss"], arrays[f"num_{name}"], weights_SD)
        for name in ("repeated", "new", "other")
    }
    told = arrays["num_told"]
    figures |= {"num_tellings": len(told), "num_told": int(told.sum())}
    figures["belonging"] = interval_record(arrays["num_belonging"], told, bootstrap_weights(len(told), seed))
    return figures


def summarise_units(result: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The figures of `measure_name_units`, unit by unit."""
    places = {name: result[name] for name in ("num_places", "even_right", "even_name")}
    units = [
        {"layer": layer, "unit": unit} | {name: float(array[layer, unit]) for name, array in arrays.items()}
        for layer, unit in np.ndindex(arrays["peek"].shape)
    ]
    return {**places, "units": units}


def bin_positions(curve_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of tokens behind, and means over 16 positions each, or more in contexts above 1,024 tokens.

    An incomplete bin at the end is dropped.

    Args:
        curve_T (`np.ndarray` of shape `(..., time)`): a value for each position.
    """
    size = min(max(BIN, curve_T.shape[-1] // NUM_POINTS), curve_T.shape[-1])
    num_bins = curve_T.shape[-1] // size
    means = curve_T[..., : num_bins * size].reshape(*curve_T.shape[:-1], num_bins, size).mean(-1)
    return (np.arange(num_bins) + 0.5) * size + 0.5, means
