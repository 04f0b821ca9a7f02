"""Checkpoints of the original Memory Mosaics code, as models of this package.

The released code has three implementations: Library "regular", Library "eft" and nanoMosaics. They compute
the same model with differently named and shaped tensors, other clamps on the key scales and another scale of
the logits.
"""

import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from .complete_files import replacing
from .configuration_mosaic import MosaicConfig
from .modeling_mosaic import MosaicForCausalLM
from .original_checkpoint import OriginalLayout, read_original_checkpoint, recognise_layout, strip_prefixes

logger = logging.getLogger(__name__)

# The logs of the largest key scales, which no tensor shows. A later version of nanoMosaics clamps lower than
# the released one; only `key_scale_max` in the configuration can tell.
_LIBRARY_KEY_SCALE_MAX = 5.0
_NANO_KEY_SCALE_MAX = math.log(65535)
_LATER_NANO_KEY_SCALE_MAX = 5.0

_CONFIG_TYPES = {
    "vocab_size": int,
    "n_head": int,
    "n_embd": int,
    "n_layer": int,
    "block_size": int,
    "pmem_size": int,
    "pmem_count": int,
    "v_shift": int,
    "bias": bool,
    "weight_tying": bool,
    "pre_ln": bool,
    "attn_only": bool,
    "ic_dropout": float,
    "hd_dropout": float,
    "dropout": float,
    "key_scale_max": float,
}


