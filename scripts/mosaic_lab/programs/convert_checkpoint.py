"""Turns a checkpoint of the original Memory Mosaics code into a folder that `from_pretrained` loads.

    python scripts/convert_checkpoint.py ckpt.pt --output my-mosaic [--config config.json]

It takes what Library/train_memory_mosaics.py and nanoMosaics/train.py save, or the tensors alone in a
.safetensors file.
"""

import argparse
import logging
import sys

from safetensors import SafetensorError

from modeling_mosaic.conversion import check_output_folder, load_original_checkpoint, save_converted
from modeling_mosaic.original_checkpoint import read_original_config

PROGRAM = "convert_checkpoint"


def convert(checkpoint: str, output: str, config: str | None) -> None:
    """Converts one file and tells what came out."""
    check_output_folder(output)
    model = load_original_checkpoint(checkpoint, config and read_original_config(config))
    fields = model.config
    tied = "tied" if fields.tie_word_embeddings else "untied"
    print(
        f"{fields.num_hidden_layers} blocks of {fields.num_attention_heads} heads, "
        f"width {fields.hidden_size}, "
        f"{fields.num_persistent_banks} bank(s) of {fields.persistent_memory_size} persistent pairs a head, "
        f"{fields.vocab_size} tokens, {tied} head, {'biases' if fields.use_bias else 'no biases'}: "
        f"{model.num_parameters():,} parameters"
    )
    save_converted(model, output)
    print(f"saved in {output}")


def main() -> None:
    """Parses the command line; an error is one line and exit status 2."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help=".pt or .safetensors file of the original code")
    parser.add_argument("--output", required=True, help="folder to create")
    parser.add_argument(
        "--config", help="JSON file with arguments of the original model that the checkpoint lacks"
    )
    args = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("modeling_mosaic").setLevel(logging.INFO)
    try:
        convert(args.checkpoint, args.output, args.config)
    except (ValueError, OSError, SafetensorError) as error:
        message = " ".join(str(error).split())
        print(f"{PROGRAM}: error: {message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
