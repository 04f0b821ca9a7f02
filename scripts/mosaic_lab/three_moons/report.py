"""The summary of all runs: how often training disentangles the moons, and what each network can then tell."""

from pathlib import Path
from statistics import median
from typing import Any

from mosaic_lab.core.files import write_json, write_text
from mosaic_lab.core.work import FIGURES, RESULTS, gather, load_gathered
from mosaic_lab.three_moons.experiment import CONTENTS
from mosaic_lab.three_moons.options import OPTIMIZERS
from mosaic_lab.three_moons.plot import draw_all

ERRORS = {
    "before_max": "before the longest period",
    "midway": "midway from there to the lcm",
    "before_lcm": "before the lcm",
    "after_lcm": "after the lcm",
}


def write_report(folder: Path, results: list[dict[str, Any]]) -> str:
    """Leaves the summary, the pictures and what they are drawn from in `folder`; returns the summary."""
    first = results[0]["seed"]
    # The memories of one seed are shown, the curves of all.
    gather(folder, results, lambda result, name: name in CONTENTS and result["seed"] != first)
    summary = summarise(results)
    text = format_summary(summary)
    write_json(folder / "summary.json", summary)
    write_text(folder / "summary.md", text)
    pictures = draw_all(folder, load_gathered(folder))
    names = ["summary.md", "summary.json", *(path.name for path in pictures), RESULTS, FIGURES]
    return f"{text}\nin {folder}: {', '.join(names)}"


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and medians over the seeds, a group for each network and optimiser.

    Returns:
        `dict`: `groups`, and `ratios` of the errors on held-out periods between and within the networks, with
        the first optimiser: `one_after_to_before_lcm`, `one_before_max_to_repeated`, `three_to_one_midway`.
    """
    groups = []
    for optimizer in OPTIMIZERS:
        for num_memories in (1, 3):
            mine = [
                result
                for result in results
                if (result["num_memories"], result["optimizer"]) == (num_memories, optimizer)
            ]
            if mine:
                groups.append(_summarise_group(mine))
    summary = {"groups": groups}
    by_network = {group["num_memories"]: group["errors"]["validation"] for group in reversed(groups)}
    if by_network.keys() == {1, 3}:
        one, three = by_network[1], by_network[3]
        summary["ratios"] = {
            "one_after_to_before_lcm": one["after_lcm"] / one["before_lcm"],
            "one_before_max_to_repeated": one["before_max"] / one["repeated"],
            "three_to_one_midway": three["midway"] / one["midway"],
        }
    return summary


def _summarise_group(results):
    group = {name: results[0][name] for name in ("num_memories", "optimizer")}
    group |= {"runs": len(results)}
    for name in ("train_loss", "validation_loss", "seconds"):
        group[name] = median(result[name] for result in results)
    if group["num_memories"] == 3:
        group["purities"] = [result["purity"] for result in results]
        group["disentangled"] = sum(result["disentangled"] for result in results)
    group["errors"] = {
        split: {place: median(result["errors"][split][place] for result in results) for place in errors}
        for split, errors in results[0]["errors"].items()
    }
    return group


def format_summary(summary: dict[str, Any]) -> str:
    """The summary as Markdown, which a terminal shows well enough."""
    places = " | ".join(ERRORS.values())
    lines = [
        "Medians over the seeds. Errors are those of the next 25 positions, for held-out periods.",
        "",
        f"| network | optimiser | disentangled | least purity | validation loss | {places} | repetition |",
        "|" + " --- |" * (6 + len(ERRORS)),
    ]
    for group in summary["groups"]:
        purity = ["-", "-"]
        if "purities" in group:
            purity = [f"{group['disentangled']} of {group['runs']}", f"{min(group['purities']):.3f}"]
        errors = group["errors"]["validation"]
        cells = [
            f"{group['num_memories']} memor{'y' if group['num_memories'] == 1 else 'ies'}",
            group["optimizer"],
            *purity,
            f"{group['validation_loss']:.5f}",
            *(f"{errors[place]:.3f}" for place in ERRORS),
            f"{errors['repeated']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if "ratios" in summary:
        after, before, midway = (f"{ratio:.2f}" for ratio in summary["ratios"].values())
        lines += [
            "",
            f"Ratios of errors. One memory, after to before the lcm: {after}; one memory to repetition, "
            f"before the longest period: {before}; three memories to one, midway: {midway}.",
        ]
    return "\n".join(lines) + "\n"
