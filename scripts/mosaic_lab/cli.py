"""The command `mosaic`, and how the programs in `scripts/` start."""

import os
import sys
from importlib import import_module
from pathlib import Path

from mosaic_lab.core.errors import InputError, reported_as

COMMANDS = {
    "train": ("train", "Trains a causal language model on stories."),
    "generate": ("generate", "Continues a text with a trained model."),
    "inspect": ("inspect_memories", "Shows what each memory does on a text."),
    "read": ("read", "Reads texts into a memory that can be continued."),
    "serve": ("serve", "Answers over HTTP as OpenAI's server does."),
    "evaluate": ("evaluate", "Measures trained models side by side."),
    "reproduce": ("reproduce", "Repeats an experiment of the paper."),
    "make-stories": ("make_stories", "Makes a data set of stories."),
    "convert": ("convert_checkpoint", "Converts a checkpoint of the original code."),
    "push": ("push_to_hub", "Uploads a model or a data set to the Hub."),
    "benchmark": ("benchmark", "Measures time and memory against GPT-2."),
}
# One of them is there where a driver for GPUs is: NVIDIA's, AMD's, and that of Windows for Linux.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def run(program: str, argv: list[str] | None = None) -> None:
    """Runs the module `program` of `mosaic_lab.programs` with the options `argv`."""
    with reported_as(program):
        _let_threads_sleep()
        try:
            main = import_module(f"mosaic_lab.programs.{program}").main
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] in ("mosaic_lab", "modeling_mosaic"):
                raise
            raise InputError(
                f"the package {error.name} is missing: pip install 'memory-mosaics[train]'"
            ) from error
        main(argv)


def _let_threads_sleep() -> None:
    """Lets OpenMP threads that wait for others spin only briefly, unless the user chose otherwise.

    On a busy CPU a spinning thread takes the time that the one it waits for needs: training is then several
    times as slow. Without any spinning (`OMP_WAIT_POLICY=PASSIVE`) it is slower on a quiet one, too. It takes
    effect before torch is imported, which is why GPUs are told by their drivers.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    if not chosen and not any(Path(driver).exists() for driver in _GPU_DRIVERS):
        os.environ["GOMP_SPINCOUNT"] = "1000"


def main() -> None:
    """Runs `mosaic COMMAND ...`."""
    command, *argv = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        lines = "\n".join(f"  {name:<14}{help}" for name, (_, help) in COMMANDS.items())
        print(f"usage: mosaic COMMAND ...\n\n{lines}\n\nmosaic COMMAND --help lists a command's options.")
    elif command in COMMANDS:
        # The name of the program in usage and errors.
        sys.argv[0] = f"mosaic {command}"
        run(COMMANDS[command][0], argv)
    else:
        print(f"mosaic: error: no command {command!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
