"""Draws a benchmark's result: python -m mosaic_lab.benchmark.plot RESULT.json"""

import json
import os
import sys
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter  # noqa: E402

# Colours of Okabe and Ito, which colour-blind readers tell apart; so do the markers.
STYLES = {
    "mosaic": {"label": "Memory Mosaic", "color": "#0072B2", "marker": "o"},
    "gpt2": {"label": "GPT-2", "color": "#D55E00", "marker": "s"},
    "plain": {"label": "plain T x T implementation", "color": "#009E73", "marker": "^"},
}
LEAST_RANGE = 8
DASHES = {"eager": "-", "compiled": (0, (4, 2))}


def draw(data: str | os.PathLike, picture: str | os.PathLike) -> None:
    """Draws time and peak memory against the context, from the JSON file `data` into the PNG `picture`."""
    result = json.loads(Path(data).read_text(encoding="utf-8"))
    options = result["options"]
    batch, new_tokens = options["decode_batches"][0], options["long_decode_new_tokens"]
    columns = {
        "train": (f"training step of {options['train_tokens']:,} tokens", "time of a step"),
        "prefill": ("prefill, batch 1", "time of a prefill"),
        "decode": (f"decoding {new_tokens} tokens after T, batch {batch}", "time of a new token"),
    }
    figure, axes = plt.subplots(2, 3, figsize=(12, 7), sharex=True)
    for column, (task, (title, time_label)) in enumerate(columns.items()):
        wanted = {"task": task, "new_tokens": 0}
        if task == "decode":
            wanted |= {"new_tokens": new_tokens, "batch": batch}
        cells = [cell for cell in result["cells"] if wanted.items() <= _scalars(cell).items()]
        for row, (measure, label, unit) in enumerate(
            (("time", time_label, "s"), ("memory", "peak memory", "B"))
        ):
            _draw_panel(axes[row, column], [cell for cell in cells if cell["measure"] == measure])
            axes[row, column].set_ylabel(label)
            _format_axes(axes[row, column], options["contexts"], unit)
        axes[0, column].set_title(title, fontsize=11)
        axes[1, column].set_xlabel("context T, tokens")
    _add_legend(figure, options["execution"])
    figure.suptitle(_make_title(result), fontsize=12)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(picture, dpi=150, format="png")
    plt.close(figure)


def _scalars(cell):
    return {name: value for name, value in cell.items() if isinstance(value, str | int)}


def _draw_panel(axes, cells):
    """Medians, with all repeats between the edges of the shade; the mosaic on top."""
    for execution, dashes in DASHES.items():
        for name, style in reversed(STYLES.items()):
            those = [cell for cell in cells if cell["execution"] == execution and name in cell["contestants"]]
            contexts = [cell["context"] for cell in those]
            measured = [
                cell["seconds"][name] if "seconds" in cell else [cell["bytes"][name]] for cell in those
            ]
            if contexts:
                axes.plot(contexts, [median(m) for m in measured], linestyle=dashes, markersize=5, **style)
                axes.fill_between(
                    contexts,
                    [min(m) for m in measured],
                    [max(m) for m in measured],
                    color=style["color"],
                    alpha=0.2,
                    linewidth=0,
                )


def _format_axes(axes, contexts, unit):
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(contexts))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda context, _: f"{context:,.0f}"))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    low, high = axes.get_ylim()
    # Small differences should look small.
    margin = max(1, (LEAST_RANGE * low / high) ** 0.5)
    axes.set_ylim(low / margin, high * margin)
    low, high = axes.get_ylim()
    # Over many decades, labels between them would touch.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,), numticks=20))
    axes.yaxis.set_major_formatter(EngFormatter(unit=unit))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(figure, executions):
    handles = [plt.Line2D([], [], **style) for style in STYLES.values()]
    handles += [
        plt.Line2D([], [], color="black", linestyle=DASHES[execution], label=execution)
        for execution in executions
        if len(executions) > 1
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)


def _make_title(result):
    options, parameters = result["options"], result["parameters"]
    return (
        f"Benchmark {result['recipe']} on {result['hardware']['label']}: "
        f"{options['num_hidden_layers']} layers, "
        f"{parameters['mosaic'] / 1e6:.1f} million parameters each, {options['dtype']}"
    )


def main(argv: list[str] | None = None) -> None:
    """Draws the picture beside the JSON file that `argv` names."""
    (data,) = sys.argv[1:] if argv is None else argv
    draw(data, Path(data).with_suffix(".png"))


if __name__ == "__main__":
    main()
