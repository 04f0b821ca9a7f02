"""Measures a mosaic against GPT-2 and a plain implementation: python scripts/benchmark.py RECIPE.yaml

The plain implementation, of the paper's equations and with matrices of time x time, is in here; the fast
model must equal it, in logits and gradients, before anything is timed. `benchmarks/` holds what is measured,
how, and the report.

Shapes: B batch, T time, C hidden size, V vocabulary, H heads, D head size, N banks, M persistent pairs.
"""

import shlex
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from modeling_mosaic import MosaicForCausalLM
from mosaic_lab.benchmark.cells import Cell, make_tokens, measure_cell, plan_cells, run_once
from mosaic_lab.benchmark.hardware import describe_hardware, describe_versions
from mosaic_lab.benchmark.measure import autocast, measure_peak_memory, memory_environment, synchronize
from mosaic_lab.benchmark.models import COUNTED_POSITIONS, balance_parameters, build_gpt2, build_mosaic
from mosaic_lab.benchmark.options import BenchmarkArguments, make_parser
from mosaic_lab.benchmark.report import format_check, format_tables
from mosaic_lab.benchmark.results import Results
from mosaic_lab.core.errors import InputError, reported_as

CHECK_BATCH, CHECK_TOKENS = 2, 200
# Of the largest difference over the largest entry of the same tensor. float64 shows that both compute the
# same thing, float32 that neither loses it to rounding.
TOLERANCES = {"float64": 1e-8, "float32": 1e-3}
PLAIN_DECODE_LENGTHS = 4
REHEARSAL_TOKENS = 8


