"""A Memory Mosaic and a transformer with equally many parameters."""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from modeling_mosaic.plain_mosaic import PlainMosaic
from modeling_mosaic.plain_mosaic_v2 import PlainMosaicV2
from mosaic_lab.benchmark.options import SizeArguments
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.figures import name_of

# GPT-2 has a vector for each position. So many count as parameters; those of longer contexts do not.
COUNTED_POSITIONS = 512
SIZE_STEP = 16
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
LARGEST_DIFFERENCE = 0.01


class Family(NamedTuple):
    """A mosaic's peer, the field that makes both equally large, and the equations that it must compute."""

    peer: str
    memory_size: str
    plain: type


FAMILIES = {
    "mosaic": Family("gpt2", "persistent_memory_size", PlainMosaic),
    "mosaic_v2": Family("llama", "intermediate_size", PlainMosaicV2),
}


def build(name: str, options: SizeArguments, positions: int = COUNTED_POSITIONS, memory_size: int = 0):
    """A model without dropout for rows of up to `positions` tokens: the peer by its name, else the mosaic.

    A Llama has the feed-forward networks of its paper, 8/3 of the width; a mosaic is as large as its peer
    unless `memory_size`, of its persistent memory, is given.
    """
    family = FAMILIES[options.model]
    fields = {
        "gpt2": dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0),
        "llama": {"intermediate_size": 8 * options.hidden_size // 3},
    }.get(name)
    if fields is None:
        memory_size = memory_size or balance_parameters(options)["memory_size"]
        fields = {family.memory_size: memory_size, "attention_dropout": 0.0, "hidden_dropout": 0.0}
    config = AutoConfig.for_model(
        family.peer if name == family.peer else options.model,
        **{name: getattr(options, name) for name in SIZES},
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        # No end of text, so that generate() goes on to the last token that it was asked for.
        **{"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0, **fields},
    )
    return AutoModelForCausalLM.from_config(config)


def balance_parameters(options: SizeArguments) -> dict[str, Any]:
    """Chooses the mosaic's persistent memory so that it comes nearest to its peer's number of parameters.

    Returns:
        `dict`: `memory_size` (a multiple of 16), parameters of `mosaic` and, by its name, of the peer, at 512
        positions, and their `difference` (relative).

    Raises:
        InputError: if the numbers differ by more than 1%, as they can in very small models.
    """
    peer = FAMILIES[options.model].peer
    with torch.device("meta"):
        target = count_parameters(build(peer, options))
        least, more = (count_parameters(build("mosaic", options, memory_size=n * SIZE_STEP)) for n in (1, 2))
    steps = max(0, round((target - least) / (more - least)))
    mosaic = least + steps * (more - least)
    difference = mosaic / target - 1
    if abs(difference) > LARGEST_DIFFERENCE:
        raise InputError(
            f"hidden_size {options.hidden_size}, num_hidden_layers {options.num_hidden_layers}, vocab_size "
            f"{options.vocab_size}: too small to compare, as a mosaic of {mosaic:,} parameters comes nearest "
            f"to {name_of(peer)}'s {target:,}, which is more than {LARGEST_DIFFERENCE:.0%} away"
        )
    memory_size = (1 + steps) * SIZE_STEP
    return {"memory_size": memory_size, "mosaic": mosaic, peer: target, "difference": difference}


def count_parameters(model: nn.Module) -> int:
    """Numbers that are trained, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
