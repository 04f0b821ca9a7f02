"""All measurements of `evaluate.py`, and the files that they leave."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from mosaic_lab.core.figures import save_figure
from mosaic_lab.core.files import make_folder, write_arrays, write_json, write_text
from mosaic_lab.evaluation.intervals import bootstrap_weights, ratio_interval
from mosaic_lab.evaluation.losses import row_losses, sequence_losses
from mosaic_lab.evaluation.models import Contestant, check_context, load_contestants
from mosaic_lab.evaluation.options import EvaluationArguments
from mosaic_lab.evaluation.probes import interval_record, measure_halves, measure_induction, repeat_segments
from mosaic_lab.evaluation.prompts import PROMPTS, continue_prompts, format_html, format_markdown
from mosaic_lab.evaluation.report import ARRAYS, RESULTS, bin_positions, draw_positions, format_report
from mosaic_lab.evaluation.texts import Text, load_in_distribution, load_other
from mosaic_lab.training.options import DataArguments

# Documents shorter than this have halves too short to tell anything.
LEAST_TOKENS = 64


def evaluate(models: list[str], evaluation: EvaluationArguments, data: DataArguments) -> None:
    """Measures the models side by side, and writes tables, pictures and their data.

    Models of the same architecture, which differ in their seeds, are averaged where architectures are
    compared; the first model's architecture is what the others are compared with.

    Raises:
        InputError: for models that cannot be loaded or compared, or text that cannot be read or is too short.
    """
    contestants, tokenizer = load_contestants(models, evaluation.device, evaluation.dtype)
    check_context(contestants, longest_row(tokenizer, evaluation, data))
    sizes = evaluation.num_rows, evaluation.num_documents
    texts = [load_in_distribution(data, tokenizer, *sizes)]
    if evaluation.other_text is not None:
        texts.append(load_other(evaluation.other_text, data, tokenizer, *sizes))
    results: dict[str, Any] = {
        "architectures": {contestant.name: contestant.architecture for contestant in contestants},
        "context": data.block_size,
        "texts": [],
        "induction": {},
    }
    arrays: dict[str, np.ndarray] = {}
    for number, text in enumerate(texts):
        measured, curves = measure_text(contestants, text, evaluation)
        results["texts"].append(measured)
        arrays |= {f"text{number}/{name}": curve for name, curve in curves.items()}
    if evaluation.num_segments:
        results["induction"], curves = measure_segments(contestants, tokenizer, evaluation)
        arrays |= {f"induction/{name}": curve for name, curve in curves.items()}
    folder = make_folder(evaluation.output_dir)
    write_json(folder / RESULTS, results)
    write_arrays(folder / ARRAYS, arrays)
    report = format_report(results)
    write_text(folder / "evaluation.md", report)
    save_figure(draw_positions(results, arrays), folder / "positions.png")
    if evaluation.max_new_tokens:
        write_continuations(contestants, tokenizer, evaluation, folder)
    print(f"{report}\nin {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def longest_row(
    tokenizer: PreTrainedTokenizerBase, evaluation: EvaluationArguments, data: DataArguments
) -> int:
    """Tokens of the longest row that a model will see."""
    lengths = [data.block_size]
    if evaluation.num_segments:
        lengths.append(2 * evaluation.segment_size + 1)
    if evaluation.max_new_tokens:
        longest = max(
            len(tokenizer(prompt)["input_ids"]) for prompts in PROMPTS.values() for prompt in prompts
        )
        lengths.append(longest + evaluation.max_new_tokens)
    return max(lengths)


def measure_text(
    contestants: list[Contestant], text: Text, evaluation: EvaluationArguments
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Losses by document, by position and by half of all models on one text.

    Returns:
        `tuple[dict, dict]`: the figures; by model, its mean loss at each position, `(time - 1,)`, and by
        architecture other than the first one's, the difference to that by stretch of 16 positions, `(3,
        stretches)`, mean and ends of the 95% interval.
    """
    weights_SD = bootstrap_weights(len(text.documents_N), evaluation.evaluation_seed)
    weights_SN = bootstrap_weights(len(text.rows_NT), evaluation.evaluation_seed)
    num_tokens_D = np.array([len(document) - 1 for document in text.documents_N])
    long = [number for number, document in enumerate(text.documents_N) if len(document) >= LEAST_TOKENS]
    weights_SH = bootstrap_weights(len(long), evaluation.evaluation_seed) if long else None
    by_document, by_row, figures, curves = {}, {}, {}, {}
    for contestant in contestants:
        model, size, label = contestant.model, evaluation.batch_size, f"{contestant.name}, {text.name}"
        losses_D = sequence_losses(model, text.documents_N, size, label)
        by_document[contestant.name] = np.array([losses.sum() for losses in losses_D])
        by_row[contestant.name] = row_losses(model, text.rows_NT, size, label)
        loss = interval_record(by_document[contestant.name], num_tokens_D, weights_SD)
        figures[contestant.name] = {
            "loss": loss,
            "perplexity": {name: float(np.exp(value)) for name, value in loss.items()},
            "loss_per_character": float(by_document[contestant.name].sum()) / text.num_characters,
        }
        if long:
            halved, whole = ([values[number] for number in long] for values in (text.documents_N, losses_D))
            figures[contestant.name] |= measure_halves(contestant, halved, whole, size, weights_SH)
        curves[contestant.name] = by_row[contestant.name].mean(0)
    differences = {}
    for architecture, difference_D in differences_of(contestants, by_document).items():
        differences[architecture] = interval_record(difference_D, num_tokens_D, weights_SD)
    for architecture, difference_NT in differences_of(contestants, by_row).items():
        interval = ratio_interval(bin_positions(difference_NT)[1], np.ones(len(difference_NT)), weights_SN)
        curves[f"difference/{architecture}"] = np.stack(interval)
    measured = {
        "name": text.name,
        "num_documents": len(text.documents_N),
        "num_tokens": int(num_tokens_D.sum()),
        "num_rows": len(text.rows_NT),
        "models": figures,
        "differences": differences,
        "stretches": measure_stretches(contestants, by_row, weights_SN),
    }
    return measured, curves


