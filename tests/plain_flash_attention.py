"""The kernels that transformers' flash attention calls, in plain code for CPUs."""

import math

import torch


def flash_attention(query, key, value, dropout_p=0.0, softmax_scale=None, causal=False, **_):
    """What flash-attn promises: (batch, time, heads, dim), and a causal mask aligned with the last key."""
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * softmax_scale
    queries, keys = scores.shape[-2:]
    if causal:
        hidden = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).logical_not()
        scores = scores.masked_fill(hidden, -math.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1).nan_to_num(), value)


def flash_attention_varlen(
    query, key, value, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, **kwargs
):
    """The same for sequences laid end to end."""
    kwargs.pop("max_seqlen_k", None)
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    starts = zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False)
    parts = [
        flash_attention(query[None, a:b], key[None, c:d], value[None, c:d], **kwargs)[0]
        for a, b, c, d in starts
    ]
    return torch.cat(parts)
