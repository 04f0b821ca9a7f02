"""The report of a result, in Markdown."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from mosaic_lab.benchmark.cells import TASKS
from mosaic_lab.benchmark.ratios import RATIOS, find_rows

TITLES = {"train": "Training step", "prefill": "Prefill", "decode": "Time per new token"}
CONTESTANTS = {"mosaic": "mosaic", "gpt2": "GPT-2", "plain": "plain"}
NOT_MEASURED = "–"
METHOD = """\
- All contestants of a row take turns in one process, A B C, A B C, ..., after a round that does not count. A
  time is the median of {repeats} rounds (least to most in brackets), a ratio the median of the ratios within
  each round. Steps and prefills of less than {min_seconds} s are repeated for so long, and their mean is the
  time. The mosaic and GPT-2 use sdpa attention.
- The plain implementation computes the paper's equations as they stand, with matrices of T x T. It is not run
  above T={plain_max_context:,}, nor compiled for decoding.
- A training step is forward, loss, backward, fused AdamW and `zero_grad`, without dropout, on
  {train_tokens:,} tokens at every T. Prefill is one row with `use_cache=True` and `logits_to_keep=1`.
  bfloat16 means autocast with float32 weights in training, as in the Trainer, and bfloat16 weights elsewhere.
- The time of a new token is that from the first to the last one of `generate()`, seen by a
  `StoppingCriteria`, over the number of tokens in between. The plain implementation has no cache and is timed
  at a few lengths, evenly spread over those that the others pass through.
- Compiled: `torch.compile` of the model for training and prefill,
  `generate(cache_implementation="static")` for decoding, which transformers compiles on a GPU, not on a CPU.
- Peak memory is that of the second run in a fresh process, beyond what the process held before it built the
  model: parameters, activations and workspaces, in training gradients and optimizer state, in prefill and
  decoding the cache. It is {meter}.
- The share of the leaky averages is forward and backward of those of a block, over forward and backward of
  the block, on the tensors that the model gives them in training.
"""
METERS = {
    "cpu": """the resident memory of the process: on Linux `VmHWM`, reset before the second run, with a
  malloc that returns freed tensors to the system (`MALLOC_MMAP_THRESHOLD_=65536`, `MALLOC_ARENA_MAX=1`);
  elsewhere `ru_maxrss`. A few tokens are run before, so that the libraries' own pages do not count""",
    "cuda": "`torch.cuda.max_memory_allocated`",
}


def format_report(result: dict[str, Any]) -> str:
    """All of the report."""
    options, hardware, versions = result["options"], result["hardware"], result["versions"]
    machine = [f"{hardware['processor']}, {hardware['cores']} cores, torch threads: {hardware['threads']}"]
    machine = [hardware["gpu"], *machine] if "gpu" in hardware else machine
    method = METHOD.format(meter=METERS[options["device"]], **options)
    return f"""\
# Benchmark {result["recipe"]} on {hardware["label"]}, {result["date"]}

    {result["command"]}

- Machine: {"; ".join((*machine, versions["system"]))}
- Versions: {", ".join(f"{name} {value}" for name, value in versions.items() if name != "system")}
- Size: hidden size {options["hidden_size"]}, {options["num_hidden_layers"]} layers of \
{options["num_attention_heads"]} heads, vocabulary {options["vocab_size"]:,}; {options["dtype"]}
- {format_parameters(result["parameters"])}
- {format_check(result["check"])}

{format_tables(result)}

## How it was measured

{method}"""


def format_parameters(parameters: dict[str, Any]) -> str:
    """The numbers of parameters, and those that do not count."""
    text = (
        f"Parameters: mosaic {parameters['mosaic']:,}, GPT-2 {parameters['gpt2']:,} with 512 positions "
        f"({parameters['difference']:+.2%}); persistent memories of {parameters['memory_size']:,} pairs"
    )
    uncounted = [f"{number:,} at T={int(T):,}" for T, number in parameters["uncounted_positions"].items()]
    if uncounted:
        text += (
            f". GPT-2's table of positions is longer for longer contexts, not counted: {', '.join(uncounted)}"
        )
    return text


def format_check(check: dict[str, Any]) -> str:
    """The largest differences between the model and the plain implementation."""
    differences = [
        f"{precision}: logits {found['logits']:.1e}, gradients {found['gradients']:.1e} (of "
        f"{found['worst_gradient']}; tolerance {found['tolerance']:.0e})"
        for precision, found in check.items()
    ]
    return "The model equals the plain implementation; largest relative differences: " + "; ".join(
        differences
    )


def format_tables(result: dict[str, Any]) -> str:
    """Targets, times and memory."""
    parts = ["## Targets", _format_targets(result["targets"])]
    for execution in result["options"]["execution"]:
        for task in TASKS:
            rows = find_rows(result["cells"], measure="time", task=task, execution=execution)
            parts += [f"## {TITLES[task]}, {execution}", _format_rows(rows, result["ratios"])]
        rows = find_rows(result["cells"], measure="memory", execution=execution)
        parts += [f"## Peak memory, {execution}", _format_rows(rows, result["ratios"])]
    return "\n\n".join(parts)


def _format_targets(targets):
    executions = list(dict.fromkeys(target["execution"] for target in targets))
    lines = {}
    for target in targets:
        verdict = "met" if target["value"] <= target["limit"] else "missed"
        line = lines.setdefault(target["target"], [target["target"], f"{target['limit']:.2f}"])
        line.append(f"{target['value']:.3f} {verdict}")
    return make_table(["target", "at most", *executions], lines.values())


def _format_rows(rows, ratios):
    lines = []
    for row in rows:
        ratio = ratios[row["name"]]
        lines.append(
            [
                *([row["task"]] if row["measure"] == "memory" else []),
                f"{row['context']:,}" + (f" + {row['new_tokens']:,}" if row["new_tokens"] else ""),
                str(row["batch"]),
                *(_format_measured(row, name) for name in CONTESTANTS),
                *(_three_digits(ratio[title]) if title in ratio else NOT_MEASURED for title in RATIOS),
            ]
        )
    has_task = bool(rows) and rows[0]["measure"] == "memory"
    return make_table([*(["task"] if has_task else []), "T", "batch", *CONTESTANTS.values(), *RATIOS], lines)


def _format_measured(row, name):
    if name not in row["contestants"]:
        return NOT_MEASURED
    if row["measure"] == "memory":
        return f"{row['bytes'][name] / 1e6:,.0f} MB"
    seconds = row["seconds"][name]
    unit, factor = ("s", 1) if max(seconds) >= 1 else ("ms", 1000)
    middle, least, most = (
        _three_digits(factor * value) for value in (median(seconds), min(seconds), max(seconds))
    )
    return f"{middle} {unit} ({least}–{most})"


def _three_digits(value):
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def make_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is also readable as it stands."""
    lines = [list(line) for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (head, rule, *lines)
    )
