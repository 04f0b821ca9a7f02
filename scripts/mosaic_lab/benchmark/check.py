"""Whether the model computes the paper's equations: nothing is timed before."""

import torch
from torch.nn import functional as F

from modeling_mosaic import MosaicForCausalLM
from modeling_mosaic.plain_mosaic import PlainMosaic
from mosaic_lab.benchmark.models import COUNTED_POSITIONS, balance_parameters, build_mosaic
from mosaic_lab.benchmark.options import BenchmarkArguments
from mosaic_lab.core.errors import InputError

CHECK_BATCH, CHECK_TOKENS = 2, 200
# Of the largest difference over the largest entry of the same tensor. float64 shows that both compute the
# same thing, float32 that neither loses it to rounding.
TOLERANCES = {"float64": 1e-8, "float32": 1e-3}


def check_equality(options: BenchmarkArguments) -> dict[str, dict]:
    """Largest relative differences between the model and `PlainMosaic`, in float64 and in float32.

    Raises:
        InputError: if one of them is above its tolerance.
    """
    check = {}
    for precision, tolerance in TOLERANCES.items():
        torch.manual_seed(0)
        with torch.device(options.device):
            model = build_mosaic(options, COUNTED_POSITIONS, balance_parameters(options)["memory_size"])
            tokens = torch.randint(options.vocab_size, (CHECK_BATCH, CHECK_TOKENS))
        differences = compare(model.to(getattr(torch, precision)), tokens)
        logits = differences.pop("logits")
        worst = max(differences, key=differences.get)
        for name, difference in (("logits", logits), (worst, differences[worst])):
            if not difference <= tolerance:
                raise InputError(
                    f"the model does not equal the plain implementation: in {precision}, {name} differs by "
                    f"{difference:.1e} of its largest entry, more than {tolerance:.0e}; nothing was measured"
                )
        check[precision] = {
            "tolerance": tolerance,
            "logits": logits,
            "gradients": differences[worst],
            "worst_gradient": worst,
        }
    return check


def compare(model: MosaicForCausalLM, tokens: torch.Tensor) -> dict[str, float]:
    """Largest difference of the logits and of each parameter's gradient, relative to its largest entry."""
    parameters = dict(model.named_parameters())
    results = []
    for logits in (model(input_ids=tokens, use_cache=False).logits, PlainMosaic(model).logits(tokens)):
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        results.append((logits.detach(), *torch.autograd.grad(loss, list(parameters.values()))))
    return {
        name: float((fast - plain).abs().max() / plain.abs().max())
        for name, fast, plain in zip(("logits", *parameters), *results, strict=True)
    }
