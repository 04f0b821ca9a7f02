import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)
from mosaic_lab.attention_maps.experiment import read_coefficients
from mosaic_lab.attention_maps.scores import average_scores, read_last_scores
from mosaic_lab.attention_maps.windows import spread_windows
from mosaic_lab.core.errors import InputError

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "mosaic": {"persistent_memory_size": 20},
    # A window and a delay shorter than the context.
    "mosaic_v2": {"short_memory_size": 9, "long_memory_delay": 5, "long_memory_delay_range": (5, 5)},
    "gpt2": {"n_positions": 300},
    "llama": {"intermediate_size": 40, "num_key_value_heads": 2},
    "bloom": {},
}
CONTEXT = 23
# Of a sum of float32 weights, each rounded, as is each term of the sum that softmax divides by.
SUM_TOLERANCE = CONTEXT * torch.finfo(torch.float32).eps


def build(model_type, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **CONFIGS.get(model_type, {}), **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # Attention of new models is nearly uniform: a wrong position would not show.
                parameter.normal_(std=0.3)
    return model


def draw_ids(batch, context=CONTEXT):
    return torch.randint(0, 50, (batch, context), generator=torch.Generator().manual_seed(1))


def read_all_scores(model, ids_BT):
    """The last row of the full scores, without a cache: `(batch, layers, heads, context)`."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(ids_BT, output_attentions=True, use_cache=False).attentions
    return torch.stack([weight_BHTT[:, :, -1].double() for weight_BHTT in weights], 1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunk_size", [1, 5, CONTEXT - 1, None])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_scores_are_the_last_row_of_all_scores(model_type, chunk_size, batch):
    model, ids_BT = build(model_type), draw_ids(batch)
    score_BNHT = read_last_scores(model, ids_BT, chunk_size)
    # The second mosaic has four units in each of two memories.
    num_heads = 8 if model_type == "mosaic_v2" else 4
    assert score_BNHT.shape == (batch, 2, num_heads, CONTEXT) and score_BNHT.dtype == torch.float64
    torch.testing.assert_close(score_BNHT, read_all_scores(model, ids_BT), atol=2e-6, rtol=2e-4)
    sum_BNH = score_BNHT.sum(-1)
    torch.testing.assert_close(sum_BNH, torch.ones_like(sum_BNH), rtol=0, atol=SUM_TOLERANCE)
    # What is compared differs from position to position.
    assert (score_BNHT.amax(-1) > 1.5 / CONTEXT).all()


def test_a_mosaics_last_pair_is_still_to_come():
    score_BNHT = read_last_scores(build("mosaic"), draw_ids(2), None)
    assert (score_BNHT[..., -1] == 0).all() and (score_BNHT[..., :-1] > 0).all()
    assert (read_last_scores(build("llama"), draw_ids(2), None)[..., -1] > 0).all()


def test_units_of_the_second_mosaic_see_the_latest_pairs_or_older_ones():
    is_seen_T = (read_last_scores(build("mosaic_v2"), draw_ids(2), None) > 0).flatten(0, 1)
    short, long = is_seen_T[:, :4], is_seen_T[:, 4:]
    assert (short == (torch.arange(CONTEXT) >= CONTEXT - 10) * (torch.arange(CONTEXT) < CONTEXT - 1)).all()
    assert (long == (torch.arange(CONTEXT) <= CONTEXT - 1 - 5)).all()


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 7), (4, None), (100, 22)])
def test_mean_and_spread_over_sequences(batch_size, chunk_size):
    model = build("mosaic")
    windows = spread_windows(draw_ids(1, 90)[0].numpy(), CONTEXT, 10)
    mean_NHT, std_NHT = average_scores(model, windows, batch_size, chunk_size, "")
    expected = read_all_scores(model, torch.from_numpy(windows.batch(0, 10))).numpy()
    np.testing.assert_allclose(mean_NHT, expected.mean(0), atol=2e-6)
    np.testing.assert_allclose(std_NHT, expected.std(0), atol=2e-6)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and not func.is_view:
                self.num_elements = max(self.num_elements, tensor.numel())
        return result


@pytest.mark.parametrize("chunk_size", [None, 16])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_no_scores_of_all_positions(model_type, chunk_size):
    """Four times the context takes four times the memory, where scores of all positions take 16 times."""
    model = build(model_type, hidden_size=16, num_hidden_layers=1)
    largest = []
    for context in (65, 257):
        with LargestTensor() as mode:
            read_last_scores(model, draw_ids(1, context), chunk_size)
        largest.append(mode.num_elements)
    with LargestTensor() as mode:
        read_all_scores(model, draw_ids(1, 257))
    assert largest[1] <= 4.1 * largest[0] and largest[1] < mode.num_elements / 3
    assert mode.num_elements >= 4 * 257 * 257


def test_coefficients():
    model = build("mosaic")
    with torch.no_grad():
        model.model.layers[1].contextual_memory.key_extractor.leaky_norm.leak.copy_(
            torch.tensor([0.0, -0.1, 0.2, 1.0])
        )
    coefficient_NH = read_coefficients(model)
    np.testing.assert_allclose(coefficient_NH[0], np.exp(-np.linspace(0.5, 5, 4)), rtol=1e-6)
    np.testing.assert_allclose(coefficient_NH[1], np.exp([0, -1, -2, -10]), rtol=1e-6)


@pytest.mark.parametrize("model_type", ["rwkv", "mamba"])
def test_models_without_attention_are_refused(model_type):
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, vocab_size=50, hidden_size=16, num_hidden_layers=2)
    ).eval()
    with pytest.raises(InputError, match=f"{model_type}: "):
        read_last_scores(model, draw_ids(1), None)


def test_windowed_attention_is_refused():
    model = build("mistral", sliding_window=8, num_key_value_heads=2, intermediate_size=40)
    with pytest.raises(InputError, match="no attention scores over all 23 positions"):
        read_last_scores(model, draw_ids(1), None)
