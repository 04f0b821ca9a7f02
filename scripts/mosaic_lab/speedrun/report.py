"""Table of a speedrun, from the results of its runs."""

from pathlib import Path
from typing import Any

from mosaic_lab.core.files import read_json, write_json, write_text
from mosaic_lab.core.tables import table
from mosaic_lab.core.work import RESULTS, TABLES


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Gathers the results in `folder`, and reports on them; returns the table."""
    write_json(folder / RESULTS, results)
    return f"{redraw(folder)}\nin {folder}: {TABLES}, {RESULTS}, and a folder with each model"


def redraw(folder: Path) -> str:
    """Makes the table from the results in `folder`, and returns it."""
    text = format_results(read_json(folder / RESULTS))
    write_text(folder / TABLES, text)
    return text


def format_results(results: list[dict[str, Any]]) -> str:
    """Formats one row per run as Markdown, and says which have reached the target."""
    first = {}
    for result in results:
        first.setdefault(result["seed"], result["seconds"])
    head = ["recipe", "seed", "model", "parameters", "steps", "tokens", "seconds", "of the first one's"]
    head += ["nats per token", "bits per byte", f"at most {results[0]['target']}"]
    rows = [
        [result["recipe"], str(result["seed"]), result["model"]]
        + [f"{result[name]:,}" for name in ("num_parameters", "steps", "tokens")]
        + [f"{result['seconds']:.1f}", f"{result['seconds'] / first[result['seed']]:.2f}"]
        + [f"{result['loss']:.3f}", f"{result['bits_per_byte']:.4f}"]
        + ["yes" if result["bits_per_byte"] <= result["target"] else "no"]
        for result in results
    ]
    return table(head, rows)
