"""Checkpoints that survive a process killed at any moment, and a stop where a run diverges."""

import math
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_mosaic.complete_files import sync
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object, write_json, write_text
from mosaic_lab.training.streaming import StreamTrainer
from mosaic_lab.training.weights import find_nonfinite

# Lists the other files of a checkpoint with their checksums; written once they are on the disk.
MANIFEST = "complete.json"
# The options that a checkpoint depends on.
OPTIONS = "options.json"
IGNORED = ".gitignore"
_PIECE = 1 << 20


def is_complete(checkpoint: str | os.PathLike) -> bool:
    """Whether all that was to be saved is in the folder `checkpoint`, and is what was written then."""
    try:
        listed = read_object(Path(checkpoint, MANIFEST))
        return listed is not None and listed == _sum_files(Path(checkpoint), only=listed)
    except (InputError, OSError):
        return False


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The complete checkpoint of `folder` with the most steps; `None` if there is none."""
    checkpoints = sorted(_list_checkpoints(Path(folder)).items(), reverse=True)
    return next((str(checkpoint) for _, checkpoint in checkpoints if is_complete(checkpoint)), None)


class Trainer(StreamTrainer):
    """transformers' own, for runs that may be killed or diverge.

    A checkpoint counts once all processes have written their share, and only then are older ones deleted
    (`save_total_limit`). A run that is resumed from its last step trains no further. The first loss that is
    not finite ends the run, and weights that are not finite are never saved.

    Args:
        options (`dict`, *optional*): saved in each checkpoint as `options.json`.
        args, kwargs: those of `StreamTrainer`.

    Raises:
        InputError: from `train`, `evaluate` and `save_model`, if a loss or the weights are not finite.
    """

    def __init__(self, *args, options: dict[str, Any] | None = None, **kwargs):
        model = args[0] if args else kwargs["model"]
        # transformers turns it off, which is right for training only.
        self.use_cache = getattr(model.config, "use_cache", None)
        self.options = options
        super().__init__(*args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Of all processes, so that all of them end.
        losses = self.accelerator.gather(loss)
        if not torch.isfinite(losses).all():
            self._stop(self.state.global_step + 1, f"the loss is {losses.sum().item()}")
        return loss

    def log(self, logs, start_time=None):
        # Training's own is looked at in each step.
        if not math.isfinite(logs.get("eval_loss", 0)):
            self._stop(self.state.global_step, f"the validation loss is {logs['eval_loss']}")
        super().log(logs, start_time)

    def _stop(self, step: int, problem: str):
        last = last_checkpoint(self.args.output_dir)
        raise InputError(
            f"step {step}: {problem}; the run has diverged and was stopped, "
            + (f"the last checkpoint before is {last}" if last else "there is no checkpoint before")
        )

    def save_model(self, output_dir=None, _internal_call=False):
        nonfinite = find_nonfinite(self.model)
        count = torch.tensor([len(nonfinite)], device=self.args.device)
        if self.accelerator.gather(count).any():
            name = nonfinite[0] if nonfinite else "those of another process"
            self._stop(self.state.global_step, f"the weights are not finite any more ({name})")
        super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model, trial):
        checkpoint = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save and checkpoint.exists():
            _delete(checkpoint)
        self.accelerator.wait_for_everyone()
        # Older ones are needed until this one is complete.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if self.options is not None:
                write_json(checkpoint / OPTIONS, self.options)
            for path in (*checkpoint.rglob("*"), checkpoint, checkpoint.parent):
                sync(path)
            write_json(checkpoint / MANIFEST, _sum_files(checkpoint))
            self._rotate(checkpoint)

    def _save(self, output_dir=None, state_dict=None):
        if state_dict is not None:
            # Gathered from shards, tied weights are no longer one.
            tied = getattr(self.model, "all_tied_weights_keys", {})
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        # FSDP2 gives the model a class of torch's, whose files would be saved as the model's code.
        sharded = type(self.model)
        self.model.__class__ = next(kind for kind in sharded.__mro__ if not issubclass(kind, FSDPModule))
        in_training = getattr(self.model.config, "use_cache", None)
        if self.use_cache is not None:
            self.model.config.use_cache = self.use_cache
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.model.__class__ = sharded
            if self.use_cache is not None:
                self.model.config.use_cache = in_training
        # Pickled, with paths of this machine, in a folder that people upload.
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _push_from_checkpoint(self, checkpoint_folder):
        # transformers pickles its options into the folder that it uploads from then on. The Hub leaves out
        # of a commit what this file lists.
        ignored = Path(self.args.output_dir, IGNORED)
        if self.is_world_process_zero() and not ignored.exists():
            write_text(ignored, f"{TRAINING_ARGS_NAME}\n")
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_current_push(self):
        super()._finish_current_push()
        # No upload reads it any more.
        if self.is_world_process_zero():
            Path(self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _rotate(self, newest: Path):
        limit = self.args.save_total_limit
        if limit is None or limit < 1:
            return
        best = self.state.best_model_checkpoint
        kept = {newest, Path(best)} if best is not None else {newest}
        steps = _list_checkpoints(newest.parent)
        # Those that a killed process left incomplete must not count among those to keep; those of later steps
        # are damaged, or were not to be continued.
        others = [
            (not (path / MANIFEST).exists() or step > self.state.global_step, -step, path)
            for step, path in steps.items()
            if path not in kept
        ]
        for number, (is_useless, _, path) in enumerate(sorted(others), start=len(kept)):
            if is_useless or number >= limit:
                _delete(path)

    def _init_training_state(self, max_steps, *args):
        trained = super()._init_training_state(max_steps, *args)
        # A checkpoint brings its own.
        self.state.compute_steps(self.args, max_steps)
        return trained

    def _issue_warnings_after_load(self, load_result):
        # Tied weights are saved once.
        tied = getattr(self.model, "all_tied_weights_keys", {})
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _run_epoch(self, **options):
        # transformers looks at the number of steps only after one more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**options)


def _list_checkpoints(folder: Path) -> dict[int, Path]:
    """By their numbers of steps."""
    folders = (path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir())
    steps = ((path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-"), path) for path in folders)
    return {int(step): path for step, path in steps if step.isdecimal()}


def _sum_files(checkpoint: Path, only: dict[str, Any] | None = None) -> dict[str, str]:
    """CRC-32 by name of the files, of those that `only` names if it is given, but the manifest."""
    paths = (path for path in sorted(checkpoint.rglob("*")) if path.is_file())
    files = {path.relative_to(checkpoint).as_posix(): path for path in paths}
    files.pop(MANIFEST, None)
    return {name: _sum_file(path) for name, path in files.items() if only is None or name in only}


def _sum_file(path: Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return f"{checksum:08x}"


def _delete(checkpoint: Path) -> None:
    """The manifest first: nothing half-deleted counts."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)
