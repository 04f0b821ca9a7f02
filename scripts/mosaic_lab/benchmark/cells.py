"""What is measured: a cell is one measure of one task at one size, in one way of execution."""

from dataclasses import dataclass, replace

import torch

from mosaic_lab.benchmark.options import BenchmarkArguments


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
    short = (options.decode_prompt, options.decode_new_tokens)
    long = [(context, options.long_decode_new_tokens) for context in options.contexts]
    decoding = [
        ("decode", prompt, batch, new_tokens)
        for prompt, new_tokens in dict.fromkeys([short, *long])
        for batch in options.decode_batches
    ]
    cells = []
    if "eager" in options.execution:
        for task, *size in training + prefill + decoding:
            names = ("mosaic", "gpt2", *(["mosaic_own_loss"] if task == "train" else []))
            cell = Cell("time", task, "eager", *size, names)
            cells.append(replace(cell, measure="operations"))
            # Without a cache each new token would cost as much as a prefill.
            if task != "decode" and cell.context <= options.plain_max_context:
                cell = replace(cell, contestants=(*names, "plain"))
            cells.append(cell)
            context, batch, new_tokens = size
            if task != "decode" or (batch == options.decode_batches[0] and (context, new_tokens) in long):
                cells.append(replace(cell, measure="memory"))
    if "compiled" in options.execution:
        compiled = [(execution, training[0]) for execution in ("fullgraph", "regional")]
        if options.device == "cuda":
            # transformers compiles the steps of generate() on a GPU only.
            compiled += [("static", size) for size in decoding]
        cells += [
            Cell("time", task, execution, *size, ("mosaic", "gpt2")) for execution, (task, *size) in compiled
        ]
    return sorted(cells, key=lambda cell: ("operations", "time", "memory").index(cell.measure))


def make_tokens(cell: Cell, options: BenchmarkArguments) -> torch.Tensor:
    """Random tokens `(batch, context)`, the same for all contestants."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(options.vocab_size, (cell.batch, cell.context), generator=generator)
    return tokens.to(options.device)
