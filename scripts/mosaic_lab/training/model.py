"""Models to train: new ones from a preset or a config JSON, trained ones from a folder or the Hub."""

import os
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)
import mosaic_lab.ablations  # noqa: F401  (and those that experiments need)
from mosaic_lab.core.devices import check_dtype
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object
from mosaic_lab.core.hub_access import first_line, is_only_local
from mosaic_lab.core.shipped import shipped
from mosaic_lab.training.tokenizer import check_json, load_tokenizer
from mosaic_lab.training.weights import find_nonfinite

PRESETS = shipped("configuration") / "model"
# Vocabularies are padded to a multiple of this, which matrix kernels like: GPT-2's 50,257 tokens to 50,304.
VOCABULARY_MULTIPLE = 64
MOSAICS = ("mosaic", "mosaic_v2")
_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)


def list_presets() -> list[str]:
    """Names of the shipped configs."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def is_mosaic(config: PreTrainedConfig) -> bool:
    """Whether it is that of a Memory Mosaic, of any kind: a model without positions, whose code travels."""
    return config.model_type in MOSAICS


def is_trained(name: str) -> bool:
    """Whether `name` is that of a trained model, with weights, and not of a preset or a config JSON."""
    path = Path(name)
    if path.is_dir():
        return any((path / weights).exists() for weights in _WEIGHTS)
    return not path.exists() and path.suffix != ".json" and not (PRESETS / f"{name}.json").exists()


def build_model(
    name: str, tokenizer: PreTrainedTokenizerBase, block_size: int, attn_implementation: str | None = None
) -> PreTrainedModel:
    """The model that `name` tells, ready for the tokens of `tokenizer`.

    Args:
        name (`str`): a preset, a config JSON, a folder, or a Hub id.
        tokenizer (`PreTrainedTokenizerBase`): gives the special tokens, and the least size of the vocabulary,
            which is padded up to a multiple of 64; a larger one of the preset stays.
        block_size (`int`): context to train with, in tokens.
        attn_implementation (`str`, *optional*): as in `from_pretrained`.

    Raises:
        InputError: if there is no such model, if its config or weights are damaged, or if it has fewer
            positions than `block_size`.
    """
    if is_trained(name):
        try:
            model = load_trained(name, attn_implementation=attn_implementation)
        except InputError as error:
            if Path(name).exists():
                raise
            raise InputError(f"{error}; presets are {', '.join(list_presets())}") from error
    else:
        config = read_config(name)
        config.vocab_size = max(config.vocab_size, _padded(len(tokenizer)))
        if is_mosaic(config):
            config.max_position_embeddings = block_size
        model = _from_config(name, config, attn_implementation)
    positions = getattr(model.config, "max_position_embeddings", None)
    if not is_mosaic(model.config) and positions is not None and positions < block_size:
        raise InputError(f"model {name}: its {positions} positions are fewer than block_size {block_size}")
    if model.config.vocab_size < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=VOCABULARY_MULTIPLE)
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, token, getattr(tokenizer, token))
        setattr(model.generation_config, token, getattr(tokenizer, token))
    # Rows that end early are filled with it; as the config's pad token it would lose its embedding.
    model.generation_config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    return model


def load_trained(name: str, **options) -> PreTrainedModel:
    """Loads a model as `AutoModelForCausalLM.from_pretrained` does.

    Raises:
        InputError: if the model cannot be loaded, or if weights are missing in it, NaN or infinite.
    """
    check_dtype(options.get("dtype", "auto"))
    if Path(name).is_absolute() and not Path(name).exists():
        raise InputError(f"model {name}: there is no such folder")
    check_json(name)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            name, output_loading_info=True, local_files_only=is_only_local(name), **options
        )
    # Damaged or hostile files lead transformers to errors of any kind.
    except Exception as error:
        raise InputError(f"model {name}: cannot be loaded: {first_line(error)}") from error
    if report["missing_keys"]:
        raise InputError(
            f"model {name}: weights are missing: {', '.join(sorted(report['missing_keys'])[:3])}, ..."
        )
    nonfinite = find_nonfinite(model)
    if nonfinite:
        raise InputError(f"model {name}: weights are NaN or infinite: {', '.join(nonfinite[:3])}, ...")
    return model


def load_with_tokenizer(name: str, **options) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a trained model and its tokenizer.

    Args:
        name (`str`): a folder, or a Hub id.
        options: further ones for `from_pretrained` of the model.

    Raises:
        InputError: if one of them cannot be loaded, or if the tokenizer is larger than the vocabulary.
    """
    model = load_trained(name, **options)
    tokenizer, _ = load_tokenizer(name)
    num_embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > num_embeddings:
        raise InputError(
            f"model {name}: its tokenizer has {len(tokenizer):,} tokens, "
            f"its vocabulary only {num_embeddings:,}"
        )
    return model, tokenizer


def _padded(size: int) -> int:
    return -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def find_config(name: str) -> Path:
    """The file of a config: that of a preset such as `mosaic-1` or `regbench/small/gpt2`, or a path."""
    preset = PRESETS / f"{name}.json"
    return preset if preset.exists() else Path(name)


def read_config(name: str) -> PreTrainedConfig:
    """The config of a new model: that of a preset, or a config JSON.

    Raises:
        InputError: if there is none, or if it is damaged.
    """
    path = find_config(name)
    if path.is_file():
        read_object(path)
    try:
        return AutoConfig.from_pretrained(os.fspath(path))
    # As in `load_trained`.
    except Exception as error:
        raise InputError(f"model {name}: {path}: {' '.join(str(error).split())}") from error


def _from_config(name: str, config: PreTrainedConfig, attn_implementation: str | None) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation)
    except (ValueError, ImportError) as error:
        raise InputError(f"model {name}: {first_line(error)}") from error


@torch.no_grad()
def check_document_masking(model: PreTrainedModel) -> None:
    """Makes sure that a model keeps the documents of a row apart where `position_ids` tell that they begin.

    Some have no positions, others take them for positions only; all of these read a row as one text.

    Raises:
        InputError: if what comes before a document changes what the model says of it.
    """
    if "flash" in (model.config._attn_implementation or ""):
        # It takes borders from positions in every model, and does not run where the model is now, on a CPU.
        return
    ids_BT, positions_1T = torch.tensor([[1, 3, 1, 2], [2, 3, 1, 2]]), torch.tensor([[0, 0, 1, 2]])
    is_training = model.training
    logits_BTV = model.eval()(
        input_ids=ids_BT, position_ids=positions_1T.expand(2, -1), use_cache=False
    ).logits
    model.train(is_training)
    first_TV, second_TV = logits_BTV[:, 1:]
    if not torch.allclose(first_TV, second_TV, atol=1e-4):
        raise InputError(
            f"document_masking: a model of type {model.config.model_type} reads a row as one text"
        )
