"""The repository of a trained model: weights, configs, tokenizer, the code that it needs, and its card."""

import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_text
from mosaic_lab.hub.card import make_model_card
from mosaic_lab.training.model import load_with_tokenizer
from mosaic_lab.training.report import CURVE_DATA, CURVE_PICTURE


def prepare_model(
    folder: Path, target: Path, repo_id: str, license: str, evaluation: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Saves the model of `folder` anew in `target`, with today's code, and writes its card.

    What training left besides, such as checkpoints and pickled options, stays behind.

    Args:
        folder (`Path`): of a trained model.
        target (`Path`): an empty folder.
        repo_id (`str`): owner/name, for the card.
        license (`str`): the Hub's identifier of a licence.
        evaluation (`str`, *optional*): folder that `evaluate.py` left.

    Returns:
        `tuple[PreTrainedModel, PreTrainedTokenizerBase]`: what was saved.

    Raises:
        InputError: if there is no model or no tokenizer in `folder`, or no such evaluation.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise InputError(f"folder {folder}: there is no model in it ({CONFIG_NAME})")
    model, tokenizer = load_with_tokenizer(str(folder), dtype="auto")
    model.eval()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for name in (CURVE_DATA, CURVE_PICTURE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    card = make_model_card(folder, repo_id, model, tokenizer, license, evaluation)
    write_text(target / "README.md", str(card))
    return model, tokenizer
