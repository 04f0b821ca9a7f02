import numpy as np
import pytest
import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from modeling_mosaic import MosaicConfig, MosaicForCausalLM
from mosaic_lab.evaluation.models import Contestant


class Repeater:
    """Predicts what followed the same token last time with probability p, all else evenly."""

    device = torch.device("cpu")

    def __init__(self, vocab_size: int, p: float):
        self.vocab_size, self.p = vocab_size, p

    def __call__(self, input_ids, use_cache):
        logits = torch.full((*input_ids.shape, self.vocab_size), 0.0)
        for row, ids in enumerate(input_ids.tolist()):
            for time, token in enumerate(ids):
                earlier = [place for place in range(time) if ids[place] == token]
                if earlier:
                    odds = self.p / (1 - self.p) * (self.vocab_size - 1)
                    logits[row, time, ids[earlier[-1] + 1]] = np.log(odds)
        return CausalLMOutputWithPast(logits=logits)


@pytest.fixture
def repeater():
    return Contestant("repeater", "repeater, 0 layers, 0 parameters", Repeater(32, 0.9))


@pytest.fixture(scope="session")
def mosaic():
    torch.manual_seed(0)
    config = MosaicConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, logit_scale=1.0
    )
    return Contestant("mosaic", "mosaic, 2 layers, 1 parameters", MosaicForCausalLM(config).eval())
