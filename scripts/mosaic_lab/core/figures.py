"""How the figures of the experiments look."""

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

# Colours of Okabe and Ito, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PINK, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#808080"
# The same kind of model, as configs call it, has the same colour in all pictures.
COLOURS_OF_MODELS = {"mosaic": BLUE, "gpt2": ORANGE, "llama": GREEN, "bloom": PINK}


def tidy(axes) -> None:
    """A light grid, and no frame on the sides that carry no scale."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: plt.Figure, path: str | os.PathLike) -> Path:
    """Writes the PNG beside `path`, and moves it there once it is complete."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, dpi=150, format="png")
    plt.close(figure)
    return partial.replace(path)
