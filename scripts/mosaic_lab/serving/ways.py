"""Ways of serving many requests: each gets a model and all prompts at once, and continues them greedily."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel, StoppingCriteriaList

from mosaic_lab.benchmark.contestants import TokenClock
from mosaic_lab.core.errors import InputError
from mosaic_lab.serving.options import ServingArguments

Prompts = list[list[int]]
PADDING = 0


@dataclass
class Served:
    """What requests got: new tokens, the seconds until the first of them; and until all had all, by the clock
    on the wall and by that of the processor."""

    tokens: list[list[int]]
    first_seconds: list[float]
    seconds: float
    processor_seconds: float


class Stopwatch:
    """Both clocks, from now on."""

    def __init__(self):
        self.start = time.perf_counter()
        self.processor_start = time.process_time()

    def stop(self) -> tuple[float, float]:
        """Seconds since the start."""
        return time.perf_counter() - self.start, time.process_time() - self.processor_start


@dataclass(frozen=True)
class Way:
    """A way of serving.

    Args:
        serve (`Callable`): gets the model, the prompts and the options; returns a [`Served`].
        title (`str`): what tables call it.
        rehearses (`bool`): whether it serves a request before those that count by itself.
    """

    serve: Callable[[PreTrainedModel, Prompts, ServingArguments], Served]
    title: str
    rehearses: bool = False


def serve_in_batches(
    model: PreTrainedModel, prompts: Prompts, options: ServingArguments, size: int
) -> Served:
    """`generate()` with left-padded batches of `size` requests, one batch after the other."""
    watch, tokens, first_seconds = Stopwatch(), [], []
    for begin in range(0, len(prompts), size):
        batch = prompts[begin : begin + size]
        longest = max(map(len, batch))
        rows = torch.tensor([[PADDING] * (longest - len(prompt)) + prompt for prompt in batch])
        clock = TokenClock(model.device.type)
        written = model.generate(
            rows,
            attention_mask=(rows != PADDING).long(),
            max_new_tokens=options.new_tokens,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        tokens += written[:, longest:].tolist()
        first_seconds += [clock.times[0] - watch.start] * len(batch)
    return Served(tokens, first_seconds, *watch.stop())


def serve_one_by_one(model: PreTrainedModel, prompts: Prompts, options: ServingArguments) -> Served:
    """`generate()` for one request after the other."""
    return serve_in_batches(model, prompts, options, 1)


def serve_static_batches(model: PreTrainedModel, prompts: Prompts, options: ServingArguments) -> Served:
    """`generate()` for `batch_size` requests at a time, in the order in which they came."""
    return serve_in_batches(model, prompts, options, options.batch_size)


def serve_continuously(model: PreTrainedModel, prompts: Prompts, options: ServingArguments) -> Served:
    """transformers' continuous batching, with blocks enough for all requests."""
    longest = options.longest_prompt + options.new_tokens
    settings = ContinuousBatchingConfig(
        page_size=options.page_size,
        num_blocks=len(prompts) * (longest // options.page_size + 1),
        max_batch_tokens=options.max_batch_tokens,
    )
    generation_config = GenerationConfig(max_new_tokens=options.new_tokens, do_sample=False, eos_token_id=-1)
    with model.continuous_batching_context_manager(
        generation_config, continuous_batching_config=settings
    ) as manager:
        watch = Stopwatch()
        names = manager.add_requests(prompts, record_timestamps=True)
        results = {}
        while len(results) < len(names):
            result = manager.get_result(timeout=1)
            if result is not None:
                results[result.request_id] = result
            elif not manager.is_running():
                raise RuntimeError("continuous batching ended early") from (
                    manager.background_thread_status.fatal_error
                )
        times = watch.stop()
    results = [results[name] for name in names]
    return Served(
        [result.generated_tokens for result in results],
        [result.timestamps[0] - watch.start for result in results],
        *times,
    )


def serve_by_engine(
    model: PreTrainedModel, prompts: Prompts, options: ServingArguments, engine: str
) -> Served:
    """An engine of another installation, `vllm` or `mlx`, from a saved folder.

    Raises:
        InputError: if the engine's process fails; it has said why.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        saved = model
        if engine == "mlx" and model.config.model_type == "gpt2":
            # mlx-lm wants the names that the published checkpoints have: those of the body, and `n_ctx`.
            saved = model.base_model
            saved.config.n_ctx = saved.config.n_positions
        saved.save_pretrained(folder / "model")
        request = {"model": str(folder / "model"), "prompts": prompts, "new_tokens": options.new_tokens}
        (folder / "request.json").write_text(json.dumps({**request, "num_threads": options.num_threads}))
        program = Path(__file__).with_name(f"{engine}_engine.py")
        python = getattr(options, f"{engine}_python")
        command = [python, str(program), str(folder / "request.json"), str(folder / "answer.json")]
        try:
            status = subprocess.run(command).returncode
        except OSError as error:
            raise InputError(f"{engine}_python {python!r}: {error.strerror}") from error
        if status != 0:
            raise InputError(f"{engine}_python {python!r}: the engine ended with status {status}")
        return Served(**json.loads((folder / "answer.json").read_text()))


WAYS = {
    "one_by_one": Way(serve_one_by_one, "one by one"),
    "static": Way(serve_static_batches, "static batches"),
    "continuous": Way(serve_continuously, "continuous batching"),
    "vllm": Way(partial(serve_by_engine, engine="vllm"), "vLLM", rehearses=True),
    "mlx": Way(partial(serve_by_engine, engine="mlx"), "MLX", rehearses=True),
}


def find_way(name: str) -> Way:
    """The way `name`.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in WAYS:
        raise InputError(f"ways must be of {', '.join(WAYS)}, not {name!r}")
    return WAYS[name]
