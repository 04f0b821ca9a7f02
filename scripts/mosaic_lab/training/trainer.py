"""Checkpoints that survive a process killed at any moment: only complete ones are ever continued."""

import os
import shutil
from pathlib import Path

import transformers
from torch.distributed.fsdp import FSDPModule
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from mosaic_lab.core.files import read_json, write_json

# Lists the other files of a checkpoint with their sizes; written when all processes are done with them.
MANIFEST = "complete.json"


def is_complete(checkpoint: str | os.PathLike) -> bool:
    """Whether all that was to be saved is in the folder `checkpoint`, and nothing has been deleted since."""
    listed = read_json(Path(checkpoint, MANIFEST))
    return listed is not None and listed.items() <= _measure_files(Path(checkpoint)).items()


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The complete checkpoint of `folder` with the most steps; `None` if there is none."""
    complete = {step: path for step, path in _list_checkpoints(Path(folder)).items() if is_complete(path)}
    return str(complete[max(complete)]) if complete else None


class Trainer(transformers.Trainer):
    """transformers' own, for runs that may be killed.

    A checkpoint counts once all processes have written their share, and only then do older ones go
    (`save_total_limit`). A run that is resumed from its last step trains no further.
    """

    def _save_checkpoint(self, model, trial):
        checkpoint = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save and checkpoint.exists():
            _delete(checkpoint)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_json(checkpoint / MANIFEST, _measure_files(checkpoint))
            self._rotate(checkpoint.parent)

    def _save(self, output_dir=None, state_dict=None):
        if state_dict is not None:
            # Gathered from shards, tied weights are no longer one.
            tied = getattr(self.model, "all_tied_weights_keys", {})
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        # FSDP2 gives the model a class of torch's, whose files would be saved as the model's code.
        sharded = type(self.model)
        self.model.__class__ = next(kind for kind in sharded.__mro__ if not issubclass(kind, FSDPModule))
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.model.__class__ = sharded

    def _rotate(self, folder: Path):
        if self.args.save_total_limit is None:
            return
        # What a killed process left must not count among those to keep.
        for checkpoint in _list_checkpoints(folder).values():
            if not is_complete(checkpoint):
                shutil.rmtree(checkpoint)
        rotate_checkpoints(
            str(folder), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True
        )

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


def _measure_files(checkpoint: Path) -> dict[str, int]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def _delete(checkpoint: Path) -> None:
    """The manifest first: new files must not complete an old one's."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)
