"""The pictures of the three moons, drawn from the arrays that the runs have saved."""

from pathlib import Path
from typing import Any

import numpy as np
from experiments.figures import AMBER, BLUE, GREEN, GREY, ORANGE, PINK, SKY, plt, save_figure, tidy
from three_moons.experiment import ARRAYS
from three_moons.options import OPTIMIZERS
from three_moons.orbits import TRACKED, UNITS_A_SEQUENCE, least_common_multiple

OPTIMIZER_STYLES = {
    "uncorrected_adam": {"color": BLUE, "label": "Adam without bias correction"},
    "adam": {"color": ORANGE, "label": "Adam"},
}
MOON_COLOURS = (GREEN, AMBER, PINK)
SPLITS = {"validation": "held-out periods", "train": "periods seen in training"}
# Of the sequence whose memories are shown: what fits beside each other.
SHOWN = 300


def draw_all(folder: Path, results: list[dict[str, Any]]) -> list[Path]:
    """Draws all pictures into `folder`; `results` are those of its runs, in their order.

    Returns:
        `list[Path]`: the pictures.
    """
    runs = [(result, np.load(folder / name_of(result) / ARRAYS)) for result in results]
    first = [run for run in runs if run[0]["seed"] == runs[0][0]["seed"]]
    pictures = {
        "tracking.png": draw_tracking([run for run in runs if run[0]["optimizer"] == OPTIMIZERS[0]] or runs),
        "matrices.png": draw_matrices(first),
        "memories.png": draw_memories(
            [run for run in first if run[0]["optimizer"] == first[0][0]["optimizer"]]
        ),
        "training.png": draw_training(runs),
    }
    return [save_figure(figure, folder / name) for name, figure in pictures.items()]


def name_of(result: dict[str, Any]) -> str:
    """The name of a result's run."""
    return f"memories{result['num_memories']}-{result['optimizer']}-seed{result['seed']}"


def title_of(result: dict[str, Any]) -> str:
    """The network of a result, in words."""
    return "one memory" if result["num_memories"] == 1 else "three memories"


def draw_tracking(runs) -> plt.Figure:
    """Figures 4 and 5 of the paper: error of the next 25 positions against the number of observations."""
    networks = sorted({result["num_memories"] for result, _ in runs})
    figure, axes = plt.subplots(
        len(networks), 2, figsize=(11, 3.4 * len(networks)), sharex=True, sharey=True, squeeze=False
    )
    for row, num_memories in zip(axes, networks, strict=True):
        those = [run for run in runs if run[0]["num_memories"] == num_memories]
        for panel, (split, words) in zip(row, SPLITS.items(), strict=True):
            _draw_marks(panel, those[0][0], split)
            context = those[0][1]["context"]
            errors = [arrays[f"{split}_error"] for _, arrays in those]
            for error in errors:
                panel.plot(context, error, color=BLUE, linewidth=0.6, alpha=0.35)
            label = title_of(those[0][0]) + (f", median of {len(errors)} seeds" if len(errors) > 1 else "")
            panel.plot(context, np.median(errors, 0), color=BLUE, linewidth=2, label=label)
            repeated = those[0][1][f"{split}_repeated"]
            panel.plot(context, repeated, color=GREY, linestyle=":", label="repeating the last observation")
            panel.set_title(f"{title_of(those[0][0])}, {words}", fontsize=11)
            panel.set(xlim=(0, None), ylim=(0, None))
            tidy(panel)
        row[0].set_ylabel("mean absolute error,\nnext 25 positions")
    for panel in axes[-1]:
        panel.set_xlabel("observations so far")
    axes[0, 1].legend(frameon=False, fontsize=9, loc="upper right")
    figure.tight_layout()
    return figure


def _draw_marks(panel, result, split):
    """Periods in black, their least common multiple in red, in observations."""
    unit = result["length"] / UNITS_A_SEQUENCE
    periods = TRACKED[result["periods"]][split]
    for period in periods:
        label = "periods of the moons" if period == periods[0] else None
        panel.axvline(period * unit, color="black", linewidth=0.9, linestyle="--", label=label)
    common = least_common_multiple(periods) * unit
    panel.axvline(common, color="red", linewidth=1.2, label="their least common multiple")


