"""The command `mosaic`, and what the programs in `scripts/` call."""

import os
import sys
from importlib import import_module

COMMANDS = {
    "train": ("train", "Trains a causal language model on stories."),
    "generate": ("generate", "Continues a text with a trained model."),
    "evaluate": ("evaluate", "Measures trained models side by side."),
    "benchmark": ("benchmark", "Measures time and memory against GPT-2."),
    "make-stories": ("make_stories", "Makes a data set of stories."),
    "convert": ("convert_checkpoint", "Converts a checkpoint of the original code."),
    "push": ("push_to_hub", "Uploads a model or a data set to the Hub."),
}


def run(program: str, argv: list[str] | None = None) -> None:
    """Runs the module `program` of `mosaic_lab.programs` with the options `argv`."""
    # Before torch is imported: threads that wait for a busy core then sleep instead of spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import_module(f"mosaic_lab.programs.{program}").main(argv)


def main() -> None:
    """Runs `mosaic COMMAND ...`."""
    command, *argv = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        lines = "\n".join(f"  {name:<14}{help}" for name, (_, help) in COMMANDS.items())
        print(f"usage: mosaic COMMAND ...\n\n{lines}\n\nmosaic COMMAND --help lists a command's options.")
    elif command in COMMANDS:
        run(COMMANDS[command][0], argv)
    else:
        print(f"mosaic: error: no command {command!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
