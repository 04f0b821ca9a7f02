"""The table of the experiment `serving`, from the results that its runs left."""

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from mosaic_lab.core.files import read_json, read_object, write_json, write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import RESULT, RESULTS, TABLES
from mosaic_lab.serving.ways import WAYS

NAMES = {"mosaic": "mosaic", "gpt2": "GPT-2"}
BASE = "one_by_one"
HEAD = ("way", "model", "tokens / s", "to one by one", "to GPT-2", "processor, ms", "to GPT-2")
HEAD += ("first token, s", "longest wait, s", "as one by one")
NOTES = """\
{num_requests} requests at once, of {least_prompt} to {longest_prompt} tokens, each for {new_tokens} more,
greedily; {contestants} parameters (random weights), hidden size {hidden_size}, {num_hidden_layers} layers;
{threads} on {label}.

Medians of up to {rounds} rounds, in which all take turns; ratios are medians within rounds (least to most).
Tokens are new ones. The processor's time is that of all processes, for a new token. The first token comes to
the median request after, and to the one that waits longest. As one by one: requests with the same tokens.

"""

Results = list[dict[str, Any]]


def write_report(folder: Path, results: Results) -> str:
    """Gathers the results of all runs in `folder`, those of other installations too, and reports."""
    paths = sorted(folder.glob(f"*/{RESULT}"))
    write_json(folder / RESULTS, [read_object(path) for path in paths])
    return redraw(folder)


def redraw(folder: Path) -> str:
    """Makes the table from the results gathered in `folder`; returns it."""
    text = format_table(read_json(folder / RESULTS))
    write_text(folder / TABLES, text)
    return f"{text}\nin {folder}: {TABLES}, {RESULTS}"


def format_table(results: Results) -> str:
    """A row for each way and model."""
    runs = {(result["way"], result["contestant"], result["round"]): result for result in results}
    rounds = defaultdict(list)
    for way, contestant, number in sorted(runs):
        rounds[way, contestant].append(number)
    first = results[0]
    parameters, threads = first["parameters"], first["num_threads"]
    contestants = sorted({contestant for _, contestant in rounds}, reverse=True)
    notes = NOTES.format(
        **{name: value for name, value in first.items() if name != "rounds"},
        label=first["hardware"]["label"],
        rounds=max(map(len, rounds.values())),
        threads="one thread" if threads == 1 else f"{threads} threads",
        contestants=", ".join(f"{NAMES[name]} {parameters[name]:,}" for name in contestants),
    )
    rows = [
        _format_row(runs, way, contestant, rounds[way, contestant])
        for way in WAYS
        for contestant in contestants
        if (way, contestant) in rounds
    ]
    return notes + table(HEAD, rows)


def _format_row(runs, way, contestant, numbers):
    results = [runs[way, contestant, number] for number in numbers]

    def compare(name, base_way, base_contestant, faster):
        """Ratios to another row in the same rounds: of speeds if `faster` is 1, of times if it is -1."""
        others = [runs.get((base_way, base_contestant, number)) for number in numbers]
        ratios = [
            (_per_token(other, name) / _per_token(result, name)) ** faster
            for result, other in zip(results, others, strict=True)
            if other is not None
        ]
        return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else ""

    def compare_models(name, faster):
        return compare(name, way, "gpt2", faster) if contestant != "gpt2" else ""

    waits = [result["first_seconds"] for result in results]
    return (
        WAYS[way].title,
        NAMES[contestant],
        f"{1 / median(_per_token(result, 'seconds') for result in results):,.0f}",
        compare("seconds", BASE, contestant, 1),
        compare_models("seconds", 1),
        f"{1e3 * median(_per_token(result, 'processor_seconds') for result in results):.2f}",
        compare_models("processor_seconds", -1),
        f"{median(map(median, waits)):.2f}",
        f"{median(map(max, waits)):.2f}",
        _count_alike(results, [runs.get((BASE, contestant, number)) for number in numbers]),
    )


def _per_token(result, name):
    return result[name] / result["num_tokens"]


def _count_alike(results, others):
    """Requests with the tokens that they have one by one, in the round where these are fewest."""
    alike = [
        sum(map(str.__eq__, result["digests"], other["digests"]))
        for result, other in zip(results, others, strict=True)
        if other is not None
    ]
    return f"{min(alike)} of {len(results[0]['digests'])}" if alike else ""
