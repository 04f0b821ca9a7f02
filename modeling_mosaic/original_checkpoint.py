"""The files that the original Memory Mosaics code writes: reading them, and where they keep what."""

import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint


@dataclass(frozen=True)
class OriginalLayout:
    """Where one implementation keeps what: `modules` with a weight, `scalars` with one number a head."""

    name: str
    block: str
    embedding: str
    head: str
    final_norm: str
    modules: dict[str, str]
    scalars: dict[str, str]

    @property
    def is_nano(self) -> bool:
        return self.block == "mosaic.h."


def _library(name: str, projection: str, leak: str) -> OriginalLayout:
    modules = {
        "ln1": "contextual_norm",
        "ln2": "persistent_norm",
        "attn.v_featurizer.linear": "contextual_memory.v_proj",
    }
    scalars = {"attn.v_featurizer.coef": "contextual_memory.peek_norm.mix"}
    for unit, memory in (("attn", "contextual_memory"), ("pmem", "persistent_memory")):
        modules[f"{unit}.{projection}"] = f"{memory}.key_extractor.k_proj"
        modules[f"{unit}.c_proj"] = f"{memory}.o_proj"
        scalars[f"{unit}.{leak}"] = f"{memory}.key_extractor.leaky_norm.leak"
        scalars[f"{unit}.kernel_beta"] = f"{memory}.key_extractor.leaky_norm.log_scale"
    scalars["attn.value_beta"] = "contextual_memory.peek_norm.log_scale"
    scalars["pmem.value_beta"] = "persistent_memory.log_value_norm"
    return OriginalLayout(name, "blocks.", "emb", "head", "ln_out", modules, scalars)


def _nano() -> OriginalLayout:
    modules = {
        "ln_1": "contextual_norm",
        "ln_2": "persistent_norm",
        "attn.v_featurizer.W_v": "contextual_memory.v_proj",
    }
    scalars = {
        "attn.v_featurizer.coef": "contextual_memory.peek_norm.mix",
        "attn.v_featurizer.val_scale": "contextual_memory.peek_norm.log_scale",
        "mlp.out_scale": "persistent_memory.log_value_norm",
    }
    for unit, memory in (("attn", "contextual_memory"), ("mlp", "persistent_memory")):
        modules[f"{unit}.k_featurizer.W_k"] = f"{memory}.key_extractor.k_proj"
        modules[f"{unit}.c_proj"] = f"{memory}.o_proj"
        scalars[f"{unit}.k_featurizer.leaky_avg.leaky_key_beta"] = f"{memory}.key_extractor.leaky_norm.leak"
        scalars[f"{unit}.k_featurizer.key_scale"] = f"{memory}.key_extractor.leaky_norm.log_scale"
    return OriginalLayout(
        "nanoMosaics", "mosaic.h.", "mosaic.wte", "lm_head", "mosaic.ln_f", modules, scalars
    )


# By the key that gives each away in a block.
_LAYOUTS = {
    r"blocks\.\d+\.(attn|pmem)\.(k_featurizer|leaky_key_beta)\b": _library(
        "Library regular", "k_featurizer.conv", "leaky_key_beta"
    ),
    r"blocks\.\d+\.(attn|pmem)\.leaky_average\.": _library(
        "Library eft", "leaky_average.linear", "leaky_average.leaky_beta_w_under"
    ),
    r"mosaic\.h\.\d+\.": _nano(),
}


def recognise_layout(state_dict: Mapping[str, torch.Tensor]) -> OriginalLayout:
    """Tells by its names which original implementation wrote a state dict.

    Raises:
        ValueError: if it is of none of them.
    """
    for pattern, layout in _LAYOUTS.items():
        if any(re.match(pattern, key) for key in state_dict):
            return layout
    if any(key.startswith("transformer.") for key in state_dict):
        raise ValueError(
            "this is a GPT-2 checkpoint (keys transformer.*), such as the baselines of the original code, "
            "and no Memory Mosaic"
        )
    if any(key.startswith("model.layers.") for key in state_dict):
        raise ValueError(
            "the keys model.layers.* are of a Hugging Face model, not of the original Memory Mosaics code"
        )
    keys = ", ".join(list(state_dict)[:3]) or "none at all"
    raise ValueError(f"not a checkpoint of the original Memory Mosaics code; its keys are {keys}")


def strip_prefixes(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Removes what torch.compile and DistributedDataParallel put into the names.

    Raises:
        ValueError: for what is no tensor, or one without ordinary memory (sparse, meta), and for names that
            become the same.
    """
    tensors = {}
    for key, tensor in state_dict.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"not a state dict: {key!r} holds a {type(tensor).__name__}, not a tensor")
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "on the meta device" if tensor.is_meta else f"a {tensor.layout} tensor"
            raise ValueError(f"{key!r} is {kind}, expected a dense tensor with values")
        name = re.sub(r"^(module\.)+", "", key.replace("_orig_mod.", ""))
        if name in tensors:
            raise ValueError(f"the checkpoint has {name!r} twice, once of them as {key!r}")
        tensors[name] = tensor
    return tensors


def read_original_checkpoint(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict]:
    """Reads the tensors and the arguments of an original checkpoint.

    Args:
        path (`str` or `os.PathLike`): a `.safetensors` file, or a `.pt` file as the original training scripts
            save it: a dictionary with `model` and `model_args`, or the state dict alone.

    Returns:
        `tuple[dict[str, torch.Tensor], dict]`: the state dict with its names as they are, and the arguments
        of the model, empty where the file has none.

    Raises:
        ValueError: if the file cannot be read, is damaged, could only be unpickled by running code, or holds
            something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    if not isinstance(content.get("model"), Mapping):
        return dict(content), {}
    arguments = content.get("model_args", content.get("config"))
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ValueError(f"the model_args in {path} are a {type(arguments).__name__}, not a dictionary")
    return dict(content["model"]), dict(arguments or {})


def read_original_config(path: str | os.PathLike) -> dict:
    """Reads a JSON file with arguments of an original model.

    Raises:
        ValueError: if it cannot be read or does not hold an object.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"the configuration {path} holds a {type(config).__name__}, not an object")
    return config


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {_first_line(error)}") from error


def _load_pickle(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            # Which torch does not look at.
            damaged = zipfile.ZipFile(path).testzip() if zipfile.is_zipfile(path) else None
        # The unpickler raises whatever the bytes of a damaged file lead it to.
        except Exception as error:
            code = _pickled_code(path, error)
            if code:
                raise ValueError(f"{path} is refused: unpickling it would run code ({code})") from error
            raise ValueError(f"{path} is truncated or no PyTorch checkpoint") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: {damaged} in it does not match its checksum")
    return content


def _pickled_code(path: Path, error: Exception) -> str | None:
    """What a `.pt` file wants imported and run, as far as it shows."""
    try:
        return ", ".join(sorted(get_unsafe_globals_in_checkpoint(path)))
    # Files that are broken, or no zip archives; the unpickler may have met a name before it gave up.
    except Exception:
        match = re.search(r"GLOBAL (\S+)", str(error))
        return match and match[1]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines and not isinstance(error, LookupError) else type(error).__name__


__all__ = [
    "OriginalLayout",
    "read_original_checkpoint",
    "read_original_config",
    "recognise_layout",
    "strip_prefixes",
]
