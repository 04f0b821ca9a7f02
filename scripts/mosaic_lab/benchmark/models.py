"""A mosaic and a GPT-2 with equally many parameters."""

from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_mosaic import MosaicConfig, MosaicForCausalLM
from mosaic_lab.benchmark.options import SizeArguments
from mosaic_lab.core.errors import InputError

# GPT-2 has a vector for each position. So many count as parameters; those of longer contexts do not.
COUNTED_POSITIONS = 512
MEMORY_SIZE_STEP = 16
LARGEST_DIFFERENCE = 0.01

# No end of text, so that generate() goes on to the last token that it was asked for.
_COMMON = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0, "attn_implementation": "sdpa"}


def build_gpt2(options: SizeArguments, positions: int = COUNTED_POSITIONS) -> GPT2LMHeadModel:
    """transformers' GPT-2 without dropout, for rows of up to `positions` tokens."""
    config = GPT2Config(
        vocab_size=options.vocab_size,
        n_embd=options.hidden_size,
        n_layer=options.num_hidden_layers,
        n_head=options.num_attention_heads,
        n_positions=positions,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0),
        **_COMMON,
    )
    return GPT2LMHeadModel(config)


def build_mosaic(options: SizeArguments, positions: int, memory_size: int) -> MosaicForCausalLM:
    """The mosaic without dropout; `positions` only keeps generate() from warning of long texts."""
    config = MosaicConfig(
        vocab_size=options.vocab_size,
        hidden_size=options.hidden_size,
        num_hidden_layers=options.num_hidden_layers,
        num_attention_heads=options.num_attention_heads,
        persistent_memory_size=memory_size,
        max_position_embeddings=positions,
        **dict.fromkeys(("attention_dropout", "hidden_dropout"), 0.0),
        **_COMMON,
    )
    return MosaicForCausalLM(config)


def balance_parameters(options: SizeArguments) -> dict[str, Any]:
    """Chooses the mosaic's persistent memory so that it comes nearest to GPT-2's number of parameters.

    Returns:
        `dict`: `memory_size` (a multiple of 16), `mosaic` and `gpt2` (parameters at 512 positions), and
        `difference` (relative).

    Raises:
        InputError: if the numbers differ by more than 1%, as they can in very small models.
    """
    with torch.device("meta"):
        target = count_parameters(build_gpt2(options))
        least, more = (
            count_parameters(build_mosaic(options, COUNTED_POSITIONS, steps * MEMORY_SIZE_STEP))
            for steps in (1, 2)
        )
    steps = max(0, round((target - least) / (more - least)))
    mosaic = least + steps * (more - least)
    difference = mosaic / target - 1
    if abs(difference) > LARGEST_DIFFERENCE:
        raise InputError(
            f"hidden_size {options.hidden_size}, num_hidden_layers {options.num_hidden_layers}, vocab_size "
            f"{options.vocab_size}: too small to compare, as a mosaic of {mosaic:,} parameters comes nearest "
            f"to GPT-2's {target:,}, which is more than {LARGEST_DIFFERENCE:.0%} away"
        )
    memory_size = (1 + steps) * MEMORY_SIZE_STEP
    return {"memory_size": memory_size, "mosaic": mosaic, "gpt2": target, "difference": difference}


def count_parameters(model: nn.Module) -> int:
    """Numbers that are trained, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
