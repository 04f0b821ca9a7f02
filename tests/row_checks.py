"""What the tests of several models do with rows of tokens, and with gradients."""

import torch


def padded(rows, length, side, generator):
    """Rows of different lengths in one batch: padding of any token at the left, the right or in between."""
    tokens = torch.randint(0, 61, (len(rows), length), generator=generator)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for row, sequence in enumerate(rows):
        places = {
            "left": torch.arange(length - len(sequence), length),
            "right": torch.arange(len(sequence)),
            "between": torch.randperm(length, generator=generator)[: len(sequence)].sort().values,
        }[side]
        tokens[row, places] = sequence
        mask[row, places] = 1
    return tokens, mask


def loss_of(logits, seed=0):
    """A smooth function of all logits, with another weight for each."""
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)).to(logits)
    return (logits * weight).sum()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    zero = torch.zeros(())
    return {
        name: zero if value.grad is None else value.grad.clone() for name, value in model.named_parameters()
    }


def assert_same_gradients(ours, theirs, tolerance=1e-9):
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() <= tolerance * (gradient.abs().max() + 1), name


def enable_checkpointing(model, **options):
    """By its name since transformers 5.24, where that exists."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    getattr(model, next(name for name in names if hasattr(model, name)))(options or None)
