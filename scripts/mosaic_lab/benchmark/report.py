"""The report of a result, in Markdown."""

import math
from statistics import median
from typing import Any

from mosaic_lab.benchmark.models import FAMILIES
from mosaic_lab.benchmark.options import MEASURES
from mosaic_lab.core.figures import name_of
from mosaic_lab.core.tables import table

TASKS = {"train": "training step", "prefill": "prefill", "decode": "new token"}
PEERS = {family.peer: name_of(family.peer) for family in FAMILIES.values()}
CONTESTANTS = {"mosaic": "mosaic", **PEERS, "mosaic_own_loss": "mosaic, own loss", "plain": "plain"}
RATIOS = {
    **{f"mosaic / {name}": ("mosaic", peer) for peer, name in PEERS.items()},
    **{f"own loss / {name}": ("mosaic_own_loss", peer) for peer, name in PEERS.items()},
    "plain / mosaic": ("plain", "mosaic"),
}
METHOD = """\
- Contestants take turns in one process, A B C, A B C, ..., after a round that does not count. A time is the
  median of {repeats} rounds (least to most in brackets), each at least {min_seconds} s of steps or prefills;
  a ratio is the median of the ratios within each round.
- A training step is forward, loss, backward, fused AdamW and `zero_grad`, without dropout, on
  {train_tokens:,} tokens at every T. The loss is transformers' `ForCausalLMLoss`, {peer}'s own, for all; "own
  loss" is the mosaic with the `next_token_loss` of its class. bfloat16 trains float32 weights under autocast.
- A prefill is one row with `use_cache=True` and `logits_to_keep=1`. The time of a new token is that between
  the first and the last one of `generate()` over their number.
- The plain implementation is `{plain}`, with matrices of T x T and no
  cache. It is not run above T={plain_max_context:,}.
- Operations are calls of torch's dispatcher, `aten::` events of its profiler, in a step, a prefill, or the
  forward pass of a new token for each row with a `DynamicCache`. No clock is involved.
- Compiled: `fullgraph` is `torch.compile(model, fullgraph=True)`, `regional` is accelerate's
  `compile_regions(model)`. The first step compiles, with no cache on the disk. `static` decodes by
  `generate(cache_implementation="static")`.
- Peak memory is that of the second run in a fresh process, beyond what the process held before it built the
  model: {meter}.
"""
METERS = {
    "cpu": "its resident memory (Linux: `VmHWM`, with a malloc that returns freed tensors to the system)",
    "cuda": "`torch.cuda.max_memory_allocated`",
}


def compute_ratios(cell: dict[str, Any]) -> dict[str, float]:
    """Ratios of what was measured in a cell; of times, the median over the rounds."""
    measured = get_measured(cell)
    return {
        title: median(a / b for a, b in zip(measured[over], measured[under], strict=True))
        for title, (over, under) in RATIOS.items()
        if over in measured and under in measured
    }


def get_measured(cell: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds of each round, or the one number of bytes or operations, for each contestant."""
    if cell["measure"] == "time":
        return cell["seconds"]
    numbers = cell["bytes" if cell["measure"] == "memory" else "operations"]
    return {name: [number] for name, number in numbers.items()}


def format_report(result: dict[str, Any]) -> str:
    """All of the report."""
    options, hardware, versions = result["options"], result["hardware"], result["versions"]
    parameters, (peer, memory_size, plain) = result["parameters"], FAMILIES[options["model"]]
    machine = [f"{hardware['processor']}, {hardware['cores']} cores, torch threads: {hardware['threads']}"]
    machine = [hardware["gpu"], *machine] if "gpu" in hardware else machine
    about = {"peer": PEERS[peer], "plain": f"{plain.__module__.replace('.', '/')}.py"}
    method = METHOD.format(meter=METERS[options["device"]], **about, **options)
    return f"""\
# Benchmark {result["recipe"]} on {hardware["label"]}, {result["date"]}

    {result["command"]}

- Machine: {"; ".join((*machine, versions["system"]))}
- Versions: {", ".join(f"{name} {value}" for name, value in versions.items() if name != "system")}
- Size: hidden size {options["hidden_size"]}, {options["num_hidden_layers"]} layers of \
{options["num_attention_heads"]} heads, vocabulary {options["vocab_size"]:,}; {options["dtype"]}
- Parameters: {name_of(options["model"])} {parameters["mosaic"]:,}, {PEERS[peer]} {parameters[peer]:,} \
({parameters["difference"]:+.2%}; vectors of positions beyond 512 do not count); {memory_size} \
{parameters["memory_size"]:,}
- {_format_check(result["check"])}

{format_tables(result["cells"])}
## How it was measured

{method}"""


def _format_check(check):
    differences = [
        f"{precision}: logits {found['logits']:.1e}, gradients {found['gradients']:.1e} (of "
        f"{found['worst_gradient']}; tolerance {found['tolerance']:.0e})"
        for precision, found in check.items()
    ]
    return (
        f"The model equals the plain implementation; largest relative differences: {'; '.join(differences)}"
    )


def format_tables(cells: list[dict[str, Any]]) -> str:
    """A table for each measure of eager and of compiled models."""
    parts = []
    for measure, title in MEASURES.items():
        for kind in ("eager", "compiled"):
            rows = [cell for cell in cells if cell["measure"] == measure]
            rows = [cell for cell in rows if (cell["execution"] == "eager") == (kind == "eager")]
            if rows:
                parts.append(f"## {title}, {kind}\n\n{_format_rows(rows)}")
    return "\n".join(parts)


def _format_rows(rows):
    columns = {
        "task": [TASKS[row["task"]] for row in rows],
        "how": [row["execution"].replace("eager", "") for row in rows],
        "T": [" + ".join(f"{n:,}" for n in (row["context"], row["new_tokens"]) if n) for row in rows],
        "batch": [str(row["batch"]) for row in rows],
    }
    for name, title in CONTESTANTS.items():
        first = [row.get("first_seconds", {}).get(name) for row in rows]
        columns[f"{title}, first step"] = ["" if value is None else f"{value:.1f} s" for value in first]
        columns[title] = [_format_measured(row, name) for row in rows]
    for title in RATIOS:
        columns[title] = [_three_digits(row["ratios"].get(title)) for row in rows]
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    return table(list(columns), zip(*columns.values(), strict=True))


def _format_measured(row, name):
    if name not in row["contestants"]:
        return ""
    values = get_measured(row)[name]
    if row["measure"] == "operations":
        return f"{values[0]:,}"
    if row["measure"] == "memory":
        return f"{values[0] / 1e6:,.0f} MB"
    unit, factor = ("s", 1) if max(values) >= 1 else ("ms", 1000)
    middle, least, most = (_three_digits(factor * f(values)) for f in (median, min, max))
    return f"{middle} {unit} ({least}–{most})"


def _three_digits(value):
    return "" if value is None else f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"
