"""The style of all figures."""

import io
import os
from pathlib import Path

import matplotlib
from PIL import Image

from mosaic_lab.core.files import replacing

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

# Colours of Okabe and Ito, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PINK, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#808080"
# Of many models in one picture: the mosaic is always blue, others take what comes next.
MANY_COLOURS = (ORANGE, GREEN, PINK, SKY, AMBER, "#5D3A9B", "#000000", "#7F7F33")
MARKERS = "oDs^vPX<>"
COLOURS_OF_MODELS = {"mosaic": BLUE, "mosaic_v2": AMBER, "gpt2": ORANGE, "llama": GREEN, "bloom": PINK}
NAMES_OF_MODELS = {
    "mosaic": "Memory Mosaic",
    "mosaic_v2": "Memory Mosaic v2",
    "mosaic_v2_ablated": "v2, a change taken back",
    "gpt2": "GPT-2",
    "llama": "Llama",
    "bloom": "Bloom",
}


def colour_of(model_type: str) -> str:
    """The colour of a kind of model, as configs call it, in all pictures."""
    return COLOURS_OF_MODELS.get(model_type, SKY)


def name_of(model_type: str) -> str:
    """The name of a kind of model, as configs call it, in tables and pictures."""
    return NAMES_OF_MODELS.get(model_type, model_type)


def style_of(model: str, models: list[str]) -> dict[str, str]:
    """Colour, marker and label of one of many models in a picture."""
    others = [name for name in models if name != "mosaic"]
    number = 0 if model == "mosaic" else 1 + others.index(model)
    colour = BLUE if number == 0 else MANY_COLOURS[(number - 1) % len(MANY_COLOURS)]
    return {"color": colour, "marker": MARKERS[number % len(MARKERS)], "label": model}


def tidy(axes) -> None:
    """Draws a light grid, and no frame on the sides without a scale."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: plt.Figure, path: str | os.PathLike) -> Path:
    """Writes a PNG of 256 colours, which make it several times smaller, and closes the figure."""
    path = Path(path)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, format="png")
    plt.close(figure)
    with replacing(path) as partial:
        Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            partial, format="png", optimize=True
        )
    return path
