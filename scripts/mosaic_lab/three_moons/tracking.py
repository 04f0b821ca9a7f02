"""How well a network tells the next positions, by the number of observations so far (figures 4 and 5).

Shapes: B batch, T time, M moons, H memories, D real dimensions of a memory, N context lengths.
"""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from mosaic_lab.three_moons.network import MoonsNetwork

# So many positions are predicted, each from the predictions before it.
HORIZON = 25


@torch.no_grad()
def predict(network: MoonsNetwork, position_BTM: torch.Tensor, num_steps: int = HORIZON) -> torch.Tensor:
    """The next `num_steps` positions, each prediction being the next observation.

    A prediction completes the pair of the step before it, whose value is `W_psi` of that prediction, and asks
    for the next one. The original evaluation left such values at zero.

    Args:
        network (`MoonsNetwork`): with its weights.
        position_BTM (`torch.Tensor` of shape `(batch, observations, 3)`): complex, two observations at least.
        num_steps (`int`): how many.

    Returns:
        `torch.Tensor`: complex `(batch, num_steps, 3)`.
    """
    seen = position_BTM.shape[1]
    known_BHtD, value_BHtD = network.keys(position_BTM), network.values(position_BTM[:, 1:])
    key_BHTD, value_BHTD = (
        torch.cat([pairs, pairs.new_empty(*pairs.shape[:2], num_steps, pairs.shape[3])], 2)
        for pairs in (known_BHtD, value_BHtD)
    )
    predictions = []
    for stored in range(seen - 1, seen - 1 + num_steps):
        recalled_B1HD = network.ask(
            key_BHTD[:, :, stored : stored + 1], key_BHTD[:, :, :stored], value_BHTD[:, :, :stored]
        )
        predictions.append(network.combine(recalled_B1HD))
        value_BHTD[:, :, stored : stored + 1] = network.values(predictions[-1])
        key_BHTD[:, :, stored + 1 : stored + 2] = network.keys(predictions[-1])
    return torch.cat(predictions, 1)


def absolute_error(prediction_BTM: torch.Tensor, position_BTM: torch.Tensor) -> float:
    """Mean absolute difference of real and imaginary parts."""
    return float(torch.view_as_real(prediction_BTM - position_BTM).abs().mean())


def track(
    network: MoonsNetwork, position_BTM: torch.Tensor, context_N: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Errors of the next 25 positions after so many observations, and those of repeating the last one.

    Prediction j after n observations is compared with observation n + j; the original was off by one step.

    Args:
        network (`MoonsNetwork`): with its weights.
        position_BTM (`torch.Tensor` of shape `(batch, time, 3)`): sequences with the same periods.
        context_N (`Sequence[int]`): numbers of observations, from 2 to `time - 25`.

    Returns:
        `tuple[list[float], list[float]]`: mean absolute errors of the network and of repetition, a number for
        each context.
    """
    errors, repeated = [], []
    for context in tqdm(context_N, desc="tracking", leave=False):
        following_BTM = position_BTM[:, context : context + HORIZON]
        errors.append(absolute_error(predict(network, position_BTM[:, :context]), following_BTM))
        repeated.append(absolute_error(position_BTM[:, context - 1 : context], following_BTM))
    return errors, repeated
