"""What a short-term memory, of the second model, adds to a portable memory.

Shapes: L layers, H units a layer, N pairs of the long-term memory, W columns, D head size.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from .tokens import NO_TOKEN, NUMBER

# Of a text that is over, or longer ago than any short-term memory reaches.
OLD = torch.iinfo(torch.int32).max


class Window(NamedTuple):
    """The latest pairs of the text that continues, with the short-term memory's own keys and values.

    Its columns are consecutive tokens, of which the latest complete pair is the last. What was forgotten has
    left an empty column, since the others must stay as old as they are.

    Attributes:
        keys, values (`torch.Tensor` of shape `(layers, units, columns, head_dim)`): 0 in empty columns.
        tokens (`torch.Tensor` of shape `(columns, 2, 5)`): the two [`Token`]s of each pair.
        pairs (`torch.Tensor` of shape `(columns,)`): number of the pair of the same tokens in the long-term
            memory, -1 if it is not there any more.
    """

    keys: torch.Tensor
    values: torch.Tensor
    tokens: torch.Tensor
    pairs: torch.Tensor

    @classmethod
    def empty(cls, keys_LHND: torch.Tensor) -> "Window":
        """No columns, for a memory with these keys: of a new text, or of the first model."""
        nothing_LH0D = keys_LHND[:, :, :0]
        tokens = torch.empty(0, 2, len(NO_TOKEN), dtype=torch.int32, device=keys_LHND.device)
        return cls(nothing_LH0D, nothing_LH0D, tokens, tokens[:, 0, 0])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Window":
        """The same on a device, with keys and values in this precision."""
        keys, values = (states.to(device, dtype) for states in (self.keys, self.values))
        return Window(keys, values, self.tokens.to(device), self.pairs.to(device))

    def is_held(self) -> torch.Tensor:
        """Which columns hold a pair, `(columns,)`."""
        return self.tokens[:, 0, NUMBER] >= 0

    def ages(self) -> torch.Tensor:
        """How many tokens before the next one the token of each column was, `(columns,)`: the last one, 2."""
        return torch.arange(len(self.pairs) + 1, 1, -1, device=self.pairs.device)

    def ages_of_pairs(self, num_pairs: int) -> torch.Tensor:
        """The same for the pairs of the long-term memory, `(pairs,)`: `OLD` if they are not in the window."""
        age_N = torch.full((num_pairs,), OLD, device=self.pairs.device)
        is_there_W = self.pairs >= 0
        age_N[self.pairs[is_there_W].long()] = self.ages()[is_there_W]
        return age_N

    def are_chosen(self, chosen_N: torch.Tensor) -> torch.Tensor:
        """Which columns belong to chosen pairs of the long-term memory, `(columns,)`."""
        # The last entry is for -1.
        return F.pad(chosen_N, (0, 1))[self.pairs.long()]

    def emptied(self, gone_W: torch.Tensor) -> "Window":
        """Without the pairs of these columns."""
        keys, values = (states.masked_fill(gone_W[:, None], 0) for states in (self.keys, self.values))
        tokens, pairs = self.tokens.clone(), self.pairs.masked_fill(gone_W, -1)
        tokens[gone_W] = tokens.new_tensor(NO_TOKEN)
        return Window(keys, values, tokens, pairs)

    def renumbered(self, kept_N: torch.Tensor) -> "Window":
        """When the long-term memory keeps only these pairs."""
        number_N = (kept_N.cumsum(0) - 1).masked_fill(~kept_N, -1)
        return self._replace(pairs=F.pad(number_N, (0, 1), value=-1)[self.pairs.long()].to(self.pairs))
