"""Draws a benchmark's result: python -m mosaic_lab.benchmark.plot RESULT.json"""

import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter

from mosaic_lab.benchmark.report import get_measured
from mosaic_lab.core.figures import GREY, colour_of, name_of, plt, save_figure, tidy

STYLES = {
    name: {"label": name_of(name), "color": colour_of(name), "marker": marker}
    for name, marker in {"mosaic": "o", "gpt2": "s", "llama": "s"}.items()
} | {
    "plain": {"label": "plain T x T implementation", "color": GREY, "marker": "^"},
}
ROWS = {"time": ("time", "s"), "memory": ("peak memory", "B")}
LEAST_RANGE = 8


def draw(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draws time and peak memory of eager models against the context into the PNG `path`."""
    options = result["options"]
    batch, new_tokens = options["decode_batches"][0], options["long_decode_new_tokens"]
    columns = {
        ("train", 0): f"training step of {options['train_tokens']:,} tokens",
        ("prefill", 0): "prefill, batch 1",
        ("decode", new_tokens): f"a new token of {new_tokens} after T, batch {batch}",
    }
    figure, axes = plt.subplots(len(ROWS), len(columns), figsize=(12, 7), sharex=True)
    for column, ((task, new), title) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=11)
        axes[-1, column].set_xlabel("context T, tokens")
        for row, (measure, (label, unit)) in enumerate(ROWS.items()):
            wanted = {"measure": measure, "task": task, "new_tokens": new, "execution": "eager"}
            wanted |= {"batch": batch} if task == "decode" else {}
            cells = [
                cell for cell in result["cells"] if all(cell[name] == value for name, value in wanted.items())
            ]
            _draw_panel(axes[row, column], cells)
            axes[row, column].set_ylabel(label)
            _format_axes(axes[row, column], options["contexts"], unit)
    measured = {name for cell in result["cells"] for name in cell["contestants"]}
    handles = [plt.Line2D([], [], **style) for name, style in STYLES.items() if name in measured]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    figure.suptitle(
        f"Benchmark {result['recipe']} on {result['hardware']['label']}: "
        f"{name_of(options.get('model', 'mosaic'))} of {options['num_hidden_layers']} layers, "
        f"{result['parameters']['mosaic'] / 1e6:.1f} million parameters each, {options['dtype']}",
        fontsize=12,
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    save_figure(figure, path)


def _draw_panel(axes, cells):
    """Medians, with all rounds between the edges of the shade; the mosaic on top."""
    for name, style in reversed(STYLES.items()):
        measured = {
            cell["context"]: get_measured(cell)[name] for cell in cells if name in cell["contestants"]
        }
        if measured:
            axes.plot(list(measured), [median(m) for m in measured.values()], markersize=5, **style)
            edges = zip(*((min(m), max(m)) for m in measured.values()), strict=True)
            axes.fill_between(list(measured), *edges, color=style["color"], alpha=0.2, linewidth=0)


def _format_axes(axes, contexts, unit):
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(contexts))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda context, _: f"{context:,.0f}"))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    low, high = axes.get_ylim()
    # Small differences should look small.
    margin = max(1, (LEAST_RANGE * low / high) ** 0.5)
    low, high = axes.set_ylim(low / margin, high * margin)
    # Over many decades, labels between them would touch.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,), numticks=20))
    axes.yaxis.set_major_formatter(EngFormatter(unit=unit))
    axes.yaxis.set_minor_formatter(NullFormatter())
    tidy(axes)


def main(argv: list[str] | None = None) -> None:
    """Draws the picture beside the JSON file that `argv` names."""
    (path,) = map(Path, sys.argv[1:] if argv is None else argv)
    draw(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
