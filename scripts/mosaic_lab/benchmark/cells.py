"""What is measured: a cell is one measure of one task at one size, in one way of execution."""

from dataclasses import dataclass, replace

import torch

from mosaic_lab.benchmark.models import FAMILIES
from mosaic_lab.benchmark.options import MEASURES, BenchmarkArguments


@dataclass(frozen=True)
class Cell:
    """Rows of `context` tokens, to which the task `decode` adds `new_tokens`.

    Args:
        measure (`str`): `time`, for which the contestants take turns; `operations`; or `memory`, for which
            each has a process of its own.
        task (`str`): `train`, `prefill` or `decode`.
        execution (`str`): `eager`, or compiled: `fullgraph` (the model), `regional` (its blocks) or `static`
            (decoding steps with a static cache).
        context, batch, new_tokens (`int`): the size.
        contestants (`tuple`): see `Contestant`.
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


def plan_cells(options: BenchmarkArguments) -> list[Cell]:
    """All cells, in the order in which they are measured."""
    training = [("train", context, options.train_tokens // context, 0) for context in options.contexts]
    prefill = [("prefill", context, 1, 0) for context in options.contexts]
    decoding = [
        ("decode", options.decode_prompt, batch, options.decode_new_tokens)
        for batch in options.decode_batches
    ]
    first = options.decode_batches[0]
    long = [("decode", context, first, options.long_decode_new_tokens) for context in options.contexts]
    pair = ("mosaic", FAMILIES[options.model].peer)
    cells = []
    if "eager" in options.execution:
        for task, *size in dict.fromkeys(training + prefill + decoding + long):
            names = (*pair, *(["mosaic_own_loss"] if task == "train" else []))
            cell = Cell("time", task, "eager", *size, names)
            cells.append(replace(cell, measure="operations"))
            # Without a cache each new token would cost as much as a prefill.
            if task != "decode" and cell.context <= options.plain_max_context:
                cell = replace(cell, contestants=(*names, "plain"))
            cells.append(cell)
            if (task, *size) not in decoding:
                cells.append(replace(cell, measure="memory"))
    if "compiled" in options.execution:
        compiled = [(execution, training[0]) for execution in ("fullgraph", "regional")]
        if options.device == "cuda":
            # transformers compiles the steps of generate() on a GPU only.
            compiled += [("static", size) for size in decoding + long]
        cells += [Cell("time", task, execution, *size, pair) for execution, (task, *size) in compiled]
    return [cell for measure in MEASURES for cell in cells if cell.measure == measure in options.measures]


def make_tokens(cell: Cell, options: BenchmarkArguments) -> torch.Tensor:
    """Random tokens `(batch, context)`, the same for all contestants."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(options.vocab_size, (cell.batch, cell.context), generator=generator)
    return tokens.to(options.device)
