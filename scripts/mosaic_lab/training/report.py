"""What a training run leaves behind for its reader: loss curve, results, a summary on the terminal."""

import json
import math
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter

from mosaic_lab.core.figures import BLUE, ORANGE, SKY, save_figure, tidy
from mosaic_lab.core.files import write_json
from mosaic_lab.training.watched import BITS_PER_BYTE

CURVE_DATA, CURVE_PICTURE, RESULTS = "loss_curve.json", "loss_curve.png", "results.json"


def extract_curve(log_history: list[dict], tokens_per_step: int, bigram_loss: float | None) -> dict[str, Any]:
    """The losses that a `Trainer` logged, as arrays.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`.
        tokens_per_step (`int`): tokens of all devices in one optimiser step.
        bigram_loss (`float`, *optional*): loss of the bigram model on the validation rows, nats per token.

    Returns:
        `dict`: `train` and `validation`, each with equally long lists `step` and `loss`, the latter with
            `bits_per_byte` too where they were logged; the other arguments.
    """
    curve = {"tokens_per_step": tokens_per_step, "bigram_loss": bigram_loss}
    for name, key in (("train", "loss"), ("validation", "eval_loss")):
        points = {entry["step"]: entry[key] for entry in log_history if key in entry}
        curve[name] = {"step": list(points), "loss": list(points.values())}
    bits = {entry["step"]: entry[BITS_PER_BYTE] for entry in log_history if BITS_PER_BYTE in entry}
    if bits:
        curve["validation"]["bits_per_byte"] = list(bits.values())
    return curve


def draw_curve(data: str | os.PathLike, picture: str | os.PathLike) -> None:
    """Draws the loss against the tokens seen, from the JSON file `data`, into the PNG file `picture`."""
    curve = json.loads(Path(data).read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    styles = {
        "train": {"color": SKY, "linewidth": 1.2},
        "validation": {"color": BLUE, "linewidth": 1.8, "marker": "o", "markersize": 4},
    }
    for name, style in styles.items():
        losses = curve[name]["loss"]
        if losses:
            tokens = [step * curve["tokens_per_step"] for step in curve[name]["step"]]
            axes.plot(tokens, losses, label=f"{name}, {losses[-1]:.2f} at the end", **style)
    if curve["bigram_loss"] is not None:
        label = f"bigram model on the validation rows, {curve['bigram_loss']:.2f}"
        axes.axhline(curve["bigram_loss"], color=ORANGE, linestyle="--", linewidth=1.2, label=label)
    axes.set(xlabel="training tokens", ylabel="loss, nats per token", xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_formatter(EngFormatter())
    tidy(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    save_figure(figure, picture)


def write_report(folder: str | os.PathLike, curve: dict[str, Any], results: dict[str, Any]) -> None:
    """Writes the curve, its picture and the results into `folder`, each of them complete or not at all."""
    folder = Path(folder)
    for name, content in ((CURVE_DATA, curve), (RESULTS, results)):
        write_json(folder / name, content)
    draw_curve(folder / CURVE_DATA, folder / CURVE_PICTURE)


def summarise(folder: str | os.PathLike, curve: dict[str, Any], results: dict[str, Any]) -> str:
    """The summary that ends a run, for the terminal."""
    minutes, seconds = divmod(round(results["seconds"]), 60)
    lines = [
        f"{results['model']}, {results['num_parameters']:,} parameters, tokenizer {results['tokenizer']}",
        f"{results['steps']:,} steps of {curve['tokens_per_step']:,} tokens in {minutes} min {seconds} s, "
        f"{results['tokens_per_second']:,.0f} tokens/s (evaluation included)",
    ]
    if curve["train"]["loss"]:
        first, last = curve["train"]["loss"][0], curve["train"]["loss"][-1]
        lines.append(f"{'train loss':<17}{last:.3f}   first {first:.3f}")
    if curve["validation"]["loss"]:
        last = curve["validation"]["loss"][-1]
        bits = curve["validation"].get("bits_per_byte")
        compared = f", {bits[-1]:.3f} bits per byte" if bits else ""
        lines.append(f"{'validation loss':<17}{last:.3f}   perplexity {math.exp(last):.2f}{compared}")
    if curve["bigram_loss"] is not None:
        bigram = curve["bigram_loss"]
        lines.append(f"{'  of a bigram':<17}{bigram:.3f}   perplexity {math.exp(bigram):.2f}")
    lines.append(f"in {folder}: model, tokenizer, {CURVE_PICTURE}, {CURVE_DATA}, {RESULTS}")
    return "\n".join(lines)
