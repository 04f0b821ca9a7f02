import pytest
import torch

from mosaic_lab.three_moons.network import MoonsConfig, MoonsNetwork


@pytest.fixture
def make_network():
    """Networks with random weights, or with the identity for all three matrices."""

    def make(num_memories, identity=False, seed=0, dtype=torch.float32):
        torch.manual_seed(seed)
        network = MoonsNetwork(MoonsConfig(num_memories=num_memories)).eval().to(dtype)
        if identity:
            with torch.no_grad():
                for layer in (network.key_proj, network.value_proj, network.out_proj):
                    layer.weight.zero_()
                    layer.weight[range(3), range(3), 0] = 1
        return network

    return make
