import cmath
import math

import pytest
import torch

from modeling_mosaic.modeling_mosaic import attend, recall_causal
from mosaic_lab.three_moons.network import MoonsNetwork
from mosaic_lab.three_moons.orbits import TRACKED, Skies
from mosaic_lab.three_moons.tracking import HORIZON, predict, track


def recall_slowly(network, positions, horizon=0):
    """Predictions by equations 6 and 2, a number at a time; `horizon` more, each from the one before.

    The kernel of equation 2 is `exp(-beta/2 |k - k_i|^2)`, here times `exp(beta/2 |k_i|^2)`, which equation 3
    leaves out where the keys are equally long.
    """
    matrices = [
        torch.view_as_complex(layer.weight.detach()).tolist()
        for layer in (network.key_proj, network.value_proj, network.out_proj)
    ]
    memories = [[0, 1, 2]] if network.config.num_memories == 1 else [[0], [1], [2]]
    beta, seen, predictions = network.config.beta, [], []
    observations = positions.tolist()

    def multiply(matrix, vector):
        return [sum(w * x for w, x in zip(row, vector, strict=True)) for row in matrix]

    pairs = []
    for step in range(len(observations) + max(0, horizon - 1)):
        position = observations[step] if step < len(observations) else predictions[-1]
        if seen:
            pairs.append((multiply(matrices[0], seen[-1]), multiply(matrices[1], position)))
        seen.append(position)
        key, answer = multiply(matrices[0], position), [0, 0, 0]
        for dimensions in memories:
            weights = []
            for stored, _ in pairs:
                distance = sum(abs(key[d] - stored[d]) ** 2 for d in dimensions)
                length = sum(abs(stored[d]) ** 2 for d in dimensions)
                weights.append(math.exp(-beta / 2 * distance + beta / 2 * length))
            for d in dimensions:
                recalled = sum(w * value[d] for w, (_, value) in zip(weights, pairs, strict=True))
                answer[d] = recalled / sum(weights) if pairs else 0
        predictions.append(multiply(matrices[2], answer))
    return torch.tensor(predictions, dtype=torch.complex128)


@pytest.mark.parametrize("num_memories", [1, 3])
@pytest.mark.parametrize("periods", ["grid", "free"])
def test_predictions_and_loss_against_equations_6_and_2(make_network, num_memories, periods):
    network = make_network(num_memories, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    positions = Skies(1, 120, periods, "train", seed=1)[0]["positions"].to(torch.complex128)
    expected = recall_slowly(network, positions)
    outputs = network(positions[None])
    torch.testing.assert_close(outputs.predictions[0], expected, rtol=1e-9, atol=1e-9)
    errors = torch.view_as_real(expected[:-1] - positions[1:]).flatten().tolist()
    clipped = [min(0.5, max(-0.5, error)) ** 2 for error in errors]
    assert outputs.loss.item() == pytest.approx(sum(clipped) / len(clipped), rel=1e-9)


@pytest.mark.parametrize("num_memories", [1, 3])
@pytest.mark.parametrize("seen", [2, 30])
def test_autoregression_against_equations_6_and_2(make_network, num_memories, seen):
    """Values of predicted positions come from the predictions, and the comparison is not shifted."""
    network = make_network(num_memories, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    positions = Skies(1, 100, "free", "train", seed=2)[0]["positions"].to(torch.complex128)
    expected = recall_slowly(network, positions[:seen], HORIZON)[seen - 1 :]
    torch.testing.assert_close(predict(network, positions[None, :seen])[0], expected, rtol=1e-8, atol=1e-8)
    errors, repeated = track(network, positions[None], [seen])
    following = positions[seen : seen + HORIZON]
    absolute = torch.view_as_real(expected - following).abs().mean()
    assert errors == [pytest.approx(float(absolute), rel=1e-7)]
    absolute = torch.view_as_real(positions[seen - 1] - following).abs().mean()
    assert repeated == [pytest.approx(float(absolute), rel=1e-7)]


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("scaling", [1.0, 7.0])
def test_retrieval_is_equation_2(make_network, heads, scaling):
    """Of the function that the language model uses: with keys of equal length, the Gaussian kernel itself."""
    generator = torch.Generator().manual_seed(0)
    key, value = (torch.randn(2, heads, 9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    key = 1.3 * torch.nn.functional.normalize(key, dim=-1)
    expected = torch.zeros(2, 9, heads, 4, dtype=torch.float64)
    for b in range(2):
        for h in range(heads):
            for t in range(1, 9):
                distances = [float(((key[b, h, t] - key[b, h, i]) ** 2).sum()) for i in range(t)]
                kernel = [math.exp(-scaling / 2 * distance) for distance in distances]
                answer = sum(weight * value[b, h, i] for i, weight in enumerate(kernel)) / sum(kernel)
                expected[b, t, h] = answer
    module = make_network(3)
    recalled = recall_causal(
        module, key[:, :, 1:], key[:, :, :-1], value[:, :, :-1], num_empty=1, scaling=scaling
    )
    torch.testing.assert_close(recalled, expected, rtol=1e-10, atol=1e-10)
    last, _ = attend(module, key[:, :, -1:], key[:, :, :-1], value[:, :, :-1], None, scaling=scaling)
    torch.testing.assert_close(last, expected[:, -1:], rtol=1e-10, atol=1e-10)


def test_identity_weights(make_network):
    """One memory knows after the least common multiple, three after the longest period (section 3)."""
    periods = TRACKED["grid"]["validation"]
    skies = Skies(16, 800, "grid", "validation", 0, periods)
    positions = torch.stack([sky["positions"] for sky in skies])
    # 133 and 267 steps.
    contexts = [60, 200, 250, 290]
    one, repeated = track(make_network(1, identity=True), positions, contexts)
    three, _ = track(make_network(3, identity=True), positions, contexts)
    assert one[:3] == pytest.approx(repeated[:3], rel=0.1) and one[3] < 0.3 * one[2]
    assert three[1] < 0.5 * one[1] and three[2] < 0.5 * one[2] and three[0] > 1.5 * three[1]


def test_rotating_the_sky_rotates_the_prediction(make_network):
    """Complex matrices commute with a common rotation; real 6 x 6 ones would not."""
    network = make_network(3, dtype=torch.float64)
    positions = Skies(2, 60, "free", "train", seed=0)
    batch = torch.stack([sky["positions"] for sky in positions]).to(torch.complex128)
    turn = cmath.exp(0.7j)
    torch.testing.assert_close(network(turn * batch).predictions, turn * network(batch).predictions)


def test_saved_network_is_the_same(make_network, tmp_path):
    network = make_network(1)
    network.save_pretrained(tmp_path)
    loaded = MoonsNetwork.from_pretrained(tmp_path)
    assert loaded.config.num_memories == 1
    batch = Skies(1, 60, "grid", "train", seed=0)[0]["positions"][None]
    torch.testing.assert_close(loaded(batch).predictions, network(batch).predictions)
