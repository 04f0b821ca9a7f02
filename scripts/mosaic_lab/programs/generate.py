"""Continues a text with a trained model: python scripts/generate.py MODEL "prompt" [--option value ...]"""

import argparse

from transformers import TextStreamer, pipeline, set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)
from mosaic_lab.core.errors import InputError, reported_as
from mosaic_lab.training.model import load_with_tokenizer


def build_parser() -> argparse.ArgumentParser:
    """The command line; options that are not given keep the model's own defaults."""
    parser = argparse.ArgumentParser(
        description="Continues a prompt; one text is printed as it is written.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("prompt", help="text to continue")
    parser.add_argument(
        "--max_new_tokens", type=int, default=256, help="tokens to write at most (default: 256)"
    )
    parser.add_argument(
        "--do_sample",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw tokens from the model's distribution, or take the likeliest one (default: draw)",
    )
    parser.add_argument("--temperature", type=float, help="below 1: likelier tokens, above 1: rarer ones")
    parser.add_argument("--top_k", type=int, help="draw from so many likeliest tokens; 0: from all")
    parser.add_argument(
        "--top_p", type=float, help="draw from the likeliest tokens that have this probability together"
    )
    parser.add_argument(
        "--min_p", type=float, help="draw from tokens this probable relative to the likeliest one"
    )
    parser.add_argument("--repetition_penalty", type=float, help="above 1: tokens that occurred become rarer")
    parser.add_argument("--num_beams", type=int, help="beams of a beam search")
    parser.add_argument("--num_return_sequences", type=int, default=1, help="texts to write (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    parser.add_argument(
        "--device", default=None, help="cpu, cuda, cuda:1, ... (default: the accelerator if there is one)"
    )
    parser.add_argument(
        "--dtype", default="auto", help="float32, bfloat16, float16 (default: that of the weights)"
    )
    return parser


def generate(model: str, prompt: str, seed: int, device: str | None, dtype: str, **options) -> None:
    """Prints continuations of `prompt`.

    Raises:
        InputError: for an empty prompt, a model that cannot be loaded, or options that exclude each other.
    """
    if not prompt.strip():
        raise InputError("prompt: it is empty; give the beginning of a text, such as 'Once upon a time'")
    disable_progress_bar()
    # Its warnings, of a context longer than in training for one, would stand in the middle of the story.
    set_verbosity_error()
    network, tokenizer = load_with_tokenizer(model, dtype=dtype)
    try:
        write = pipeline("text-generation", network, tokenizer=tokenizer, device=device)
        is_single = options["num_return_sequences"] == 1 and options.get("num_beams", 1) == 1
        streamer = TextStreamer(tokenizer, skip_special_tokens=True) if is_single else None
        set_seed(seed)
        texts = write(prompt, streamer=streamer, **options)
    except ValueError as error:
        raise InputError(error) from error
    if not is_single:
        print("\n\n".join(text["generated_text"] for text in texts))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("generate"):
        generate(**vars(build_parser().parse_args(argv)))


if __name__ == "__main__":
    main()
