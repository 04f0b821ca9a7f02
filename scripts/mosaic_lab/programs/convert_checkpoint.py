"""Turns a checkpoint of the original Memory Mosaics code into a folder that `from_pretrained` loads.

    python scripts/convert_checkpoint.py ckpt.pt --output_dir my-mosaic [--config config.json]

It takes what Library/train_memory_mosaics.py and nanoMosaics/train.py save, or the tensors alone in a
.safetensors file.
"""

import logging
import sys

from modeling_mosaic.conversion import check_output_folder, load_original_checkpoint, save_converted
from modeling_mosaic.original_checkpoint import read_original_config
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as


def convert(checkpoint: str, output_dir: str, config: str | None) -> None:
    """Converts one file and prints what it holds."""
    check_output_folder(output_dir)
    model = load_original_checkpoint(checkpoint, config and read_original_config(config))
    fields = model.config
    tied = "tied" if fields.tie_word_embeddings else "untied"
    print(
        f"{fields.num_hidden_layers} blocks of {fields.num_attention_heads} heads, "
        f"width {fields.hidden_size}, {fields.num_persistent_banks} bank(s) of "
        f"{fields.persistent_memory_size} persistent pairs per head, "
        f"{fields.vocab_size} tokens, {tied} head, {'biases' if fields.use_bias else 'no biases'}: "
        f"{model.num_parameters():,} parameters"
    )
    save_converted(model, output_dir)
    print(f"saved in {output_dir}")


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help=".pt or .safetensors file of the original code")
    parser.add_argument("--output_dir", required=True, help="new folder for the model")
    parser.add_argument(
        "--config", help="JSON file with arguments of the original model that the checkpoint lacks"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("convert_checkpoint"):
        (options,) = make_parser().parse(sys.argv[1:] if argv is None else argv)
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        logging.getLogger("modeling_mosaic").setLevel(logging.INFO)
        convert(**vars(options))


if __name__ == "__main__":
    main()
