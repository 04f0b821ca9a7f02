"""Whether the model computes the paper's equations: nothing is timed before."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from mosaic_lab.benchmark.models import FAMILIES, build
from mosaic_lab.benchmark.options import BenchmarkArguments
from mosaic_lab.core.errors import InputError

# More tokens than a short-term memory has pairs.
CHECK_BATCH, CHECK_TOKENS = 2, 300
# Of the largest difference over the largest entry of the same tensor. float64 shows that both compute the
# same thing, float32 that neither loses it to rounding.
TOLERANCES = {"float64": 1e-8, "float32": 1e-3}


def check_equality(options: BenchmarkArguments) -> dict[str, dict]:
    """Largest relative differences between the model and its plain implementation, in float64 and in float32.

    Raises:
        InputError: if one of them is above its tolerance.
    """
    check = {}
    for precision, tolerance in TOLERANCES.items():
        torch.manual_seed(0)
        with torch.device(options.device):
            # Training would draw the delay of a long-term memory.
            model = build("mosaic", options).eval()
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
        check[precision] = {"tolerance": tolerance, "logits": logits}
        check[precision] |= {"gradients": differences[worst], "worst_gradient": worst}
    return check


def compare(model: PreTrainedModel, tokens: torch.Tensor) -> dict[str, float]:
    """Largest difference of the logits and of each parameter's gradient, relative to its largest entry."""
    parameters = dict(model.named_parameters())
    plain = FAMILIES[model.config.model_type].plain(model)
    results = []
    for logits in (model(input_ids=tokens, use_cache=False).logits, plain.logits(tokens)):
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        results.append((logits.detach(), *torch.autograd.grad(loss, list(parameters.values()))))
    return {
        name: float((fast - plain).abs().max() / plain.abs().max())
        for name, fast, plain in zip(("logits", *parameters), *results, strict=True)
    }
