"""Ratios of what was measured, and the targets that they are held against."""

from statistics import median
from typing import Any

RATIOS = {"mosaic / GPT-2": ("mosaic", "gpt2"), "plain / mosaic": ("plain", "mosaic")}
SHARE = {"leaky averages / block": ("leaky_average", "block")}


def compute_ratio(row: dict[str, Any], over: str, under: str) -> float | None:
    """Memory over memory, or the median over the rounds of time over time; `None` if one was not measured."""
    measured = row["seconds"] if row["measure"] == "time" else row["bytes"]
    if over not in measured or under not in measured:
        return None
    if row["measure"] == "memory":
        return measured[over] / measured[under]
    return median(a / b for a, b in zip(measured[over], measured[under], strict=True))


def compute_ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The ratios of each cell, by its name."""
    ratios = {}
    for row in rows:
        pairs = SHARE if row["task"] == "leaky_share" else RATIOS
        values = {title: compute_ratio(row, *pair) for title, pair in pairs.items()}
        ratios[row["name"]] = {title: value for title, value in values.items() if value is not None}
    return ratios


def find_rows(rows: list[dict[str, Any]], **wanted: str | int) -> list[dict[str, Any]]:
    """The rows that have all these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def compute_targets(options: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the project wants to reach, and what was measured: `target`, `limit`, `execution`, `value`."""
    return [
        {"target": target, "limit": limit, "execution": execution, "value": value}
        for execution in options["execution"]
        for target, limit, value in _targets_of(options, find_rows(rows, execution=execution))
    ]


def _targets_of(options, rows):
    shortest, longest = options["contexts"][0], options["contexts"][-1]

    def mosaic_over_gpt2(**wanted):
        return compute_ratio(find_rows(rows, **wanted)[0], "mosaic", "gpt2")

    value = mosaic_over_gpt2(measure="time", task="train", context=shortest)
    yield f"training step, T={shortest:,}, mosaic / GPT-2", 1.0, value
    for context in (shortest, 4 * shortest):
        if context in options["contexts"]:
            value = mosaic_over_gpt2(measure="time", task="prefill", context=context)
            yield f"prefill, T={context:,}, mosaic / GPT-2", 1.0, value
    decode = {"context": options["decode_prompt"], "new_tokens": options["decode_new_tokens"]}
    for batch in options["decode_batches"]:
        value = mosaic_over_gpt2(measure="time", task="decode", batch=batch, **decode)
        tokens = f"{decode['new_tokens']:,} after {decode['context']:,}"
        yield f"time per new token, {tokens}, batch {batch}, mosaic / GPT-2", 1.0, value
    value = mosaic_over_gpt2(measure="memory", task="train", context=shortest)
    yield f"peak memory of a training step, T={shortest:,}, mosaic / GPT-2", 1.1, value
    ends = [find_rows(rows, measure="memory", task="train", context=T)[0] for T in (longest, shortest)]
    value = ends[0]["bytes"]["mosaic"] / ends[1]["bytes"]["mosaic"]
    yield f"training memory of the mosaic, T={longest:,} / T={shortest:,}, same tokens", 1.2, value
    value = compute_ratio(find_rows(rows, task="leaky_share")[0], "leaky_average", "block")
    yield f"leaky averages / block, forward and backward, T={shortest:,}", 0.1, value
