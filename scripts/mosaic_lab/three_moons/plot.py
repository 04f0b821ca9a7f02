"""The pictures of the three moons, drawn from what all runs have saved."""

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.core.figures import AMBER, BLUE, GREEN, GREY, ORANGE, PINK, plt, save_figure, tidy
from mosaic_lab.three_moons.analysis import PURE
from mosaic_lab.three_moons.options import OPTIMIZERS
from mosaic_lab.three_moons.orbits import TRACKED, UNITS_A_SEQUENCE, least_common_multiple

OPTIMIZER_STYLES = {
    "adam": {"color": BLUE, "label": "Adam"},
    "uncorrected_adam": {"color": ORANGE, "label": "Adam without bias correction"},
}
NETWORKS = {1: "one memory", 3: "three memories"}
DIMENSION_COLOURS = (GREEN, AMBER, PINK)
SPLITS = {"validation": "held-out periods", "train": "periods seen in training"}
MATRICES = {"w_phi": r"$|W_\varphi|$", "w_psi": r"$|W_\psi|$", "w_z": r"$|W_z|$"}

# A result and its arrays.
Run = tuple[dict[str, Any], dict[str, np.ndarray]]


def draw_all(folder: Path, runs: list[Run]) -> list[Path]:
    """Draws all pictures into `folder`; matrices and memories are those of the first seed.

    Returns:
        `list[Path]`: the pictures.
    """
    optimizer = next(name for name in OPTIMIZERS if any(result["optimizer"] == name for result, _ in runs))
    chosen = [run for run in runs if run[0]["optimizer"] == optimizer]
    pictures = {
        "tracking.png": draw_tracking(chosen),
        "matrices.png": draw_matrices([run for run in runs if "keys" in run[1]]),
        "memories.png": draw_memories([run for run in chosen if "keys" in run[1]]),
        "training.png": draw_training(runs),
    }
    return [save_figure(figure, folder / name) for name, figure in pictures.items()]


def draw_tracking(runs: list[Run]) -> plt.Figure:
    """Figures 4 and 5 of the paper: error of the next 25 positions against the number of observations."""
    networks = sorted({result["num_memories"] for result, _ in runs})
    figure, axes = plt.subplots(
        len(networks), 2, figsize=(11, 3.2 * len(networks)), sharex=True, sharey=True, squeeze=False
    )
    for row, num_memories in zip(axes, networks, strict=True):
        mine = [run for run in runs if run[0]["num_memories"] == num_memories]
        for panel, (split, words) in zip(row, SPLITS.items(), strict=True):
            _draw_marks(panel, mine[0][0], split)
            _draw_errors(panel, mine, split)
            panel.set_title(f"{NETWORKS[num_memories]}, {words}", fontsize=11)
            panel.set(xlim=(0, None), ylim=(0, 0.9))
            tidy(panel)
        row[0].set_ylabel("mean absolute error,\nnext 25 positions")
    for panel in axes[-1]:
        panel.set_xlabel("observations so far")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return figure


def _draw_errors(panel, runs, split):
    context = runs[0][1]["context"]
    errors = [arrays[f"{split}_error"] for _, arrays in runs]
    for error in errors:
        panel.plot(context, error, color=BLUE, linewidth=0.6, alpha=0.35)
    label = f"network, median of {len(errors)} seeds" if len(errors) > 1 else "network"
    panel.plot(context, np.median(errors, 0), color=BLUE, linewidth=2, label=label)
    repeated = runs[0][1][f"{split}_repeated"]
    panel.plot(context, repeated, color=GREY, linestyle=":", label="repeating the last observation")


def _draw_marks(panel, result, split):
    """Periods in black, their least common multiple in red, in observations."""
    unit = result["length"] / UNITS_A_SEQUENCE
    periods = TRACKED[result["periods"]][split]
    for period in periods:
        label = "periods of the moons" if period == periods[0] else None
        panel.axvline(period * unit, color="black", linewidth=0.9, linestyle="--", label=label)
    common = least_common_multiple(periods) * unit
    panel.axvline(common, color="red", linewidth=1.2, label="their least common multiple")


