"""Logits of a recorded text, and what reads logits from the answers of single units.

`logit_b = logit_scale W_b . (gamma o center(x) / sigma + beta)`: with sigma of the last norm frozen at each
token, logits are sums over whatever the residual stream x is the sum of. A root mean square norm, as in the
second model, does not centre and has no beta. All logits are taken above the mean logit, as raw ones share a
common part that no probability depends on.

Shapes: T tokens, C hidden size, V vocabulary, H units, D head size, K tokens whose logits can be read.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from . import measures
from .anatomy import layers_of
from .blocks import Joined
from .trace import Trace, logit_blocks, token_losses

TOP_TOKENS = 10

Tensors = dict[str, torch.Tensor]


@dataclass
class Readout:
    """What turns answers at each token into logits.

    Attributes:
        next_TC, runner_up_TC (`torch.Tensor`): rows `r_b` of the next token, and of the likeliest other one;
            NaN at the last token.
        scale_T (`torch.Tensor`): 1 / sigma of the last norm.
        next_logit_T (`torch.Tensor`): the model's own logit of the next token, above the mean logit.
    """

    next_TC: torch.Tensor
    runner_up_TC: torch.Tensor
    scale_T: torch.Tensor
    next_logit_T: torch.Tensor

    def direct(self, answers_HTD: torch.Tensor, output_HCD: torch.Tensor, rows_TC: torch.Tensor):
        """Direct logits `(units, time)` of answers through their part of `o_proj`; NaN at the last token."""
        return measures.direct_logit(answers_HTD, rows_TC @ output_HCD, self.scale_T)

    def share(self, direct_HT: torch.Tensor) -> torch.Tensor:
        """The part of the next tokens' logits that direct ones make up, `(units,)`."""
        return direct_HT.nansum(-1) / self.next_logit_T.nansum()


def read_text(heard: Trace) -> tuple[Tensors, Readout]:
    """The tensors of a record that belong to the text and to no memory, and what reads logits there."""
    model, ids_T = heard.model, heard.token_ids
    next_T = ids_T.roll(-1)
    found = Joined(len(ids_T), dim=0)
    for block, logits_nV in logit_blocks(model, heard.residual_TC):
        found.write(block.start, _read_block(logits_nV, next_T[block]))
    runner_up_T, next_logit_T = found.pop("runner_up"), found.pop("next_logit")
    residual_TC = heard.residual_TC.float()
    norm = model.base_model.norm
    scale_T = (_centre(norm, residual_TC).square().mean(-1) + norm.eps).rsqrt()
    known_K = torch.cat([ids_T, found["top_ids"].flatten()]).unique()
    tensors = {
        "token_ids": ids_T,
        "loss": token_losses(model, heard.residual_TC, ids_T),
        **found,
        "final_hidden": residual_TC,
        "final_scale": scale_T,
        "readout.token_ids": known_K,
        "readout.rows": rows_of(model, known_K),
        "readout.raw_values": first_raw_values(model, known_K),
    }
    next_TC, runner_up_TC = rows_of(model, next_T), rows_of(model, runner_up_T)
    for states in (next_TC, runner_up_TC, next_logit_T):
        # There is no next token.
        states[-1] = torch.nan
    return tensors, Readout(next_TC, runner_up_TC, scale_T, next_logit_T)


def _read_block(logits_nV: torch.Tensor, next_n: torch.Tensor) -> Tensors:
    log_probs_nV = logits_nV.log_softmax(-1)
    top = log_probs_nV.topk(min(TOP_TOKENS, logits_nV.shape[-1]))
    likeliest_n, second_n = top.indices[:, 0], top.indices[:, min(1, top.indices.shape[1] - 1)]
    return {
        "entropy": torch.special.entr(log_probs_nV.exp()).sum(-1),
        "top_ids": top.indices,
        "top_logprobs": top.values,
        "next_logit": logits_nV.gather(1, next_n[:, None])[:, 0] - logits_nV.mean(-1),
        "runner_up": torch.where(likeliest_n == next_n, second_n, likeliest_n),
    }


def rows_of(model, ids_K: torch.Tensor) -> torch.Tensor:
    """`r_b = logit_scale (gamma o W_b)`, centred over dimensions, if the norm does so, and over tokens."""
    norm, weight_VC = model.base_model.norm, model.lm_head.weight
    rows_KC = (weight_VC[ids_K].float() - weight_VC.mean(0, dtype=torch.float32)) * norm.weight.float()
    return model.config.logit_scale * _centre(norm, rows_KC)


def _centre(norm: nn.LayerNorm | nn.RMSNorm, states_TC: torch.Tensor) -> torch.Tensor:
    return states_TC - states_TC.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else states_TC


def first_raw_values(model, ids_K: torch.Tensor) -> torch.Tensor:
    """Raw values `(units, tokens, head_dim)` in the first layer, where they depend on the token alone."""
    layer = layers_of(model)[0]
    hidden_KC = layer.block.contextual_norm(model.get_input_embeddings()(ids_K))
    return torch.cat([part.raw_values(hidden_KC) for part in layer.contextual]).float()


def output_of(memory) -> torch.Tensor:
    """The part of `o_proj` of each unit, `(units, hidden, head_dim)`; called, as it may be quantised.

    `memory` has the attributes `o_proj` and `num_heads`.
    """
    eye_CC = torch.eye(memory.o_proj.in_features, device=memory.o_proj.weight.device)
    if memory.o_proj.weight.is_floating_point():
        eye_CC = eye_CC.to(memory.o_proj.weight.dtype)
    output_CC = memory.o_proj(eye_CC).float() - memory.o_proj(torch.zeros_like(eye_CC[:1])).float()
    return output_CC.mT.unflatten(-1, (memory.num_heads, -1)).transpose(0, 1).contiguous()


def direct_of_the_rest(heard: Trace, readout: Readout) -> torch.Tensor:
    """Direct logits `(time,)` of the next tokens that come from no unit: the embedding, and any biases."""
    model = heard.model
    rest_TC = heard.hidden_1TC[0][0].float()
    for layer in layers_of(model):
        for part in (*layer.contextual, layer.persistent):
            if part.o_proj.bias is not None:
                rest_TC = rest_TC + part.o_proj.bias.float()
    direct_T = (rest_TC * readout.next_TC).sum(-1) * readout.scale_T
    bias_C = getattr(model.base_model.norm, "bias", None)
    if bias_C is None:
        return direct_T
    weight_VC = model.lm_head.weight.float()
    next_VC = F.embedding(heard.token_ids.roll(-1), weight_VC) - weight_VC.mean(0)
    return direct_T + model.config.logit_scale * next_VC @ bias_C.float()
