"""The Memory Mosaic of arXiv 2507.03285 ("v2"), equation by equation: where to start reading.

What differs from the first model (`plain_mosaic.py`): keys have gains and leaks that depend on the token; the
sharpness of a memory grows with the number of its pairs; a layer has a short-term and a long-term memory,
with parameters of their own; persistent memories are a SwiGLU.

Everything is computed here as the paper writes it, with matrices of time x time, without padding, cache or
dropout. `MosaicV2ForCausalLM` computes the same in less time and memory; tests hold it to the logits and
gradients of this file. Equations, tables and figures are numbered as in version 3 of the paper.

Shapes: B batch, T time, C hidden size, H heads (memories side by side), D = C / H, V vocabulary.
"""

import torch
from torch.nn import functional as F

from .modeling_mosaic_v2 import MosaicV2ForCausalLM


class PlainMosaicV2:
    """The model of the paper with the parameters of a `MosaicV2ForCausalLM`, in their precision."""

    def __init__(self, model: MosaicV2ForCausalLM):
        self.config = model.config
        self.parameters = dict(model.named_parameters(remove_duplicate=False))

    def logits(
        self, tokens_BT: torch.Tensor, delay: int | None = None, last_only: bool = False
    ) -> torch.Tensor:
        """Figure 2. Logits `(batch, time, vocab)`, or `(batch, 1, vocab)` of the last token alone.

        With the m of inference, or that of a training step.
        """
        delay = self.config.long_memory_delay if delay is None else delay
        x_BTC = F.embedding(tokens_BT, self.parameters["model.embed_tokens.weight"])
        for layer in range(self.config.num_hidden_layers):
            name = f"model.layers.{layer}"
            normed_BTC = self.rms_norm(x_BTC, f"{name}.contextual_norm")
            x_BTC = x_BTC + self.contextual_memory(normed_BTC, f"{name}.contextual_memory", delay)
            normed_BTC = self.rms_norm(x_BTC, f"{name}.persistent_norm")
            x_BTC = x_BTC + self.persistent_memory(normed_BTC, f"{name}.persistent_memory")
        x_BTC = self.rms_norm(x_BTC, "model.norm")[:, -1 if last_only else 0 :]
        return self.linear(self.config.logit_scale * x_BTC, "lm_head")

    def contextual_memory(self, x_BTC: torch.Tensor, name: str, delay: int) -> torch.Tensor:
        """Both memories side by side, and W_o, each half of which is stored with its memory."""
        # How many tokens before the query a pair began.
        step_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
        age_TT = step_T[:, None] - step_T
        # Pairs t - h to t - 1.
        is_seen = {"short_memory": (age_TT >= 1) & (age_TT <= self.config.short_memory_size)}
        if self.config.use_long_memory:
            # Pairs 1 to t - m.
            is_seen["long_memory"] = age_TT >= delay
        recalled_BTC = [self.memory(x_BTC, f"{name}.{part}", seen_TT) for part, seen_TT in is_seen.items()]
        weights = [self.parameters[f"{name}.{part}.o_proj.weight"] for part in is_seen]
        return F.linear(torch.cat(recalled_BTC, -1), torch.cat(weights, -1))

    def memory(self, x_BTC: torch.Tensor, name: str, is_seen_TT: torch.Tensor) -> torch.Tensor:
        """Equation 4: `f(k) = sum_i softmax_i(beta k . k_i) v_i` over the pairs seen; 0 if there are none."""
        key_BHTD, value_BHTD = self.keys(x_BTC, name), self.values(x_BTC, name)
        score_BHTT = self.bandwidth(is_seen_TT.sum(-1), name) * (key_BHTD @ key_BHTD.mT)
        score_BHTT = score_BHTT.masked_fill(~is_seen_TT, torch.finfo(score_BHTT.dtype).min)
        recalled_BHTD = (score_BHTT.softmax(-1) * is_seen_TT) @ value_BHTD
        return recalled_BHTD.transpose(1, 2).flatten(2)

    def bandwidth(self, num_pairs_T: torch.Tensor, name: str) -> torch.Tensor:
        """Equation 6: `beta = beta_1 n^alpha + beta_0` for a memory of n pairs."""
        beta_0_H11, beta_1_H11 = (
            self.scalars(f"{name}.key_norm.log_beta_{number}").clamp(max=10).exp() for number in (0, 1)
        )
        alpha_H11 = self.scalars(f"{name}.key_norm.exponent").abs().clamp(max=1)
        num_pairs_T1 = num_pairs_T.clamp(min=1)[:, None].to(alpha_H11.dtype)
        return beta_1_H11 * num_pairs_T1**alpha_H11 + beta_0_H11

    def keys(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        """Equation 8: `k_T = Norm(kbar_T)`, `kbar_T = g_T k~_T + lambda_T kbar_{T-1}`, `k~_T = W_phi x_T`.

        Unrolled, `kbar_T = sum_{i <= T} g_i lambda_{i+1} ... lambda_T k~_i`, with `g_T = exp(W_g x_T)` and
        `lambda_T = exp(-|W_lambda x_T|)`. Norm allows to divide by the largest weight.
        """
        log_gain_BHT = self.linear(x_BTC, f"{name}.gain_proj").transpose(1, 2)
        faded_BHT = self.linear(x_BTC, f"{name}.leak_proj").transpose(1, 2).abs().cumsum(-1)
        log_weight_BHTT = log_gain_BHT[..., None, :] + faded_BHT[..., None, :] - faded_BHT[..., None]
        time = x_BTC.shape[1]
        is_later_TT = torch.ones(time, time, dtype=torch.bool, device=x_BTC.device).triu(1)
        log_weight_BHTT = log_weight_BHTT.masked_fill(is_later_TT, -torch.inf)
        weight_BHTT = (log_weight_BHTT - log_weight_BHTT.amax(-1, keepdim=True)).exp()
        return F.normalize(weight_BHTT @ self.heads(x_BTC, f"{name}.k_proj"), dim=-1)

    def values(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        """Equation 9: `v_T = alpha_psi Norm(gamma v~_T + (1 - gamma) v~_{T+1})`, `v~_T = W_psi x_T`.

        The last token has no next one; its value is never recalled.
        """
        raw_BHTD = self.heads(x_BTC, f"{name}.v_proj")
        gamma_H11 = self.scalars(f"{name}.peek_norm.mix")
        mixed_BHTD = gamma_H11 * raw_BHTD + (1 - gamma_H11) * raw_BHTD.roll(-1, 2)
        scale_H11 = self.scalars(f"{name}.peek_norm.log_scale").clamp(max=15).exp()
        return scale_H11 * F.normalize(mixed_BHTD, dim=-1)

    def persistent_memory(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        """`W_2 (SiLU(W_1 x) * W_3 x)`."""
        gate_BTF, up_BTF = (self.linear(x_BTC, f"{name}.{part}_proj") for part in ("gate", "up"))
        return self.linear(F.silu(gate_BTF) * up_BTF, f"{name}.down_proj")

    def heads(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        """A linear layer's output, `(batch, heads, time, head_dim)`."""
        return self.linear(x_BTC, name).unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)

    def scalars(self, name: str) -> torch.Tensor:
        """A parameter with one number per head, `(heads, 1, 1)`."""
        return self.parameters[name][:, None, None]

    def linear(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x_BTC, self.parameters[f"{name}.weight"])

    def rms_norm(self, x_BTC: torch.Tensor, name: str) -> torch.Tensor:
        mean_square_BT1 = x_BTC.square().mean(-1, keepdim=True)
        return (
            self.parameters[f"{name}.weight"] * x_BTC * (mean_square_BT1 + self.config.rms_norm_eps).rsqrt()
        )
