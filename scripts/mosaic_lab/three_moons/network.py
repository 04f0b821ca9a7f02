"""The networks of the paper's figure 3: one layer of memories that predicts where three moons will be.

Shapes: B batch, T time, M moons, H memories, D real dimensions of each, two a complex one.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from modeling_mosaic.modeling_mosaic import attend, recall_causal

NUM_MOONS = 3
# Errors are clipped there: the network need not excuse itself for what an empty memory cannot know.
LARGEST_ERROR = 0.5


class MoonsConfig(PreTrainedConfig):
    """`num_memories` memories (1 or 3) that share the three complex dimensions, and `beta` of equation 3."""

    model_type = "three_moons"
    num_memories: int = 3
    beta: float = 50.0


class ComplexLinear(nn.Module):
    """A complex matrix of 3 x 3, and so 18 real numbers where a real matrix of 6 x 6 would have 36."""

    def __init__(self):
        super().__init__()
        # Real and imaginary parts, as optimisers and files know real numbers best.
        self.weight = nn.Parameter(torch.empty(NUM_MOONS, NUM_MOONS, 2))

    def forward(self, position_BTM: torch.Tensor) -> torch.Tensor:
        return position_BTM @ torch.view_as_complex(self.weight).T


class MoonsNetwork(PreTrainedModel):
    """`z_T = W_z y_T`, where `y_T` is what memories with `k_T = W_phi x_T` and `v_T = W_psi x_{T+1}` recall.

    That is the paper's equations 6 and 3. The memories are those of the language model: the same
    [`recall_causal`] unrolls them in time.
    """

    config: MoonsConfig
    config_class = MoonsConfig
    _supports_sdpa = True
    attention_dropout = 0.0
    is_causal = True

    def __init__(self, config: MoonsConfig):
        super().__init__(config)
        self.key_proj, self.value_proj, self.out_proj = (ComplexLinear() for _ in range(3))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As in the original: a uniform real 6 x 6 matrix, projected onto the complex 3 x 3 ones."""
        if isinstance(module, ComplexLinear):
            bound = (2 * NUM_MOONS) ** -0.5
            halves = torch.empty(2, *module.weight.shape).uniform_(-bound, bound)
            init.copy_(module.weight, halves.mean(0))

    def keys(self, position_BTM: torch.Tensor) -> torch.Tensor:
        """What the memories are asked by and filed under, real `(batch, memories, time, D)`."""
        return self._split(self.key_proj(position_BTM))

    def values(self, position_BTM: torch.Tensor) -> torch.Tensor:
        """What the memories are to predict, of the observations that follow the keys'; shaped alike."""
        return self._split(self.value_proj(position_BTM))

    def _split(self, states_BTM: torch.Tensor) -> torch.Tensor:
        real_BTC = torch.view_as_real(states_BTM).flatten(2)
        return real_BTC.unflatten(-1, (self.config.num_memories, -1)).transpose(1, 2)

    def combine(self, recalled_BTHD: torch.Tensor) -> torch.Tensor:
        """The complex prediction `(batch, time, 3)` from what the memories recall."""
        return self.out_proj(torch.view_as_complex(recalled_BTHD.reshape(*recalled_BTHD.shape[:2], -1, 2)))

    def recall(self, position_BTM: torch.Tensor) -> torch.Tensor:
        """What each memory predicts at each time, real `(batch, time, memories, D)`; 0 while it is empty."""
        key_BHTD, value_BHtD = self.keys(position_BTM), self.values(position_BTM[:, 1:])
        return recall_causal(
            self, key_BHTD[:, :, 1:], key_BHTD[:, :, :-1], value_BHtD, num_empty=1, scaling=self.config.beta
        )

    def ask(self, query_BH1D: torch.Tensor, key_BHTD: torch.Tensor, value_BHTD: torch.Tensor) -> torch.Tensor:
        """What memories with these pairs recall for one query each, `(batch, 1, memories, D)`."""
        return attend(self, query_BH1D, key_BHTD, value_BHTD, None, scaling=self.config.beta)[0]

    def forward(self, positions: torch.Tensor) -> ModelOutput:
        """
        Args:
            positions (`torch.Tensor` of shape `(batch, time, 3)`): complex numbers of length 1.

        Returns:
            `ModelOutput`: `loss`, the mean square of the differences between prediction and next position,
            clipped to [-0.5, 0.5], over their real and imaginary parts; `predictions` `(batch, time, 3)`.
        """
        prediction_BTM = self.combine(self.recall(positions))
        difference = torch.view_as_real(prediction_BTM[:, :-1] - positions[:, 1:])
        loss = difference.clamp(-LARGEST_ERROR, LARGEST_ERROR).square().mean()
        return ModelOutput(loss=loss, predictions=prediction_BTM)