class _Tensors:
    """The tensors of a checkpoint, taken one by one so that what nobody asked for is left over."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self.left = dict(tensors)

    def peek(self, key: str, dims: int) -> torch.Size:
        if key not in self.left:
            raise ValueError(f"the checkpoint has no tensor {key!r}")
        shape = self.left[key].shape
        if len(shape) != dims or 0 in shape:
            raise ValueError(
                f"{key!r} has shape {tuple(shape)}, expected {dims} dimensions, none of them empty"
            )
        return shape

    def take(self, key: str, *shape: int) -> torch.Tensor:
        self.peek(key, len(shape))
        tensor = self.left.pop(key)
        if tensor.shape != shape:
            raise ValueError(f"{key!r} has shape {tuple(tensor.shape)}, expected {shape}")
        if not tensor.is_floating_point():
            raise ValueError(f"{key!r} holds {tensor.dtype}, expected floating point numbers")
        converted = tensor.detach().to(torch.float32)
        if not converted.isfinite().all():
            raise ValueError(f"{key!r} holds NaN or infinite values")
        return converted


@dataclass(frozen=True)
class _Sizes:
    """What the shapes of the tensors tell, under the names that the original code gives it."""

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    pmem_size: int
    pmem_count: int


def _sizes(source: _Tensors, layout: OriginalLayout) -> _Sizes:
    layers = {
        int(match[1]) for key in source.left if (match := re.match(re.escape(layout.block) + r"(\d+)\.", key))
    }
    if layers != set(range(len(layers))):
        raise ValueError(
            f"the checkpoint has the blocks {sorted(layers)}, expected {list(range(len(layers)))}"
        )
    tables = (f"{layout.embedding}.weight", f"{layout.head}.weight")
    vocab_size, n_embd = source.peek(tables[0] if tables[0] in source.left else tables[1], 2)
    if layout.is_nano:
        pmem_count, _, n_head, pmem_size, _ = source.peek(f"{layout.block}0.mlp.P_k", 5)
    else:
        bank = re.compile(r"blocks\.0\.pmem\.pmem\.M_k\d+")
        pmem_count = sum(1 for key in source.left if bank.fullmatch(key))
        _, n_head, pmem_size, _ = source.peek("blocks.0.pmem.pmem.M_k0", 4)
    if n_embd % n_head:
        raise ValueError(f"the width {n_embd} is no multiple of the {n_head} heads")
    return _Sizes(vocab_size, n_embd, len(layers), n_head, pmem_size, pmem_count)


def _check_config(config: Mapping) -> dict:
    """The entries that matter, with their types checked; the training scripts put many others beside them."""
    checked = {}
    for name, kind in _CONFIG_TYPES.items():
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (kind, int)):
            raise ValueError(
                f"{name} in the checkpoint's configuration is {value!r}, expected {kind.__name__}"
            )
        checked[name] = value
    return checked


def _refuse_other_models(config: dict) -> None:
    for name, supported in (("pre_ln", True), ("attn_only", False), ("v_shift", 1)):
        if config.get(name, supported) != supported:
            raise ValueError(
                f"cannot represent a model with {name}={config[name]!r}, only {name}={supported!r}"
            )


def _refuse_contradictions(config: dict, sizes: _Sizes, biased: bool) -> None:
    for name, value in vars(sizes).items():
        if config.get(name, value) != value:
            raise ValueError(
                f"{name} is {config[name]} in the configuration, but {value} by the tensors' shapes"
            )
    if config.get("bias", biased) != biased:
        has = "has" if biased else "has no"
        raise ValueError(
            f"bias is {config['bias']} in the configuration, but the checkpoint {has} bias tensors"
        )


def _take_buffers(source: _Tensors, layout: OriginalLayout, config: dict, num_layers: int) -> None:
    """Drops the masks and distances that nanoMosaics stores, if they are what they should be."""
    for layer in range(num_layers if layout.is_nano else 0):
        mask = _take_buffer(source, f"{layout.block}{layer}.attn.bias", lambda steps: steps < steps[:, None])
        # Cropping a model to a shorter context crops its masks only, not its distances.
        size = config.setdefault("block_size", mask) if mask else None
        if size != mask:
            raise ValueError(
                f"block_size is {size} in the configuration, but the masks are for {mask} tokens"
            )
        for unit in ("attn", "mlp"):
            key = f"{layout.block}{layer}.{unit}.k_featurizer.leaky_avg.coef"
            _take_buffer(source, key, lambda steps: (steps - steps[:, None]).tril())


def _take_buffer(source: _Tensors, key: str, expected: Callable[[torch.Tensor], torch.Tensor]) -> int | None:
    """The number of tokens for which the buffer was made, `None` without it."""
    buffer = source.left.pop(key, None)
    if buffer is None:
        return None
    time = buffer.shape[-1] if buffer.dim() else 0
    matrix = expected(torch.arange(time)).to(buffer.dtype)
    if buffer.numel() != time**2 or not torch.equal(buffer.flatten(), matrix.flatten()):
        raise ValueError(f"{key!r} is not the buffer that the original code makes")
    return time


def _take_bank_pair(
    source: _Tensors, layout: OriginalLayout, at: str, sizes: _Sizes
) -> tuple[torch.Tensor, torch.Tensor]:
    """Persistent keys and values, each (banks, heads, slots, head size)."""
    slots = (sizes.n_head, sizes.pmem_size, sizes.n_embd // sizes.n_head)
    if layout.is_nano:
        names = (f"{at}mlp.P_k", f"{at}mlp.P_v")
        keys, values = (source.take(name, sizes.pmem_count, 1, *slots).squeeze(1) for name in names)
        return keys, values
    banks = range(sizes.pmem_count)
    keys, values = (
        torch.cat([source.take(f"{at}pmem.pmem.M_{kv}{i}", 1, *slots) for i in banks]) for kv in "kv"
    )
    return keys, values


def _take_module(source: _Tensors, key: str, width: int, biased: bool) -> dict[str, torch.Tensor]:
    """The weight of a norm, linear layer or kernel-1 convolution; zeros for a bias that only others have."""
    leaf = key.rsplit(".", 1)[-1]
    shape = (width,) if leaf.startswith("ln") else (width, width, 1) if leaf == "conv" else (width, width)
    weight = source.take(f"{key}.weight", *shape)
    taken = {"weight": weight.squeeze(-1) if leaf == "conv" else weight}
    if biased:
        taken["bias"] = (
            source.take(f"{key}.bias", width) if f"{key}.bias" in source.left else torch.zeros(width)
        )
    return taken


def _merge_eft_leaks(source: _Tensors) -> None:
    """Two names of eft are one parameter, the decay of past and current tokens; a file may keep one."""
    for key in [key for key in source.left if key.endswith(".leaky_beta_u_under")]:
        twin = key.replace("_u_under", "_w_under")
        current = source.left.pop(key)
        past = source.left.setdefault(twin, current)
        if current.shape != past.shape or not torch.equal(current.abs(), past.abs()):
            raise ValueError(
                f"cannot represent a model with {key} different from {twin}: decay would have two rates"
            )


def _fold_nano_clamp(converted: dict[str, torch.Tensor], limit: float) -> float:
    """nanoMosaics clamps the log of the whole persistent query scale, this package that of its square root.

    Returns the largest log of a scale that it would have without a clamp.
    """
    largest = 0.0
    for key, log_scale in converted.items():
        if key.endswith("contextual_memory.key_extractor.leaky_norm.log_scale"):
            largest = max(largest, 10 * log_scale.max().item())
        if key.endswith("persistent_memory.key_extractor.leaky_norm.log_scale"):
            largest = max(largest, 20 * log_scale.max().item())
            converted[key] = log_scale.clamp(max=limit / 20)
    return largest


def _take_tables(source: _Tensors, layout: OriginalLayout, config: dict, sizes: _Sizes) -> tuple[dict, bool]:
    """Embedding and head, and whether they are one; a file may have dropped either of a tied pair."""
    names = (f"{layout.embedding}.weight", f"{layout.head}.weight")
    found = [source.take(name, sizes.vocab_size, sizes.n_embd) for name in names if name in source.left]
    tied = len(found) == 1 or torch.equal(*found)
    wanted = config.get("weight_tying", tied)
    if wanted and not tied:
        raise ValueError(f"weight_tying is True in the configuration, but {names[0]} and {names[1]} differ")
    if not wanted and len(found) == 1:
        raise ValueError(
            f"weight_tying is False in the configuration, but only one of {names[0]} and {names[1]} exists"
        )
    return {"model.embed_tokens.weight": found[0], "lm_head.weight": found[-1]}, wanted


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: Mapping | None = None
) -> tuple[MosaicConfig, dict[str, torch.Tensor]]:
    """Translates the tensors of an original checkpoint into those of this package.

    Clamps, the logit scale, banks, biases, tying and the doubled parameters of eft end in the configuration
    or in the tensors, so that the logits are those of the original. Only training can differ: dropout does
    not act in exactly the same places, and a persistent key scale of nanoMosaics beyond its clamp is stored
    at the clamp and gets a gradient here.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): the tensors, with `_orig_mod.` and `module.` in their names
            or without.
        config (`Mapping`, *optional*): arguments of the original model, as its training scripts save them
            (`n_head`, `block_size`, ...). Sizes are read off the tensors and only compared with it; the rest
            has defaults: `block_size` 512, dropout 0, and for nanoMosaics `key_scale_max`, the log of the
            largest key scale, ln 65535. Unknown entries are ignored.

    Returns:
        `tuple[MosaicConfig, dict[str, torch.Tensor]]`: configuration and state dict of a
        [`MosaicForCausalLM`], in float32.

    Raises:
        ValueError: for a foreign, incomplete or contradictory checkpoint, a tensor of the wrong shape, with
            NaN or infinite values, without values (sparse, meta) or that nothing uses, or a variant that this
            package cannot represent (post-layer norm, say).
    """
    source = _Tensors(strip_prefixes(state_dict))
    layout = recognise_layout(source.left)
    logger.info("it is a checkpoint of %s", layout.name)
    config = _check_config(config or {})
    _refuse_other_models(config)
    if not layout.is_nano:
        _merge_eft_leaks(source)
    sizes = _sizes(source, layout)
    _take_buffers(source, layout, config, sizes.n_layer)
    biased = any(key.endswith(".bias") for key in source.left)
    _refuse_contradictions(config, sizes, biased)

    converted, tied = _take_tables(source, layout, config, sizes)
    scalar_shape = (1, sizes.n_head, 1, 1) if layout.is_nano else (sizes.n_head,)
    for layer in range(sizes.n_layer):
        at, to = f"{layout.block}{layer}.", f"model.layers.{layer}."
        for key, name in layout.modules.items():
            for part, tensor in _take_module(source, at + key, sizes.n_embd, biased).items():
                converted[f"{to}{name}.{part}"] = tensor
        for key, name in layout.scalars.items():
            converted[to + name] = source.take(at + key, *scalar_shape).flatten()
        keys, values = _take_bank_pair(source, layout, at, sizes)
        converted[f"{to}persistent_memory.memory_keys"] = keys
        converted[f"{to}persistent_memory.memory_values"] = values
    for part, tensor in _take_module(source, layout.final_norm, sizes.n_embd, biased).items():
        converted[f"model.norm.{part}"] = tensor
    if source.left:
        raise ValueError(
            f"{len(source.left)} tensors of the checkpoint have no place in the model: {_few(source.left)}"
        )

    limit = config.get("key_scale_max", _NANO_KEY_SCALE_MAX) if layout.is_nano else _LIBRARY_KEY_SCALE_MAX
    if layout.is_nano:
        largest = _fold_nano_clamp(converted, limit)
        if largest > _LATER_NANO_KEY_SCALE_MAX and "key_scale_max" not in config:
            logger.warning(
                "its key scales reach exp(%.1f) and are clamped at exp(%.1f) as in the released nanoMosaics, "
                'unless the configuration says otherwise ("key_scale_max": 5 for its later version)',
                largest,
                limit,
            )
    return _mosaic_config(layout, config, sizes, biased, tied, limit), converted


def _few(names) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _mosaic_config(
    layout: OriginalLayout, config: dict, sizes: _Sizes, biased: bool, tied: bool, limit: float
) -> MosaicConfig:
    if "block_size" not in config:
        logger.warning("its training context is not known; max_position_embeddings is set to 512")
    dropout = config.get("dropout", 0.0)
    end_of_text = 50256 if sizes.vocab_size > 50256 else None
    return MosaicConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.n_embd,
        num_hidden_layers=sizes.n_layer,
        num_attention_heads=sizes.n_head,
        persistent_memory_size=sizes.pmem_size,
        num_persistent_banks=sizes.pmem_count,
        use_bias=biased,
        layer_norm_eps=1e-5,
        attention_dropout=float(config.get("ic_dropout", dropout)),
        hidden_dropout=float(config.get("hd_dropout", dropout)),
        logit_scale=1.0 if layout.is_nano else 1 / math.sqrt(sizes.n_embd),
        max_log_key_scale=limit,
        tie_word_embeddings=tied,
        max_position_embeddings=config.get("block_size", 512),
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )


def load_original_checkpoint(path: str | os.PathLike, config: Mapping | None = None) -> MosaicForCausalLM:
    """Loads a checkpoint of any original implementation, in float32 and evaluation mode.

    Args:
        path (`str` or `os.PathLike`): see [`read_original_checkpoint`].
        config (`Mapping`, *optional*): arguments of the original model that the file lacks.

    Raises:
        ValueError: as [`read_original_checkpoint`] and [`convert_state_dict`], and if `config` contradicts
            the file.
    """
    state_dict, own_config = read_original_checkpoint(path)
    for name in _CONFIG_TYPES.keys() & own_config.keys() & (config or {}).keys():
        if own_config[name] is not None and own_config[name] != config[name]:
            raise ValueError(
                f"{name} is {config[name]!r} in the configuration, but {own_config[name]!r} in {path}"
            )
    known = {name: value for name, value in own_config.items() if value is not None}
    mosaic_config, tensors = convert_state_dict(state_dict, {**(config or {}), **known})
    model = MosaicForCausalLM(mosaic_config)
    model.load_state_dict(tensors)
    return model.eval()


def check_output_folder(folder: str | os.PathLike) -> None:
    """Raises a `ValueError` if `folder` is something else than a new or an empty folder."""
    folder = Path(folder)
    if folder.is_symlink() or folder.exists():
        if not folder.is_dir():
            raise ValueError(f"the output {folder} exists and is not a folder")
        if any(folder.iterdir()):
            raise ValueError(f"the output folder {folder} is not empty")


def save_converted(model: MosaicForCausalLM, folder: str | os.PathLike) -> None:
    """Saves a model into a new folder that appears only when it is complete.

    Raises:
        ValueError: if `folder` is not new or empty, or cannot be written.
    """
    check_output_folder(folder)
    with replacing(Path(folder).resolve()) as partial:
        model.save_pretrained(partial)


__all__ = [
    "check_output_folder",
    "convert_state_dict",
    "load_original_checkpoint",
    "save_converted",
]