def differences_of(contestants: list[Contestant], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each architecture but the first, its models' mean minus that of the first one's, unit by unit."""
    members: dict[str, list[np.ndarray]] = {}
    for contestant in contestants:
        members.setdefault(contestant.architecture, []).append(values[contestant.name])
    (_, reference), *others = ((name, np.mean(values, 0)) for name, values in members.items())
    return {name: mean - reference for name, mean in others}


def measure_stretches(
    contestants: list[Contestant], by_row: dict[str, np.ndarray], weights_SN: np.ndarray
) -> list[dict[str, Any]]:
    """Losses and differences by stretch of the context: 1 to 50 tokens behind, to 100, to 200, and so on.

    Returns:
        `list[dict]`: `first` and `last` number of tokens behind, `models` and `differences`, means and
        intervals over rows.
    """
    time = next(iter(by_row.values())).shape[1]
    edges = [0, 50]
    while 2 * edges[-1] < time:
        edges.append(2 * edges[-1])
    edges = [edge for edge in edges if edge < time] + [time]
    stretches = []
    for start, end in zip(edges, edges[1:], strict=False):
        inside = {name: losses_NT[:, start:end].sum(1) for name, losses_NT in by_row.items()}
        counts_N = np.full(len(weights_SN[0]), end - start)
        record = {"first": start + 1, "last": end}
        for name, values in (("models", inside), ("differences", differences_of(contestants, inside))):
            record[name] = {
                key: interval_record(totals_N, counts_N, weights_SN) for key, totals_N in values.items()
            }
        stretches.append(record)
    return stretches


def measure_segments(
    contestants: list[Contestant], tokenizer: PreTrainedTokenizerBase, evaluation: EvaluationArguments
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The induction probe of all models: figures, and losses on the second copy by token."""
    seed = evaluation.evaluation_seed
    ids_NT = repeat_segments(tokenizer, evaluation.num_segments, evaluation.segment_size, seed)
    weights_SN = bootstrap_weights(len(ids_NT), seed)
    figures, curves = {}, {}
    for contestant in contestants:
        figures[contestant.name], curves[contestant.name] = measure_induction(
            contestant, ids_NT, evaluation.batch_size, weights_SN
        )
    return figures, curves


def write_continuations(
    contestants: list[Contestant],
    tokenizer: PreTrainedTokenizerBase,
    evaluation: EvaluationArguments,
    folder: Path,
) -> None:
    """Leaves `prompts.json`, `.md` and `.html`: how each model continues the 24 prompts."""
    continuations = {
        contestant.name: continue_prompts(
            contestant,
            tokenizer,
            evaluation.max_new_tokens,
            evaluation.temperature,
            evaluation.evaluation_seed,
        )
        for contestant in contestants
    }
    write_json(folder / "prompts.json", continuations)
    write_text(folder / "prompts.md", format_markdown(continuations))
    write_text(folder / "prompts.html", format_html(continuations))
