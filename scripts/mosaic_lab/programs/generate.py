"""Continues a text with a trained model: python scripts/generate.py MODEL "prompt" [--option value ...]"""

import sys
from dataclasses import dataclass, field

from transformers import TextStreamer, pipeline, set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from modeling_mosaic import MosaicMemory
from mosaic_lab.core.command import CommandParser, check_range
from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError, reported_as
from mosaic_lab.core.model_options import DeviceArguments
from mosaic_lab.training.model import load_with_tokenizer

# Least and largest values; a lower temperature would make logits infinite in float16.
SAMPLING = {
    "temperature": (1e-3, float("inf")),
    "top_k": (0, 2**31),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (1e-3, 1e3),
}


@dataclass
class GenerationArguments(DeviceArguments):
    """How the text is continued; options that are not given keep the model's own defaults."""

    max_new_tokens: int = field(default=256, metadata={"help": "Largest number of tokens to write."})
    do_sample: bool = field(
        default=True,
        metadata={"help": "Samples from the model's distribution; otherwise takes the most likely token."},
    )
    temperature: float | None = field(
        default=None, metadata={"help": "Below 1: favours likely tokens; above 1: favours rare ones."}
    )
    top_k: int | None = field(
        default=None, metadata={"help": "Samples from the k most likely tokens; 0: from all."}
    )
    top_p: float | None = field(
        default=None,
        metadata={"help": "Nucleus sampling: from the smallest set of tokens with total probability p."},
    )
    min_p: float | None = field(
        default=None,
        metadata={"help": "Samples from tokens at least p times as probable as the most likely one."},
    )
    repetition_penalty: float | None = field(
        default=None, metadata={"help": "Above 1: makes tokens that have occurred less likely."}
    )
    num_beams: int | None = field(default=None, metadata={"help": "Number of beams of a beam search."})
    memory: str | None = field(
        default=None,
        metadata={"help": "Memory that the prompt continues: a file that `read` left, or its Hub id."},
    )
    num_return_sequences: int = field(default=1, metadata={"help": "Number of texts to write."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampling."})

    def __post_init__(self):
        check_range(self, **SAMPLING, seed=(0, 2**32 - 1), max_new_tokens=(1, 2**31))
        # Each is a row of the batch.
        check_range(self, num_beams=(1, 1024), num_return_sequences=(1, 1024))


def make_parser() -> CommandParser:
    """The command line: a model, a prompt and the options."""
    parser = CommandParser(
        GenerationArguments, description="Continues a prompt; one text is printed as it is written."
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("prompt", help="text to continue")
    return parser


def generate(model: str, prompt: str, options: GenerationArguments) -> None:
    """Prints continuations of `prompt`.

    Raises:
        InputError: for an empty prompt, a model that cannot be loaded, or options that exclude each other.
    """
    if not prompt.strip():
        raise InputError("prompt: it is empty; give the beginning of a text, such as 'Once upon a time'")
    device = find_device(options.device)
    disable_progress_bar()
    # Its warnings, of a context longer than in training for one, would stand in the middle of the story.
    set_verbosity_error()
    network, tokenizer = load_with_tokenizer(model, dtype=options.dtype)
    own = ("seed", "device", "dtype", "memory")
    given = {name: value for name, value in vars(options).items() if name not in own and value is not None}
    write = pipeline("text-generation", network, tokenizer=tokenizer, device=device)
    is_single = options.num_return_sequences == 1 and (options.num_beams or 1) == 1
    if options.memory is not None:
        # A row for each beam or returned text.
        num_rows = max(options.num_beams or 1, options.num_return_sequences)
        given["cache"] = MosaicMemory.load(options.memory, write.model).to_cache(num_rows)
    streamer = TextStreamer(tokenizer, skip_special_tokens=True) if is_single else None
    set_seed(options.seed)
    try:
        texts = write(prompt, streamer=streamer, **given)
    except Exception:
        # Ends the line that the text is on.
        print()
        raise
    if not is_single:
        print("\n\n".join(text["generated_text"] for text in texts))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("generate"):
        options, others = make_parser().parse(sys.argv[1:] if argv is None else argv)
        generate(others.model, others.prompt, options)


if __name__ == "__main__":
    main()