class PlainMosaic:
    """The equations of arXiv 2405.06394 as they stand, on the parameters of a `MosaicForCausalLM`.

    As in the original code, averages and memories are products with matrices of time x time, and nothing is
    kept from one token to the next. Dropout is left out.
    """

    def __init__(self, model: MosaicForCausalLM):
        self.config = model.config
        self.weights = dict(model.named_parameters(remove_duplicate=False))

    def logits(self, tokens_BT: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Logits `(batch, time, vocab)`, or `(batch, 1, vocab)` of the last token."""
        x_BTC = F.embedding(tokens_BT, self.weights["model.embed_tokens.weight"])
        for layer in range(self.config.num_hidden_layers):
            name = f"model.layers.{layer}"
            x_BTC = x_BTC + self.contextual(self.norm(x_BTC, f"{name}.contextual_norm"), name)
            x_BTC = x_BTC + self.persistent(self.norm(x_BTC, f"{name}.persistent_norm"), name)
        x_BTC = self.norm(x_BTC, "model.norm")[:, -1 if last_only else 0 :]
        return self.linear(x_BTC * self.config.logit_scale, "lm_head")

    def contextual(self, x_BTC: torch.Tensor, layer: str) -> torch.Tensor:
        """Equation 8: `y_T = sum_{i <= T-1} softmax_i(k_T . k_i) v_i`, 0 for the first token."""
        name, heads = f"{layer}.contextual_memory", self.config.num_attention_heads
        key_BHTD = self.keys(x_BTC, f"{name}.key_extractor", heads, power=1)
        raw_BHTD = self.split(self.linear(x_BTC, f"{name}.v_proj"), heads)
        # Equation 7: v_T = alpha Norm(c v~_T + (1 - c) v~_{T+1}). Nobody sees the last one, without its next.
        mix_H11 = self.wide(f"{name}.peek_norm.mix")[:, None, None]
        next_BHTD = torch.cat([raw_BHTD[:, :, 1:], raw_BHTD[:, :, -1:]], 2)
        value_BHTD = F.normalize(mix_H11 * raw_BHTD + (1 - mix_H11) * next_BHTD, dim=-1)
        value_BHTD = value_BHTD * self.wide(f"{name}.peek_norm.log_scale", 10).exp()[:, None, None]

        time = x_BTC.shape[1]
        score_BHTT = key_BHTD @ key_BHTD.transpose(2, 3)
        past_TT = torch.ones(time, time, dtype=torch.bool, device=x_BTC.device).tril(-1)
        weight_BHTT = score_BHTT.masked_fill(~past_TT, torch.finfo(score_BHTT.dtype).min).softmax(-1)
        recalled_BHTD = weight_BHTT.to(raw_BHTD.dtype) @ value_BHTD.to(raw_BHTD.dtype)
        # The first token finds its memory empty, where softmax spreads over what it must not see.
        recalled_BHTD = F.pad(recalled_BHTD[:, :, 1:], (0, 0, 1, 0))
        return self.linear(recalled_BHTD.transpose(1, 2).flatten(2), f"{name}.o_proj")

    def persistent(self, x_BTC: torch.Tensor, layer: str) -> torch.Tensor:
        """`y_T = alpha softmax(k_T K^T) V` over the trained pairs, the mean of all banks."""
        name, heads = f"{layer}.persistent_memory", self.config.num_persistent_heads
        query_B1HTD = self.keys(x_BTC, f"{name}.key_extractor", heads, power=2)[:, None]
        key_NHMD, value_NHMD = self.weights[f"{name}.memory_keys"], self.weights[f"{name}.memory_values"]
        weight_BNHTM = (query_B1HTD @ key_NHMD.transpose(2, 3)).softmax(-1)
        recalled_BHTD = (weight_BNHTM.to(x_BTC.dtype) @ value_NHMD).mean(1)
        scale_H11 = self.wide(f"{name}.log_value_norm", 10).exp()[:, None, None].to(x_BTC.dtype)
        return self.linear((recalled_BHTD * scale_H11).transpose(1, 2).flatten(2), f"{name}.o_proj")

    def keys(self, x_BTC: torch.Tensor, name: str, heads: int, power: int) -> torch.Tensor:
        """Equation 7: `kbar_T = sum_{i <= T} lambda^(T - i) k~_i` and `k_T = alpha Norm(kbar_T)`."""
        raw_BHTD = self.split(self.linear(x_BTC, f"{name}.k_proj"), heads)
        step_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
        elapsed_TT = (step_T[:, None] - step_T).clamp(min=0)
        leak_H11 = self.wide(f"{name}.leaky_norm.leak", 10).abs()[:, None, None]
        decay_HTT = torch.exp(-leak_H11 * elapsed_TT).tril()
        average_BHTD = decay_HTT.to(raw_BHTD.dtype) @ raw_BHTD
        log_scale_H = self.wide(f"{name}.leaky_norm.log_scale", 10).clamp(max=self.config.max_log_key_scale)
        scale_H11 = (power * log_scale_H).exp()[:, None, None]
        return (F.normalize(average_BHTD.to(scale_H11.dtype), dim=-1) * scale_H11).to(raw_BHTD.dtype)

    def norm(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return F.layer_norm(x_BTC, weight.shape, weight, bias, self.config.layer_norm_eps)

    def linear(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x_BTC, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def split(self, x_BTC: torch.Tensor, heads: int) -> torch.Tensor:
        return x_BTC.unflatten(-1, (heads, -1)).transpose(1, 2)

    def wide(self, name: str, gain: int = 1) -> torch.Tensor:
        """Scalars of a memory times their gain, in float32 at least."""
        weight = self.weights[name]
        return gain * weight.to(torch.promote_types(weight.dtype, torch.float32))


def next_token_loss(logits_BTV: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each next token, in float32 at least, as transformers computes it."""
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())