def draw_matrices(runs: list[Run]) -> plt.Figure:
    """Figure 6 of the paper: absolute values of the complex matrices."""
    figure, axes = plt.subplots(len(runs), 3, figsize=(8, 2.5 * len(runs)), squeeze=False)
    moons, dimensions = [f"moon {i}" for i in (1, 2, 3)], ["1", "2", "3"]
    for row, (result, arrays) in zip(axes, runs, strict=True):
        for panel, (name, title) in zip(row, MATRICES.items(), strict=True):
            size = np.abs(arrays[name])
            panel.imshow(size, cmap="Blues", vmin=0)
            for (i, j), value in np.ndenumerate(size):
                colour = "white" if value > 0.6 * size.max() else "black"
                panel.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
            panel.set_title(title, fontsize=10)
            panel.set_xticks(range(3), dimensions if name == "w_z" else moons)
            panel.set_yticks(range(3), moons if name == "w_z" else dimensions)
            panel.tick_params(length=0, labelsize=8)
        optimizer = OPTIMIZER_STYLES[result["optimizer"]]["label"].replace(" without", "\nwithout")
        row[0].set_ylabel(f"{NETWORKS[result['num_memories']]},\n{optimizer}", fontsize=9)
    figure.tight_layout()
    return figure


def draw_memories(runs: list[Run]) -> plt.Figure:
    """What the memories hold after one sequence of held-out periods, and what they answered on the way.

    A column is a complex dimension, of the one memory or of a memory each. Above are the keys, by the step at
    which they were stored; below the real parts of the values that were to come and of the answers.
    """
    figure, axes = plt.subplots(
        2 * len(runs), 3, figsize=(12, 5 * len(runs)), squeeze=False, height_ratios=[1.6, 1] * len(runs)
    )
    for (result, arrays), key_row, value_row in zip(runs, axes[::2], axes[1::2], strict=True):
        key_TM, value_TM, recalled_TM = arrays["keys"], arrays["values"], arrays["recalled"]
        reach = 1.15 * np.abs(key_TM).max()
        for i, colour in enumerate(DIMENSION_COLOURS):
            panel = key_row[i]
            dots = panel.scatter(key_TM[:, i].real, key_TM[:, i].imag, c=np.arange(len(key_TM)), s=8)
            panel.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
            place = f"dimension {i + 1}" if result["num_memories"] == 1 else f"memory {i + 1}"
            panel.set_title(f"{NETWORKS[result['num_memories']]}: keys, {place}", fontsize=10)
            figure.colorbar(dots, ax=panel, label="stored at step", fraction=0.046)
            panel = value_row[i]
            panel.plot(value_TM[:, i].real, color=colour, linewidth=2.5, label="value to come")
            panel.plot(recalled_TM[:, i].real, color="black", linewidth=0.8, label="answer")
            panel.set(xlabel="step", ylabel="real part", ylim=(-reach_of(value_TM), 1.5 * reach_of(value_TM)))
            panel.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
        for panel in (*key_row, *value_row):
            tidy(panel)
    figure.tight_layout()
    return figure


def reach_of(state_TM: np.ndarray) -> float:
    """A little more than the largest absolute value."""
    return 1.1 * float(np.abs(state_TM).max())


def draw_training(runs: list[Run]) -> plt.Figure:
    """Training losses, and how far each memory keeps to one moon; of three memories, if there are such."""
    runs = [run for run in runs if run[0]["num_memories"] == 3] or runs
    figure, (curves, dots) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=[2, 1])
    optimizers = [name for name in OPTIMIZERS if any(result["optimizer"] == name for result, _ in runs)]
    for column, optimizer in enumerate(optimizers):
        style = OPTIMIZER_STYLES[optimizer]
        mine = [run for run in runs if run[0]["optimizer"] == optimizer]
        for _, arrays in mine:
            (line,) = curves.plot(
                arrays["train_step"], arrays["train_loss"], color=style["color"], alpha=0.6, linewidth=1
            )
        line.set_label(style["label"])
        purities = [result["purity"] for result, _ in mine if result["purity"] is not None]
        spread = np.linspace(-0.2, 0.2, len(purities)) if len(purities) > 1 else 0
        dots.scatter(column + spread + np.zeros(len(purities)), purities, color=style["color"], s=28)
    curves.set(xlabel="step", ylabel="clipped loss", yscale="log")
    curves.set_title(f"training, {NETWORKS[runs[0][0]['num_memories']]}", fontsize=11)
    curves.legend(frameon=False)
    dots.axhline(PURE, color=GREY, linestyle="--", linewidth=1)
    dots.set_xticks(
        range(len(optimizers)), [OPTIMIZER_STYLES[name]["label"] for name in optimizers], fontsize=8
    )
    dots.set(ylim=(-0.03, 1.05), xlim=(-0.6, len(optimizers) - 0.4), ylabel="purity, a dot a seed")
    dots.set_title("each memory's share from one moon", fontsize=11)
    for panel in (curves, dots):
        tidy(panel)
    figure.tight_layout()
    return figure
