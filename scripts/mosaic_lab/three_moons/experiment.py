"""Three moons: each run trains one network and keeps the arrays that the pictures show."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.three_moons.analysis import PURE, purity, read_errors
from mosaic_lab.three_moons.network import NUM_MOONS, MoonsConfig, MoonsNetwork
from mosaic_lab.three_moons.options import CONTENTS, MoonsArguments
from mosaic_lab.three_moons.orbits import TRACKED, Skies
from mosaic_lab.three_moons.report import write_report
from mosaic_lab.three_moons.tracking import HORIZON, track
from mosaic_lab.training.one_run import finish, run_options, train
from mosaic_lab.training.options import TrainingArguments
from mosaic_lab.training.report import extract_curve

# Steps of one sequence for which the contents and answers of its memories are kept.
SHOWN = 300
# Tracked sequences come from another seed than those of the validation loss.
TRACKED_SEED = 1_000_000


def plan_runs(moons: MoonsArguments, arguments: TrainingArguments) -> list[Run]:
    """Plans a run for each network, optimiser and seed; networks of one seed train on the same sequences.

    Raises:
        InputError: if `max_steps`, over which the learning rate decays, is not given.
    """
    if arguments.max_steps < 1:
        raise InputError(f"max_steps must be at least 1, not {arguments.max_steps}")
    names = ("periods", "length", "min_learning_rate", "num_validation", "num_tracked", "context_step")
    common = {name: getattr(moons, name) for name in names} | run_options(arguments)
    return [
        Run(
            f"memories{num_memories}-{optimizer}-seed{seed}",
            {"num_memories": num_memories, "optimizer": optimizer, "seed": seed, **common},
        )
        for seed, optimizer, num_memories in product(moons.seeds, moons.optimizers, moons.num_memories)
    ]


def run_one(run: Run, folder: Path, moons: MoonsArguments, arguments: TrainingArguments) -> dict[str, Any]:
    """Trains, tracks and inspects one network; leaves it, its curves and its matrices in `folder`.

    Returns:
        `dict`: the loss of the last tenth of the training steps and of validation, the purity of three
        memories, and the errors of `read_errors` on the periods of `TRACKED`, with that of repetition.
    """
    options = run.options
    set_seed(options["seed"])
    network = MoonsNetwork(MoonsConfig(num_memories=options["num_memories"]))
    sizes = {
        "train": options["max_steps"] * options["per_device_train_batch_size"],
        "validation": options["num_validation"],
    }
    datasets = tuple(
        Skies(size, options["length"], options["periods"], split, options["seed"])
        for split, size in sizes.items()
    )
    changes = {"seed": options["seed"], "label_names": ["positions"], "prediction_loss_only": True}
    optimizers = build_optimizer(network, options)
    trainer = train(network, arguments, folder, datasets, changes, optimizers=optimizers)
    validation_loss = trainer.evaluate()["eval_loss"]
    curve = extract_curve(trainer.state.log_history, 1, None)
    network.eval()
    arrays, errors = inspect_network(network, options)
    arrays |= {f"{name}_{key}": np.array(curve[name][key]) for name in sizes for key in ("step", "loss")}
    write_arrays(folder / ARRAYS, arrays)
    losses = curve["train"]["loss"]
    result = {
        "train_loss": float(np.mean(losses[-max(1, len(losses) // 10) :])),
        "validation_loss": validation_loss,
        "purity": None,
        "errors": errors,
        "seconds": trainer.seconds,
    }
    if network.config.num_memories == 3:
        result["purity"] = purity(arrays["w_phi"], arrays["w_psi"])
        result["disentangled"] = result["purity"] > PURE
    finish(trainer, folder)
    return result


def build_optimizer(
    network: MoonsNetwork, options: dict[str, Any]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Builds Adam with a learning rate that decays linearly, with or without correction of its bias.

    Correction divides the average of the gradients by `1 - beta1^t` and the root of that of their squares by
    `sqrt(1 - beta2^t)`. Without it, as in the original, steps are longer by the factor
    `(1 - beta1^t) / sqrt(1 - beta2^t)` (but for epsilon): with .9 and .999, 3.2 at first, 6.6 at most.
    """
    beta1, beta2 = options["adam_beta1"], options["adam_beta2"]
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=options["learning_rate"],
        betas=(beta1, beta2),
        eps=options["adam_epsilon"],
        weight_decay=options["weight_decay"],
    )
    end = options["min_learning_rate"] / options["learning_rate"]
    is_corrected = options["optimizer"] == "adam"

    def factor(step: int) -> float:
        decayed = 1 + (end - 1) * step / options["max_steps"]
        t = step + 1
        return decayed if is_corrected else decayed * (1 - beta1**t) / (1 - beta2**t) ** 0.5

    return optimizer, LambdaLR(optimizer, factor)


@torch.no_grad()
def inspect_network(
    network: MoonsNetwork, options: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Measures tracking errors on known and held-out periods; reads matrices and memories of a sequence.

    Returns:
        `tuple[dict, dict]`: arrays, and the errors where networks should differ.
    """
    arrays = {
        name: torch.view_as_complex(layer.weight).cpu().numpy()
        for name, layer in (
            ("w_phi", network.key_proj),
            ("w_psi", network.value_proj),
            ("w_z", network.out_proj),
        )
    }
    length, step = options["length"], options["context_step"]
    contexts = range(max(2, step), length - HORIZON + 1, step)
    arrays["context"] = np.array(contexts)
    errors = {}
    for split, periods in TRACKED[options["periods"]].items():
        skies = Skies(options["num_tracked"], length, options["periods"], split, TRACKED_SEED, periods)
        position_BTM = torch.stack([sky["positions"] for sky in skies]).to(network.device)
        error_N, repeated_N = track(network, position_BTM, contexts)
        arrays |= {f"{split}_error": np.array(error_N), f"{split}_repeated": np.array(repeated_N)}
        errors[split] = read_errors(contexts, error_N, periods, length)
        errors[split]["repeated"] = float(np.mean(repeated_N))
    # Of the held-out periods, which come last.
    one_1TM = position_BTM[:1]
    contents = network.keys(one_1TM), network.values(one_1TM[:, 1:]), network.recall(one_1TM).transpose(1, 2)
    for name, states_1HTD in zip(CONTENTS, contents, strict=True):
        state_TM2 = states_1HTD[0, :, :SHOWN].transpose(0, 1).reshape(-1, NUM_MOONS, 2)
        arrays[name] = torch.view_as_complex(state_TM2).cpu().numpy()
    return arrays, errors


EXPERIMENT = Experiment(
    description="Trains memories to track three moons.",
    groups=(MoonsArguments, TrainingArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