class Contestant:
    """A causal model of transformers, used as the Trainer and generate() use it."""

    def __init__(self, model: PreTrainedModel, cell: Cell, options: BenchmarkArguments):
        self.model = model
        self.device = options.device
        self.autocast = partial(autocast, options.device, options.dtype)
        self.cache_options = {}
        if cell.execution == "compiled":
            self.loss, self.last_logits = torch.compile(self.loss), torch.compile(self.last_logits)
            # generate() compiles each step with it, on a GPU.
            self.cache_options = {"cache_implementation": "static"}
        if cell.task == "train":
            # Fused, as the Trainer has it.
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, labels=tokens, use_cache=False).loss

    def last_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits

    def train_step(self, tokens: torch.Tensor) -> None:
        with self.autocast():
            loss = self.loss(tokens)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def prefill(self, tokens: torch.Tensor) -> None:
        self.last_logits(tokens)

    def decode(self, tokens: torch.Tensor, new_tokens: int) -> float:
        clock = TokenClock(self.device)
        self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=new_tokens,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([clock]),
            **self.cache_options,
        )
        assert len(clock.times) == new_tokens
        return (clock.times[-1] - clock.times[0]) / (new_tokens - 1)


class PlainContestant(Contestant):
    """`PlainMosaic`: no cache, so that each new token computes all of its past again."""

    def __init__(self, model: MosaicForCausalLM, cell: Cell, options: BenchmarkArguments):
        self.plain = PlainMosaic(model)
        super().__init__(model, cell, options)

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        return next_token_loss(self.plain.logits(tokens), tokens)

    def last_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.plain.logits(tokens, last_only=True)

    @torch.no_grad()
    def decode(self, tokens: torch.Tensor, new_tokens: int) -> float:
        """Mean over a few lengths, evenly spread from the second new token to the last."""
        lengths = torch.linspace(1, new_tokens - 1, PLAIN_DECODE_LENGTHS).round().long() + tokens.shape[1]
        longest = F.pad(tokens, (0, new_tokens))
        synchronize(self.device)
        start = time.perf_counter()
        for length in lengths.tolist():
            self.last_logits(longest[:, :length]).argmax(-1)
            synchronize(self.device)
        return (time.perf_counter() - start) / PLAIN_DECODE_LENGTHS


class TokenClock(StoppingCriteria):
    """Never stops `generate()`; notes when each token is there."""

    def __init__(self, device: str):
        self.device = device
        self.times = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        synchronize(self.device)
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def build_contestant(name: str, cell: Cell, options: BenchmarkArguments) -> Contestant:
    """`mosaic`, `gpt2` or `plain`, in the precision that the cell asks for."""
    torch.manual_seed(0)
    positions = max(COUNTED_POSITIONS, cell.context + cell.new_tokens)
    with torch.device(options.device):
        if name == "gpt2":
            model = build_gpt2(options, positions)
        else:
            model = build_mosaic(options, positions, balance_parameters(options)["memory_size"])
    is_training = cell.task in ("train", "leaky_share")
    model.train(is_training)
    if not is_training:
        model.to(getattr(torch, options.dtype))
    return (PlainContestant if name == "plain" else Contestant)(model, cell, options)


def check_equality(options: BenchmarkArguments) -> dict[str, dict]:
    """Largest relative differences between the model and `PlainMosaic`, in float64 and in float32.

    Raises:
        InputError: if one of them is above its tolerance.
    """
    check = {}
    for precision, tolerance in TOLERANCES.items():
        torch.manual_seed(0)
        with torch.device(options.device):
            model = build_mosaic(options, COUNTED_POSITIONS, balance_parameters(options)["memory_size"])
            tokens = torch.randint(options.vocab_size, (CHECK_BATCH, CHECK_TOKENS))
        model.to(getattr(torch, precision))
        differences = compare(model, tokens)
        gradients = {name: value for name, value in differences.items() if name != "logits"}
        worst = max(gradients, key=gradients.get)
        check[precision] = {
            "tolerance": tolerance,
            "logits": differences["logits"],
            "gradients": gradients[worst],
            "worst_gradient": worst,
        }
        wrong = max(differences, key=differences.get)
        if not differences[wrong] <= tolerance:
            raise InputError(
                f"the model does not equal the plain implementation: in {precision}, {wrong} differs by "
                f"{differences[wrong]:.1e} of its largest entry, more than {tolerance:.0e}; nothing was timed"
            )
    return check


