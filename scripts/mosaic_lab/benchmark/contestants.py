"""The models that are compared, each used as the Trainer and `generate()` use it."""

import time
from typing import Any

import torch
from accelerate.utils import compile_regions
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutput

from mosaic_lab.benchmark.cells import Cell
from mosaic_lab.benchmark.models import COUNTED_POSITIONS, FAMILIES, build
from mosaic_lab.benchmark.operations import count_decoding, count_operations
from mosaic_lab.benchmark.options import BenchmarkArguments


class Contestant:
    """A causal model at the task of a cell, in the precision that the cell asks for.

    Args:
        name (`str`): `mosaic`, its peer's (`gpt2`, `llama`), `mosaic_own_loss` or `plain`. All compute their
            loss by transformers' `ForCausalLMLoss`, the peer's own, but `mosaic_own_loss`, which has its
            class's `next_token_loss`.
    """

    def __init__(self, name: str, cell: Cell, options: BenchmarkArguments):
        self.cell, self.options = cell, options
        torch.manual_seed(0)
        positions = max(COUNTED_POSITIONS, cell.context + cell.new_tokens)
        with torch.device(options.device):
            model = build(name, options, positions)
        if name != "mosaic_own_loss":
            model.loss_function = ForCausalLMLoss
        model.train(cell.task == "train")
        if cell.task == "train":
            # Fused, as the Trainer has it.
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        else:
            model.to(getattr(torch, options.dtype))
        if name == "plain":
            model = PlainModel(model)
        elif cell.execution == "fullgraph":
            model = torch.compile(model, fullgraph=True)
        elif cell.execution == "regional":
            model = compile_regions(model)
        self.model = model

    def run(self, tokens: torch.Tensor) -> Any:
        """The task, once; for decoding, returns the seconds per new token."""
        if self.cell.task == "train":
            return self.train_step(tokens)
        with torch.no_grad():
            if self.cell.task == "decode":
                return self.decode(tokens)
            return self.model(input_ids=tokens, use_cache=True, logits_to_keep=1)

    def train_step(self, tokens: torch.Tensor) -> None:
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.options.dtype == "bfloat16"):
            loss = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def decode(self, tokens: torch.Tensor) -> float:
        clock = TokenClock(self.options.device)
        self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=self.cell.new_tokens,
            do_sample=False,
            cache_implementation="static" if self.cell.execution == "static" else None,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        assert len(clock.times) == self.cell.new_tokens
        return (clock.times[-1] - clock.times[0]) / (self.cell.new_tokens - 1)

    def count_operations(self, tokens: torch.Tensor) -> int:
        """Operations of the task; for decoding, of one new token."""
        if self.cell.task == "decode":
            return count_decoding(self.model, tokens)
        return count_operations(lambda: self.run(tokens))


class PlainModel:
    """The plain implementation of a mosaic, called as models of transformers are."""

    def __init__(self, model: PreTrainedModel):
        self.plain = FAMILIES[model.config.model_type].plain(model)

    def __call__(self, input_ids, labels=None, use_cache=None, logits_to_keep=0) -> CausalLMOutput:
        logits = self.plain.logits(input_ids, last_only=logits_to_keep == 1)
        loss = None if labels is None else ForCausalLMLoss(logits, labels, logits.shape[-1])
        return CausalLMOutput(loss=loss, logits=logits)


class TokenClock(StoppingCriteria):
    """Never stops `generate()`; notes when each token is there."""

    def __init__(self, device: str):
        self.device = device
        self.times = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        synchronize(self.device)
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def synchronize(device: str) -> None:
    """Waits for the device; a CPU has always finished."""
    if device == "cuda":
        torch.cuda.synchronize()
