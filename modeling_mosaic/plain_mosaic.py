"""The Memory Mosaic of arXiv 2405.06394, equation by equation: where to start reading.

An associative memory stores pairs of a key k_i and a value v_i, and answers a key k with the mean of its
values, weighted by how near their keys are: `f(k) = sum_i softmax_i(beta k . k_i) v_i` (equation 3). A Memory
Mosaic is a language model made of such memories. Contextual memories store what the text says while it goes
by, and take the place of attention heads; persistent memories store pairs that training finds, and take the
place of the feed-forward network. There are no queries apart from keys, and no positions.

Everything is computed here as the paper writes it, with matrices of time x time, without padding, cache or
dropout. `MosaicForCausalLM` computes the same in less time and memory; tests and benchmark hold it to the
logits and gradients of this file. Equations and figures are numbered as in version 1 of the paper.

Shapes: B batch, T time, C hidden size, H heads (memories side by side), D = C / H, M persistent pairs,
N banks of persistent pairs, V vocabulary.
"""

import torch
from torch.nn import functional as F

from .modeling_mosaic import MosaicForCausalLM

# The scalars of a memory are stored divided by ten, so that Adam moves them ten times as fast.
GAIN = 10


class PlainMosaic:
    """The model of the paper with the parameters of a `MosaicForCausalLM`, in their precision."""

    def __init__(self, model: MosaicForCausalLM):
        self.config = model.config
        self.parameters = dict(model.named_parameters(remove_duplicate=False))

    def logits(self, tokens_BT: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Figure 8. Logits `(batch, time, vocab)`, or `(batch, 1, vocab)` of the last token alone."""
        x_BTC = F.embedding(tokens_BT, self.parameters["model.embed_tokens.weight"])
        for layer in range(self.config.num_hidden_layers):
            name = f"model.layers.{layer}"
            x_BTC = x_BTC + self.contextual_memory(self.layer_norm(x_BTC, f"{name}.contextual_norm"), name)
            x_BTC = x_BTC + self.persistent_memory(self.layer_norm(x_BTC, f"{name}.persistent_norm"), name)
        x_BTC = self.layer_norm(x_BTC, "model.norm")[:, -1 if last_only else 0 :]
        return self.linear(self.config.logit_scale * x_BTC, "lm_head")

    def contextual_memory(self, x_BTC: torch.Tensor, layer: str) -> torch.Tensor:
        """Equation 8: `y_T = sum_{i <= T-1} softmax_i(k_T . k_i) v_i`; `y_1 = 0`: nothing is stored yet."""
        name, time = f"{layer}.contextual_memory", x_BTC.shape[1]
        key_BHTD = self.keys(x_BTC, f"{name}.key_extractor", self.config.num_attention_heads)
        value_BHTD = self.values(x_BTC, name)
        # A pair is complete, and can be recalled, one token later: its value peeks at that token.
        is_past_TT = torch.ones(time, time, dtype=torch.bool, device=x_BTC.device).tril(-1)
        score_BHTT = key_BHTD @ key_BHTD.mT
        score_BHTT = score_BHTT.masked_fill(~is_past_TT, torch.finfo(score_BHTT.dtype).min)
        recalled_BHTD = score_BHTT.softmax(-1).tril(-1) @ value_BHTD
        return self.linear(recalled_BHTD.transpose(1, 2).flatten(2), f"{name}.o_proj")

    def persistent_memory(self, x_BTC: torch.Tensor, layer: str) -> torch.Tensor:
        """`y_T = alpha softmax(k_T K^T) V` over trained pairs (K, V), averaged over their banks."""
        name = f"{layer}.persistent_memory"
        key_BHTD = self.keys(x_BTC, f"{name}.key_extractor", self.config.num_persistent_heads)
        # Scaled once more, because the stored keys have no scale of their own.
        query_B1HTD = (self.key_scale(f"{name}.key_extractor") * key_BHTD)[:, None]
        score_BNHTM = query_B1HTD @ self.parameters[f"{name}.memory_keys"].mT
        recalled_BHTD = (score_BNHTM.softmax(-1) @ self.parameters[f"{name}.memory_values"]).mean(1)
        scale_H11 = (GAIN * self.scalars(f"{name}.log_value_norm")).exp()
        return self.linear((scale_H11 * recalled_BHTD).transpose(1, 2).flatten(2), f"{name}.o_proj")

    def keys(self, x_BTC: torch.Tensor, name: str, num_heads: int) -> torch.Tensor:
        """Equation 7: `k_T = alpha Norm(kbar_T)`, `kbar_T = k~_T + lambda kbar_{T-1}`, `k~_T = W x_T`.

        Unrolled, `kbar_T = sum_{i <= T} lambda^(T-i) k~_i`, with `lambda = exp(-|r|)`.
        """
        step_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
        leak_H11 = GAIN * self.scalars(f"{name}.leaky_norm.leak").abs()
        decay_HTT = (-leak_H11 * (step_T[:, None] - step_T).clamp(min=0)).exp().tril()
        average_BHTD = decay_HTT @ self.heads(x_BTC, f"{name}.k_proj", num_heads)
        return self.key_scale(name) * F.normalize(average_BHTD, dim=-1)

    def key_scale(self, name: str) -> torch.Tensor:
        """`alpha = exp(s)` of equation 7, with a bound on s."""
        log_scale_H11 = GAIN * self.scalars(f"{name}.leaky_norm.log_scale")
        return log_scale_H11.clamp(max=self.config.max_log_key_scale).exp()

    def values(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        """Equation 7: `v_T = alpha Norm(v~_T + lambda v~_{T+1})`, `v~_T = W x_T`, `lambda = (1 - c) / c`.

        The last token has no next one; its value is never recalled.
        """
        raw_BHTD = self.heads(x_BTC, f"{name}.v_proj", self.config.num_attention_heads)
        mix_H11 = self.scalars(f"{name}.peek_norm.mix")
        mixed_BHTD = mix_H11 * raw_BHTD + (1 - mix_H11) * raw_BHTD.roll(-1, 2)
        scale_H11 = (GAIN * self.scalars(f"{name}.peek_norm.log_scale")).exp()
        return scale_H11 * F.normalize(mixed_BHTD, dim=-1)

    def heads(self, x_BTC: torch.Tensor, name: str, num_heads: int) -> torch.Tensor:
        """A linear layer's output, `(batch, heads, time, head_dim)`."""
        return self.linear(x_BTC, name).unflatten(-1, (num_heads, -1)).transpose(1, 2)

    def scalars(self, name: str) -> torch.Tensor:
        """A parameter with one number per head, `(heads, 1, 1)`."""
        return self.parameters[name][:, None, None]

    def linear(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x_BTC, self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias"))

    def layer_norm(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        return F.layer_norm(x_BTC, weight.shape, weight, bias, self.config.layer_norm_eps)
