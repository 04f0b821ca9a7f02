"""The models that are compared, each used as the Trainer and `generate()` use it."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils import compile_regions
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutput

from modeling_mosaic.plain_mosaic import PlainMosaic
from mosaic_lab.benchmark.cells import Cell
from mosaic_lab.benchmark.models import COUNTED_POSITIONS, balance_parameters, build_gpt2, build_mosaic
from mosaic_lab.benchmark.operations import count_decoding, count_operations
from mosaic_lab.benchmark.options import BenchmarkArguments


class Contestant:
    """A causal model at the task of a cell, in the precision that the cell asks for.

    Args:
        name (`str`): `mosaic`, `gpt2`, `mosaic_own_loss` or `plain`. All compute their loss by transformers'
            `ForCausalLMLoss`, GPT-2's own, but `mosaic_own_loss`, which has its class's `next_token_loss`.
    """

    def __init__(self, name: str, cell: Cell, options: BenchmarkArguments):
        self.cell, self.options = cell, options
        torch.manual_seed(0)
        positions = max(COUNTED_POSITIONS, cell.context + cell.new_tokens)
        with torch.device(options.device):
            if name == "gpt2":
                model = build_gpt2(options, positions)
            else:
                model = build_mosaic(options, positions, balance_parameters(options)["memory_size"])
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
            return self.prefill(tokens) if self.cell.task == "prefill" else self.decode(tokens)

    def train_step(self, tokens: torch.Tensor) -> None:
        with autocast(self.options):
            loss = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def prefill(self, tokens: torch.Tensor) -> None:
        self.model(input_ids=tokens, use_cache=True, logits_to_keep=1)

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


class PlainModel(nn.Module):
    """`PlainMosaic`, called as models of transformers are."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.plain = PlainMosaic(model)

    def forward(self, input_ids, labels=None, use_cache=None, logits_to_keep=0) -> CausalLMOutput:
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


def autocast(options: BenchmarkArguments) -> AbstractContextManager:
    """Mixed precision for training in bfloat16, nothing for float32."""
    return torch.autocast(options.device, torch.bfloat16) if options.dtype == "bfloat16" else nullcontext()