def compare(model: MosaicForCausalLM, tokens: torch.Tensor) -> dict[str, float]:
    """Largest difference of the logits and of each parameter's gradient, relative to its largest entry."""
    parameters = dict(model.named_parameters())
    results = []
    for logits in (model(input_ids=tokens, use_cache=False).logits, PlainMosaic(model).logits(tokens)):
        gradients = torch.autograd.grad(next_token_loss(logits, tokens), list(parameters.values()))
        results.append((logits.detach(), *gradients))
    return {
        name: float((fast - plain).abs().max() / plain.abs().max())
        for name, fast, plain in zip(("logits", *parameters), *results, strict=True)
    }


def prepare_machine(options: BenchmarkArguments) -> None:
    """Threads, and whether the device is there."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: torch finds no CUDA device")
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)


def peak_memory(name: str, cell: Cell, options: BenchmarkArguments) -> int:
    """Peak memory in bytes of the contestant's second run of the cell's task, in this process."""

    def prepare(cell):
        contestant, tokens = build_contestant(name, cell, options), make_tokens(cell, options)
        return partial(run_once, contestant, cell, tokens)

    if options.device == "cpu":
        # Loads the code that the task needs, which would count as memory of the process.
        prepare(replace(cell, context=REHEARSAL_TOKENS, batch=1))()
        torch.compiler.reset()
    return measure_peak_memory(partial(prepare, cell), options.device)


def peak_memory_of_process(argv: list[str], cell: Cell, name: str) -> int:
    """`peak_memory` in a fresh process, where nothing that ran before is still in memory."""
    command = [sys.executable, "-m", "mosaic_lab.programs.benchmark", *argv, "--memory_of", cell.name, name]
    result = subprocess.run(command, env=memory_environment(), capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{result.stderr}")
    return int(result.stdout.split()[-1])


def run(options: BenchmarkArguments, recipe: Path, argv: list[str]) -> None:
    """Measures all cells that an earlier run has not, and leaves the results in `output_dir`."""
    header = {
        "recipe": recipe.stem,
        "options": {name: value for name, value in vars(options).items() if name != "output_dir"},
        "hardware": describe_hardware(options.device),
        "versions": describe_versions(),
        "parameters": balance_parameters(options),
    }
    results = Results(Path(options.output_dir), header)
    check = check_equality(options)
    print(format_check(check))
    cells = plan_cells(options)
    for cell in (progress := tqdm(cells, desc="cells")):
        progress.set_postfix_str(cell.name)
        if cell.name not in results.rows:
            measure_memory = partial(peak_memory_of_process, argv)
            results.append(measure_cell(cell, options, build_contestant, measure_memory))
    command = shlex.join(["python", "scripts/benchmark.py", *argv])
    result, paths = results.finish(command, check, [cell.name for cell in cells])
    print(format_tables(result))
    print("\nin " + ", ".join(map(str, paths)))


def main(argv: list[str] | None = None) -> None:
    """Runs the recipe that `argv` names, with the options that follow it."""
    argv = sys.argv[1:] if argv is None else argv
    with reported_as("benchmark"):
        options, others = make_parser().parse(argv)
        recipe, memory_of = Path(others.recipe), others.memory_of
        prepare_machine(options)
        if memory_of is None:
            run(options, recipe, argv)
            return
        cell_name, name = memory_of
        cells = {cell.name: cell for cell in plan_cells(options) if cell.measure == "memory"}
        if cell_name not in cells or name not in cells[cell_name].contestants:
            raise InputError(f"memory_of: no memory of {name!r} in {cell_name!r} is measured here")
        print(peak_memory(name, cells[cell_name], options))


if __name__ == "__main__":
    main()