def draw_matrices(runs) -> plt.Figure:
    """Figure 6 of the paper: absolute values of the complex matrices, of one seed."""
    names = {"w_phi": r"$|W_\varphi|$", "w_psi": r"$|W_\psi|$", "w_z": r"$|W_z|$"}
    figure, axes = plt.subplots(len(runs), 3, figsize=(8, 2.5 * len(runs)), squeeze=False)
    for row, (result, arrays) in zip(axes, runs, strict=True):
        for panel, (name, title) in zip(row, names.items(), strict=True):
            size = np.abs(arrays[name])
            panel.imshow(size, cmap="Blues", vmin=0)
            for (i, j), value in np.ndenumerate(size):
                colour = "white" if value > 0.6 * size.max() else "black"
                panel.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
            if row is axes[0]:
                panel.set_title(title)
            memory_side = "rows" if name != "w_z" else "columns"
            panel.set_xticks(
                range(3), [f"moon {j + 1}" if memory_side == "rows" else j + 1 for j in range(3)]
            )
            panel.set_yticks(
                range(3), [f"moon {j + 1}" if memory_side != "rows" else j + 1 for j in range(3)]
            )
            panel.tick_params(length=0, labelsize=8)
        optimizer = OPTIMIZER_STYLES[result["optimizer"]]["label"].replace(" without", "\nwithout")
        row[0].set_ylabel(f"{title_of(result)},\n{optimizer}", fontsize=9)
    figure.tight_layout()
    return figure


def draw_memories(runs) -> plt.Figure:
    """What the memories hold after one sequence of held-out periods, and what they predicted on the way.

    Above the keys, by the time at which they were stored; below the real parts of the values and of what the
    memory answered. One column for each complex dimension: of the one memory, or one of each of three.
    """
    figure, axes = plt.subplots(
        2 * len(runs), 3, figsize=(12, 5.2 * len(runs)), squeeze=False, height_ratios=[1.5, 1] * len(runs)
    )
    for (result, arrays), key_row, value_row in zip(runs, axes[::2], axes[1::2], strict=True):
        for column in range(3):
            key, value, recalled = (arrays[name][:SHOWN, column] for name in ("keys", "values", "recalled"))
            panel = key_row[column]
            dots = panel.scatter(key.real, key.imag, c=np.arange(len(key)), cmap="viridis", s=8)
            reach = 1.15 * np.abs(arrays["keys"]).max()
            panel.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
            what = (
                f"dimension {column + 1} of the memory"
                if result["num_memories"] == 1
                else f"memory {column + 1}"
            )
            panel.set_title(f"{title_of(result)}: keys, {what}", fontsize=10)
            tidy(panel)
            figure.colorbar(dots, ax=panel, label="stored at step", fraction=0.046)
            panel = value_row[column]
            panel.plot(value.real, color=MOON_COLOURS[column], label="value to predict")
            panel.plot(recalled.real[: len(value)], color="black", linewidth=0.8, label="recalled")
            panel.set(xlabel="step", ylabel="real part")
            tidy(panel)
            panel.legend(frameon=True, fontsize=8, loc="upper right")
    figure.tight_layout()
    return figure


def draw_training(runs) -> plt.Figure:
    """Training losses of the three-memory networks, and how far each memory keeps to one moon."""
    those = [run for run in runs if run[0]["num_memories"] == 3] or runs
    figure, (curves, dots) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=[2, 1])
    optimizers = [name for name in OPTIMIZERS if any(result["optimizer"] == name for result, _ in those)]
    for column, optimizer in enumerate(optimizers):
        style = OPTIMIZER_STYLES[optimizer]
        mine = [run for run in those if run[0]["optimizer"] == optimizer]
        for number, (_, arrays) in enumerate(mine):
            label = style["label"] if number == 0 else None
            curves.plot(
                arrays["train_step"],
                arrays["train_loss"],
                color=style["color"],
                alpha=0.6,
                linewidth=1,
                label=label,
            )
        purities = [result["purity"] for result, _ in mine if result["purity"] is not None]
        spread = np.linspace(-0.2, 0.2, len(purities)) if len(purities) > 1 else np.zeros(len(purities))
        dots.scatter(column + spread, purities, color=style["color"], s=28)
    curves.set(xlabel="step", ylabel="clipped loss", yscale="log")
    curves.set_title(f"training, {title_of(those[0][0])}", fontsize=11)
    curves.legend(frameon=False)
    dots.axhline(0.9, color=SKY, linestyle="--", linewidth=1)
    dots.set_xticks(
        range(len(optimizers)), [OPTIMIZER_STYLES[name]["label"] for name in optimizers], fontsize=8
    )
    dots.set(ylim=(-0.03, 1.05), xlim=(-0.6, len(optimizers) - 0.4), ylabel="purity, a dot a seed")
    dots.set_title("share of energy from one moon", fontsize=11)
    tidy(curves)
    tidy(dots)
    figure.tight_layout()
    return figure
