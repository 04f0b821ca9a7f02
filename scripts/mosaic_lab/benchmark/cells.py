"""What is measured: a cell is one task at one size, in one way of execution."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch

from mosaic_lab.benchmark.leaky_share import time_leaky_share
from mosaic_lab.benchmark.measure import seconds_per_call, take_turns
from mosaic_lab.benchmark.options import BenchmarkArguments

TASKS = ("train", "prefill", "decode")


@dataclass(frozen=True)
class Cell:
    """`task` is one of `TASKS` or `leaky_share`; decoding adds `new_tokens` to rows of `context` tokens.

    `measure` is `time`, for which the contestants take turns, or `memory`, each in a process of its own.
    """

    measure: str
    task: str
    execution: str
    context: int
    batch: int
    new_tokens: int
    contestants: tuple[str, ...]

    @property
    def name(self) -> str:
        size = f"{self.context}+{self.new_tokens}" if self.new_tokens else str(self.context)
        return f"{self.measure}-{self.task}-{size}-batch{self.batch}-{self.execution}"


class Contestant(Protocol):
    """What a cell asks of a model; `tokens` are `(batch, time)`."""

    model: torch.nn.Module

    def train_step(self, tokens: torch.Tensor) -> None: ...

    def prefill(self, tokens: torch.Tensor) -> None: ...

    def decode(self, tokens: torch.Tensor, new_tokens: int) -> float:
        """Seconds for each new token."""


def plan_cells(options: BenchmarkArguments) -> list[Cell]:
    """All cells, in the order in which they are measured: times, then memory."""
    cells = []
    for execution in options.execution:
        shortest = options.contexts[0]
        batch = options.train_tokens // shortest
        cells.append(Cell("time", "leaky_share", execution, shortest, batch, 0, ("leaky_average", "block")))
        sizes = [("train", context, options.train_tokens // context, 0) for context in options.contexts]
        sizes += [("prefill", context, 1, 0) for context in options.contexts]
        short = (options.decode_prompt, options.decode_new_tokens)
        long = [(context, options.long_decode_new_tokens) for context in options.contexts]
        for prompt, new_tokens in dict.fromkeys([short, *long]):
            sizes += [("decode", prompt, batch, new_tokens) for batch in options.decode_batches]
        for task, *size in sizes:
            cells.append(
                Cell("time", task, execution, *size, _contestants(options, task, execution, size[0]))
            )
    return cells + [replace(cell, measure="memory") for cell in cells if _has_memory(options, cell)]


def _contestants(options, task, execution, context):
    # Without a cache each token is another length, to which a compiled model would be compiled again.
    can_run = not (task == "decode" and execution == "compiled")
    has_plain = can_run and context <= options.plain_max_context
    return ("mosaic", "gpt2", "plain") if has_plain else ("mosaic", "gpt2")


def _has_memory(options, cell):
    is_task = cell.task in TASKS and cell.context in options.contexts
    return is_task and (cell.task != "decode" or cell.batch == options.decode_batches[0])


def make_tokens(cell: Cell, options: BenchmarkArguments) -> torch.Tensor:
    """Random tokens `(batch, context)`, the same for all contestants."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(options.vocab_size, (cell.batch, cell.context), generator=generator)
    return tokens.to(options.device)


def run_once(contestant: Contestant, cell: Cell, tokens: torch.Tensor) -> Any:
    """The task of the cell, once."""
    if cell.task == "train":
        return contestant.train_step(tokens)
    if cell.task == "prefill":
        return contestant.prefill(tokens)
    return contestant.decode(tokens, cell.new_tokens)


def measure_cell(
    cell: Cell,
    options: BenchmarkArguments,
    build: Callable[[str, Cell, BenchmarkArguments], Contestant],
    measure_memory: Callable[[Cell, str], int],
) -> dict[str, Any]:
    """The cell as a row of the result: with `seconds`, a list for each contestant, or `bytes`."""
    row = {"name": cell.name, **asdict(cell), "contestants": list(cell.contestants)}
    if cell.measure == "memory":
        return {**row, "bytes": {name: measure_memory(cell, name) for name in cell.contestants}}
    torch.compiler.reset()
    tokens = make_tokens(cell, options)
    if cell.task == "leaky_share":
        model = build("mosaic", cell, options).model
        return {**row, "seconds": time_leaky_share(model, tokens, cell.execution, options)}
    clocks = {}
    for name in cell.contestants:
        run = partial(run_once, build(name, cell, options), cell, tokens)
        # Decoding reads the clock itself, at each token.
        clocks[name] = (
            run
            if cell.task == "decode"
            else partial(seconds_per_call, run, options.device, options.min_seconds)
        )
    return {**row, "seconds": take_turns(clocks, options.repeats)}
