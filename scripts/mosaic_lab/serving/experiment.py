"""Serving: the same requests, for a mosaic and a GPT-2 of equal size, in one way after the other."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from mosaic_lab.benchmark.hardware import describe_hardware, describe_versions
from mosaic_lab.benchmark.models import balance_parameters, build
from mosaic_lab.core.work import Experiment, Run, share
from mosaic_lab.serving.options import ServingArguments
from mosaic_lab.serving.report import write_report
from mosaic_lab.serving.ways import PADDING, Prompts, find_way


def plan_runs(options: ServingArguments) -> list[Run]:
    """Plans a run for each round, model and way, in turn.

    Raises:
        InputError: for an unknown way; for models too small to compare.
    """
    for way in options.ways:
        find_way(way)
    turns = {"contestants", "ways", "rounds", "output_dir", "vllm_python", "mlx_python"}
    common = {name: value for name, value in vars(options).items() if name not in turns}
    common |= {"parameters": balance_parameters(options)}
    return [
        Run(f"{way}-{contestant}-{number}", {"way": way, "contestant": contestant, "round": number, **common})
        for number in range(options.rounds)
        for contestant in options.contestants
        for way in options.ways
    ]


def make_prompts(options: ServingArguments) -> Prompts:
    """Prompts of random tokens and lengths, the same for all."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(
        options.least_prompt, options.longest_prompt + 1, (options.num_requests,), generator=generator
    )
    return [
        torch.randint(PADDING + 1, options.vocab_size, (length,), generator=generator).tolist()
        for length in lengths.tolist()
    ]


def run_one(run: Run, folder: Path, options: ServingArguments) -> dict[str, Any]:
    """Serves all requests once, after a rehearsal of one; digests of tokens show whether all ways agree."""
    torch.set_num_threads(options.num_threads)
    torch.manual_seed(0)
    positions = options.longest_prompt + options.new_tokens
    model = build(run.options["contestant"], options, positions).eval()
    way, prompts = find_way(run.options["way"]), make_prompts(options)
    if not way.rehearses:
        way.serve(model, prompts[:1], options)
    served = way.serve(model, prompts, options)
    digests = [hashlib.sha256(str(tokens).encode()).hexdigest()[:12] for tokens in served.tokens]
    return {
        "seconds": served.seconds,
        "processor_seconds": served.processor_seconds,
        "first_seconds": served.first_seconds,
        "num_tokens": sum(map(len, served.tokens)),
        "digests": digests,
        "hardware": describe_hardware("cpu"),
        "versions": describe_versions(),
    }


EXPERIMENT = Experiment(
    description="Measures new tokens per second and the time to the first one, in each way of serving.",
    groups=(ServingArguments,),
    carry_out=share(plan_runs, run_one, write_report),
)
