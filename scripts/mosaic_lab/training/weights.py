"""Whether all weights of a model are numbers."""

import torch
from torch.distributed.tensor import DTensor


def find_nonfinite(model: torch.nn.Module) -> list[str]:
    """Names of the parameters that hold NaN or infinity; of a sharded model, in this process's share.

    One pass over the weights without a copy of them, and one synchronisation with the device.
    """
    names, bounds = [], []
    for name, weight in model.named_parameters():
        weight = weight.detach()
        if isinstance(weight, DTensor):
            weight = weight.to_local()
        if weight.is_floating_point() and weight.numel() and not weight.is_meta:
            # One byte a number: torch has no minimum of these.
            weight = weight.float() if weight.element_size() == 1 else weight
            names.append(name)
            # NaN comes through.
            bounds.append(torch.stack(torch.aminmax(weight)).float())
    if not bounds:
        return []
    are_finite = torch.isfinite(torch.stack([bound.to(bounds[0].device) for bound in bounds])).all(1)
    return [name for name, is_finite in zip(names, are_finite.tolist(), strict=True) if not is_finite]
