"""The loss of a causal language model, in less time and memory than transformers' own.

Shapes: N tokens, V vocabulary; n tokens of a chunk.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.loss.loss_utils import ForCausalLMLoss

# Logits of a chunk: on a CPU they stay in its cache, on other devices they keep it busy.
CHUNK_SIZE = {"cpu": 2**20}
DEFAULT_CHUNK_SIZE = 2**26


def next_token_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: torch.Tensor | None = None,
    **kwargs,
) -> torch.Tensor:
    """Mean cross entropy in nats of position t against label t + 1; equals transformers' `ForCausalLMLoss`.

    That makes several more tensors of the size of the logits, in float32. Here their gradient, in their own
    precision, is the only one: it is computed in the backward pass, some tokens at a time. There are no
    second derivatives.

    Args:
        logits (`torch.Tensor` of shape `(batch, time, vocab)`): of the next token at each position.
        labels (`torch.LongTensor` of shape `(batch, time)`): the tokens.
        vocab_size (`int`): number of logits.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): what the sum is divided by, instead of the
            number of labels that count: the Trainer's, for gradient accumulation.
        ignore_index (`int`): label of positions that do not count.
        shift_labels (`torch.LongTensor` of shape `(batch, time)`, *optional*): label t + 1 at position t,
            instead of `labels`.

    Returns:
        `torch.Tensor`: a scalar, in float32 (float64 for float64 logits); NaN if no label counts.
    """
    if torch.compiler.is_compiling():
        # A compiler fuses that one, and would unroll the chunks of this.
        return ForCausalLMLoss(logits, labels, vocab_size, num_items_in_batch, ignore_index, shift_labels)
    if shift_labels is None:
        shift_labels = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    labels_N = shift_labels.reshape(-1).to(logits.device)
    total = _SummedCrossEntropy.apply(logits.view(-1, vocab_size), labels_N, ignore_index)
    if num_items_in_batch is None:
        num_items_in_batch = (labels_N != ignore_index).sum()
    elif isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / num_items_in_batch


class _SummedCrossEntropy(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(logits_NV, labels_N, ignore_index):
        dtype = torch.promote_types(logits_NV.dtype, torch.float32)
        total = torch.zeros((), dtype=dtype, device=logits_NV.device)
        for logits_nV, labels_n in zip(*_chunks(logits_NV, labels_N), strict=True):
            total = total + F.cross_entropy(
                logits_nV.to(dtype), labels_n, ignore_index=ignore_index, reduction="sum"
            )
        return total

    @staticmethod
    def setup_context(ctx, inputs, total):
        logits_NV, labels_N, ctx.ignore_index = inputs
        ctx.save_for_backward(logits_NV, labels_N)
        ctx.dtype = total.dtype

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """`softmax(logits) - onehot(label)` where the label counts."""
        logits_NV, labels_N = ctx.saved_tensors
        grad_NV = torch.empty_like(logits_NV)
        counts_N1 = (labels_N != ctx.ignore_index)[:, None]
        label_N1 = labels_N[:, None].where(counts_N1, 0)
        weight_N1 = counts_N1 * grad
        certain_N1 = torch.full_like(weight_N1, -1)
        chunks = _chunks(logits_NV, label_N1, certain_N1, weight_N1, grad_NV)
        for logits_nV, label_n1, certain_n1, weight_n1, grad_nV in zip(*chunks, strict=True):
            probability_nV = torch.softmax(logits_nV, -1, dtype=ctx.dtype)
            probability_nV.scatter_add_(-1, label_n1, certain_n1)
            grad_nV.copy_(probability_nV.mul_(weight_n1))
        return grad_NV, None, None


def _chunks(logits_NV, *others):
    size = CHUNK_SIZE.get(logits_NV.device.type, DEFAULT_CHUNK_SIZE)
    return [tensor.split(max(1, size // logits_NV.shape[-1])) for tensor in (logits_NV, *others)]
