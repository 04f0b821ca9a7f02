"""Memories as lists of pairs: the slow implementation that `MosaicMemory` must equal.

Everything is computed token by token and pair by pair from the equations, with the parameters of a model.
"""

from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional as F

from modeling_mosaic.plain_mosaic import GAIN, PlainMosaic


@dataclass
class Pair:
    """A pair of all layers, `(layers, heads, head_dim)` each; its two tokens as `(text, number)`."""

    keys: list
    values: list
    own: tuple
    following: tuple | None = None


@dataclass
class ListMemory:
    """Pairs that are complete, and, once a token was read, the states after it: of each layer, both averages,
    and the pair that the next token completes, with raw values."""

    pairs: list = field(default_factory=list)
    averages: list | None = None
    pending: Pair | None = None


class ListMosaic:
    """Reads tokens into a `ListMemory`."""

    def __init__(self, model):
        self.plain = PlainMosaic(model)
        self.config = model.config

    def read(self, ids, text, after=None):
        memory = after or ListMemory()
        for number, token in enumerate(ids):
            memory, _ = self.step(memory, token, (text, number))
        return memory

    def logits(self, memory, ids):
        rows = []
        for number, token in enumerate(ids):
            memory, logits = self.step(memory, token, (None, number))
            rows.append(logits)
        return torch.stack(rows)

    def begin(self, memory, token):
        """Ends the text: what comes next begins with `token`, read with no pairs at all."""
        begun, _ = self.step(ListMemory(), token, ("beginning", 0))
        return replace(memory, averages=begun.averages, pending=begun.pending)

    def step(self, memory, token, place):
        plain, config = self.plain, self.config
        x_11C = plain.parameters["model.embed_tokens.weight"][token][None, None]
        before = memory.averages or [(0, 0)] * config.num_hidden_layers
        done = memory.pending and Pair(memory.pending.keys, [], memory.pending.own, place)
        started, averages = Pair([], [], place), []
        for layer, (average_HD, persistent_HD) in enumerate(before):
            name = f"model.layers.{layer}.contextual_memory"
            h_11C = plain.layer_norm(x_11C, f"model.layers.{layer}.contextual_norm")
            key_HD, average_HD = self.key(
                h_11C, f"{name}.key_extractor", average_HD, config.num_attention_heads
            )
            raw_HD = plain.heads(h_11C, f"{name}.v_proj", config.num_attention_heads)[0, :, 0]
            if done:
                mix_H1, scale_H1 = (
                    plain.scalars(f"{name}.peek_norm.{each}")[:, :, 0] for each in ("mix", "log_scale")
                )
                mixed_HD = mix_H1 * memory.pending.values[layer] + (1 - mix_H1) * raw_HD
                done.values.append((GAIN * scale_H1).exp() * F.normalize(mixed_HD, dim=-1))
            answer_HD = self.recall([*memory.pairs, *([done] if done else [])], key_HD, layer)
            x_11C = x_11C + plain.linear(answer_HD.flatten()[None, None], f"{name}.o_proj")
            added_11C, persistent_HD = self.persistent(x_11C, layer, persistent_HD)
            x_11C = x_11C + added_11C
            started.keys.append(key_HD)
            started.values.append(raw_HD)
            averages.append((average_HD, persistent_HD))
        logits_V = plain.linear(config.logit_scale * plain.layer_norm(x_11C, "model.norm"), "lm_head")[0, 0]
        return ListMemory([*memory.pairs, *([done] if done else [])], averages, started), logits_V

    def key(self, h_11C, name, average_HD, num_heads):
        raw_HD = self.plain.heads(h_11C, f"{name}.k_proj", num_heads)[0, :, 0]
        decay_H1 = (-GAIN * self.plain.scalars(f"{name}.leaky_norm.leak")[:, :, 0].abs()).exp()
        average_HD = raw_HD + decay_H1 * average_HD
        return self.plain.key_scale(name)[:, :, 0] * F.normalize(average_HD, dim=-1), average_HD

    def recall(self, pairs, key_HD, layer):
        if not pairs:
            return torch.zeros_like(key_HD)
        scores_PH = torch.stack([(pair.keys[layer] * key_HD).sum(-1) for pair in pairs])
        weights_PH = scores_PH.softmax(0)
        return sum(
            weight_H[:, None] * pair.values[layer] for weight_H, pair in zip(weights_PH, pairs, strict=True)
        )

    def persistent(self, x_11C, layer, average_HD):
        plain, name = self.plain, f"model.layers.{layer}.persistent_memory"
        h_11C = plain.layer_norm(x_11C, f"model.layers.{layer}.persistent_norm")
        extractor = f"{name}.key_extractor"
        key_HD, average_HD = self.key(h_11C, extractor, average_HD, self.config.num_persistent_heads)
        query_NH1D = (plain.key_scale(extractor)[:, :, 0] * key_HD)[None, :, None]
        weights_NH1M = (query_NH1D @ plain.parameters[f"{name}.memory_keys"].mT).softmax(-1)
        answer_HD = (weights_NH1M @ plain.parameters[f"{name}.memory_values"]).mean(0)[:, 0]
        scale_H1 = (GAIN * plain.scalars(f"{name}.log_value_norm")[:, :, 0]).exp()
        return plain.linear((scale_H1 * answer_HD).flatten()[None, None], f"{name}.o_proj"), average_HD
