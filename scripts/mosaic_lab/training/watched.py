"""A Trainer whose lines say how fast it trains, how long it will take, and what it has reached."""

import math
import time
from functools import cache
from typing import Any

import torch
import transformers
from transformers import ProgressCallback, TrainerCallback
from transformers.trainer_callback import ExportableState

from mosaic_lab.training.speed import count_operations, find_peak

BITS_PER_BYTE = "eval_bits_per_byte"


class WatchedTrainer(transformers.Trainer):
    """transformers' own, with more in its lines, in its log history and in what it reports to.

    A line about training has, of the steps since the last one, `tokens_per_second` of all processes, padding
    left out, and, where both are known, `mfu`: the operations of these steps (`count_operations`) per second,
    as a share of the machine's peak (`find_peak`). Evaluations and checkpoints do not count. They do for
    `minutes_left`, which goes by the mean of the steps so far, without the first one.

    A line about validation has `eval_bits_per_byte` beside `eval_loss`, by which models with different
    tokenizers compare.

    Args:
        bytes_per_token (`float`, *optional*): bytes of text per predicted token of the validation rows.
        args, kwargs: those of transformers' `Trainer`.
    """

    def __init__(self, *args, bytes_per_token: float | None = None, **kwargs):
        model = args[0] if args else kwargs["model"]
        if model.can_generate() and model.loss_type is None:
            # transformers finds it by the name of the class, for GPT-2 not at all, and the Trainer would then
            # divide by the number of tokens, of which the first one is not predicted.
            model.loss_type = "ForCausalLM"
        super().__init__(*args, **kwargs)
        self.bytes_per_token = bytes_per_token
        self._count_operations = cache(lambda num_tokens: count_operations(self.model, num_tokens) or 0)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(SpeedBar)
        self.add_callback(TrainingTime)

    @property
    def seconds(self) -> float:
        """How long training took, evaluations and checkpoints included, before it was resumed too."""
        return next(
            callback.seconds
            for callback in self.callback_handler.callbacks
            if isinstance(callback, TrainingTime)
        )

    def _init_training_state(self, *args):
        trained = super()._init_training_state(*args)
        self._seconds, self._num_tokens, self._num_operations = 0.0, 0, self.state.total_flos
        # When the first step of this session ended, and which one it was.
        self._first = None
        return trained

    def _run_epoch(self, **options):
        self._begin = time.perf_counter()
        super()._run_epoch(**options)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Of one batch in this process; called for each."""
        tokens, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if tokens is None:
            return 0
        # Not `item()`, which would wait for the device.
        self._num_tokens += tokens.numel() if mask is None else mask.sum()
        return len(tokens) * self._count_operations(tokens.shape[1])

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        now = time.perf_counter()
        self._seconds += now - self._begin
        self._first = self._first or (now, self.state.global_step)
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._begin = time.perf_counter()

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs |= self._measure_speed()
        if "eval_loss" in logs and self.bytes_per_token is not None:
            logs[BITS_PER_BYTE] = logs["eval_loss"] / math.log(2) / self.bytes_per_token
        super().log(logs, start_time)

    def _measure_speed(self) -> dict[str, float]:
        num_tokens = torch.as_tensor(self._num_tokens, device=self.args.device)
        num_tokens = self.accelerator.gather(num_tokens).sum().item()
        num_operations = self.state.total_flos - self._num_operations
        speed = {"tokens_per_second": round(num_tokens / self._seconds)}
        peak = self._peak
        if num_operations > 0 and peak is not None:
            speed["mfu"] = num_operations / self._seconds / peak
        begin, first = self._first
        step, last = self.state.global_step, self.state.max_steps
        if step > first:
            seconds_left = (time.perf_counter() - begin) / (step - first) * (last - step)
            speed["minutes_left"] = seconds_left / 60
        self._seconds, self._num_tokens, self._num_operations = 0.0, 0, self.state.total_flos
        return speed

    @property
    def _peak(self) -> float | None:
        """Of all devices together."""
        dtype = self.model.dtype
        if self.accelerator.native_amp:
            dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float16
        peak = _find_peak(self.args.device, dtype)
        return peak and peak * self.args.world_size * max(1, self.args.n_gpu)


# Measured once.
_find_peak = cache(find_peak)


class TrainingTime(TrainerCallback, ExportableState):
    """Counts the `seconds` of training and keeps them in checkpoints.

    What a stopped run did after its last checkpoint does not count, as it is done again.
    """

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self._last = None

    def on_train_begin(self, args, state, control, **kwargs):
        # A checkpoint of transformers' own Trainer has none.
        saved = state.stateful_callbacks.setdefault(type(self).__name__, {"args": {}})
        self.seconds = saved["args"].get("seconds", 0.0) if state.global_step > 0 else 0.0
        self._last = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        self._count()
        self._last = None

    def state(self) -> dict[str, Any]:
        self._count()
        return {"args": {"seconds": self.seconds}, "attributes": {}}

    def _count(self) -> None:
        if self._last is not None:
            now = time.perf_counter()
            self.seconds += now - self._last
            self._last = now


class SpeedBar(ProgressCallback):
    """transformers' progress bar, which tells the time left, with the speed of the last line at its end."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, logs=logs, **kwargs)
        if self.training_bar is not None and "tokens_per_second" in logs:
            share = f", MFU {logs['mfu']:.0%}" if "mfu" in logs else ""
            self.training_bar.set_postfix_str(f"{logs['tokens_per_second']:,} tokens/s{share}")
