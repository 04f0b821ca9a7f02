"""A model's card, from what training and evaluation left."""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object
from mosaic_lab.core.shipped import shipped
from mosaic_lab.evaluation.models import describe_architecture
from mosaic_lab.evaluation.report import EVALUATION
from mosaic_lab.training.model import is_mosaic
from mosaic_lab.training.options import ON_HUB
from mosaic_lab.training.report import CURVE_DATA, CURVE_PICTURE, RESULTS

TEMPLATE = shipped("hub_cards") / "model.md"
TASK, UNKNOWN = "text-generation", "not recorded"


def make_model_card(
    folder: Path,
    repo_id: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    license: str,
    evaluation: str | None = None,
) -> ModelCard:
    """The card that the Hub shows, from `hub_cards/model.md`; it says what is not recorded.

    Args:
        folder (`Path`): that `train.py` left; its results, loss curve and trainer's state are read.
        repo_id (`str`): owner/name.
        model (`PreTrainedModel`): the model.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        license (`str`): the Hub's identifier of a licence.
        evaluation (`str`, *optional*): folder that `evaluate.py` left.

    Raises:
        InputError: if this model is not among those of `evaluation`.
    """
    training = read_training(folder)
    recipe = training["recipe"]
    measures = validation_results(training)
    if evaluation is not None:
        measures += evaluation_results(Path(evaluation), folder)
    name = repo_id.split("/")[-1]
    metadata = ModelCardData(
        datasets=[recipe["dataset"]] if training["dataset_from"] == ON_HUB else None,
        eval_results=measures or None,
        library_name="transformers",
        license=license,
        model_name=name,
        pipeline_tag=TASK,
        tags=["memory-mosaics"],
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        repo_id=repo_id,
        is_mosaic=is_mosaic(model.config),
        config=model.config,
        architecture=describe_architecture(model),
        tokenizer_class=type(tokenizer).__name__,
        num_tokens=len(tokenizer),
        dtype=str(model.dtype).removeprefix("torch."),
        context=recipe.get("block_size") or getattr(model.config, "max_position_embeddings", None),
        has_curve=(folder / CURVE_PICTURE).is_file(),
        measures=measures,
        recipe_lines=write_recipe(recipe),
        **training,
    )
    # What the Hub reads is the text.
    return ModelCard(f"{card}\n")


def read_training(folder: Path) -> dict[str, Any]:
    """Reads what `train.py` recorded: `recipe`, `steps`, `tokens_per_step`, `seconds`, and the last losses.

    Of a folder without a recipe, the trainer's state is read; what is unknown is `None`.
    """
    results = read_object(folder / RESULTS) or {}
    curve = read_object(folder / CURVE_DATA) or {}
    state = read_object(folder / TRAINER_STATE_NAME) or {}
    rates = [entry["learning_rate"] for entry in state.get("log_history", []) if "learning_rate" in entry]
    recipe = {}
    if rates:
        recipe = {
            "dataset": UNKNOWN,
            "learning_rate, highest logged": max(rates),
            "per_device_train_batch_size": state["train_batch_size"],
        }
    return {
        "recipe": results.get("recipe", recipe),
        "dataset_from": results.get("dataset_from"),
        "devices": results.get("devices"),
        "earlier_lengths": results.get("earlier_lengths", []),
        "steps": results.get("steps", state.get("global_step")),
        "seconds": results.get("seconds"),
        "tokens_per_step": curve.get("tokens_per_step"),
        "bigram_loss": curve.get("bigram_loss"),
        "train_loss": _last(curve, "train"),
        "validation_loss": _last(curve, "validation"),
        "bits_per_byte": _last(curve, "validation", "bits_per_byte"),
    }


def write_recipe(recipe: dict[str, Any]) -> str:
    """The recipe as YAML that `train.py` reads, without options that are not set."""
    options = {name: value for name, value in recipe.items() if value is not None}
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True, width=1000).rstrip()


def _last(curve: dict[str, Any], name: str, measure: str = "loss") -> float | None:
    values = curve.get(name, {}).get(measure)
    return values[-1] if values else None


def validation_results(training: dict[str, Any]) -> list[EvalResult]:
    """Loss, perplexity and bits per byte on the validation rows at the end of training, if measured."""
    loss = training["validation_loss"]
    if loss is None:
        return []
    measures = {"loss": loss, "perplexity": math.exp(loss)}
    if training["bits_per_byte"] is not None:
        measures["bits per byte"] = training["bits_per_byte"]
    dataset = training["recipe"].get("dataset", UNKNOWN)
    return [
        make_result(dataset, name.replace(" ", "_"), f"{name} of validation rows", value, split="validation")
        for name, value in measures.items()
    ]


def evaluation_results(evaluation: Path, folder: Path) -> list[EvalResult]:
    """The figures of the model in `folder` among those that `evaluate.py` left in `evaluation`.

    Raises:
        InputError: if there are none, or if the model's short name there fits none or several.
    """
    results = read_object(evaluation / EVALUATION)
    if results is None:
        raise InputError(f"evaluation {evaluation}: there is no {EVALUATION} in it")
    names = list(results["architectures"])
    path = folder.absolute().parts
    fitting = [name for name in names if path[-len(Path(name).parts) :] == Path(name).parts]
    if len(fitting) != 1:
        raise InputError(f"evaluation {evaluation}: {folder} is not one of its models: {', '.join(names)}")
    measures = []
    for text in results["texts"]:
        figures = text["models"][fitting[0]]
        for measure in ("loss", "perplexity"):
            value = figures[measure]["mean"]
            measures.append(make_result(text["name"], measure, f"{measure} of documents", value))
    if results["induction"]:
        accuracy = results["induction"][fitting[0]]["accuracy"]["mean"]
        name = "random segments, repeated"
        measures.append(make_result(name, "accuracy", "accuracy on the second copy", accuracy))
    return measures


def make_result(dataset: str, metric: str, name: str, value: float, split: str | None = None) -> EvalResult:
    """A figure as the Hub's metadata have it."""
    return EvalResult(
        task_type=TASK,
        dataset_type=re.sub(r"[^\w./-]+", "-", dataset),
        dataset_name=dataset,
        dataset_split=split,
        metric_type=metric,
        metric_name=name,
        metric_value=value,
    )
