"""Tensors that are computed block by block."""

import torch


class Joined(dict[str, torch.Tensor]):
    """Tensors by name, whole ones into which those of blocks are written.

    Kept one by one, small results between large temporary tensors would keep the allocator from using the
    room of these again: a gigabyte more for 2,048 tokens of a large vocabulary.

    Args:
        length (`int`): of the whole tensors in the dimension `dim` along which they are cut.
    """

    def __init__(self, length: int, dim: int):
        super().__init__()
        self.length, self.dim = length, dim

    def write(self, first: int, tensors: dict[str, torch.Tensor]) -> None:
        """Takes the tensors of the block that begins at `first`."""
        for name, tensor in tensors.items():
            if name not in self:
                shape = [*tensor.shape]
                shape[self.dim] = self.length
                self[name] = tensor.new_empty(shape)
            self[name].narrow(self.dim, first, tensor.shape[self.dim]).copy_(tensor)
