"""The equations of arXiv 2405.06394 written slowly, one token and one memory at a time, in float64.

It shares nothing with `modeling_mosaic` but the names of the parameters.
"""

import math
from itertools import pairwise

import torch


def unit(vector):
    length = math.sqrt(float(vector @ vector))
    return vector / length if length > 0 else vector


def layer_norm(vector, weights, name, eps):
    centred = vector - vector.mean()
    result = centred / torch.sqrt((centred**2).mean() + eps) * weights[f"{name}.weight"]
    return result + weights[f"{name}.bias"] if f"{name}.bias" in weights else result


def linear(vector, weights, name):
    result = weights[f"{name}.weight"] @ vector
    return result + weights[f"{name}.bias"] if f"{name}.bias" in weights else result


def softmax_average(scores, values):
    weights = [math.exp(score - max(scores)) for score in scores]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def keys_of(inputs, weights, name, num_heads, max_log_scale, power):
    """k_T of equation 7 for every head and token: `keys[head][t]`."""
    raw = [linear(x, weights, f"{name}.k_proj").view(num_heads, -1) for x in inputs]
    keys = []
    for head in range(num_heads):
        fade = math.exp(-abs(10 * float(weights[f"{name}.leaky_norm.leak"][head])))
        log_scale = min(10 * float(weights[f"{name}.leaky_norm.log_scale"][head]), max_log_scale)
        scale = math.exp(log_scale) ** power
        average, keys_of_head = 0, []
        for token in raw:
            average = token[head] + fade * average
            keys_of_head.append(scale * unit(average))
        keys.append(keys_of_head)
    return keys


def contextual(inputs, weights, name, config):
    heads = config.num_attention_heads
    keys = keys_of(inputs, weights, f"{name}.key_extractor", heads, config.max_log_key_scale, 1)
    raw = [linear(x, weights, f"{name}.v_proj").view(heads, -1) for x in inputs]
    answers = [torch.zeros(heads, raw[0].shape[-1], dtype=torch.float64) for _ in inputs]
    for head in range(heads):
        mix = float(weights[f"{name}.peek_norm.mix"][head])
        scale = math.exp(10 * float(weights[f"{name}.peek_norm.log_scale"][head]))
        values = [scale * unit(mix * now[head] + (1 - mix) * then[head]) for now, then in pairwise(raw)]
        for t in range(1, len(inputs)):
            scores = [float(keys[head][t] @ keys[head][i]) for i in range(t)]
            answers[t][head] = softmax_average(scores, values[:t])
    return [linear(answer.flatten(), weights, f"{name}.o_proj") for answer in answers]


def banks_of(weights, name):
    return weights[f"{name}.memory_keys"], weights[f"{name}.memory_values"]


def persistent(inputs, weights, name, config):
    heads = config.num_persistent_heads
    keys = keys_of(inputs, weights, f"{name}.key_extractor", heads, config.max_log_key_scale, 2)
    results = []
    for t in range(len(inputs)):
        answer = []
        for head in range(heads):
            scale = math.exp(10 * float(weights[f"{name}.log_value_norm"][head]))
            banks = [
                softmax_average((stored[head] @ keys[head][t]).tolist(), list(values[head]))
                for stored, values in zip(*banks_of(weights, name), strict=True)
            ]
            answer.append(scale * sum(banks) / len(banks))
        results.append(linear(torch.cat(answer), weights, f"{name}.o_proj"))
    return results


@torch.no_grad()
def plain_logits(model, tokens):
    """Logits `(time, vocab)` in float64 of a `MosaicForCausalLM` for one list of token ids."""
    config = model.config
    weights = {name: value.detach().double() for name, value in model.state_dict().items()}
    stream = [weights["model.embed_tokens.weight"][token] for token in tokens]
    for layer in range(config.num_hidden_layers):
        for memory, recall in (("contextual", contextual), ("persistent", persistent)):
            name = f"model.layers.{layer}.{memory}"
            normed = [layer_norm(x, weights, f"{name}_norm", config.layer_norm_eps) for x in stream]
            recalled = recall(normed, weights, f"{name}_memory", config)
            stream = [x + y for x, y in zip(stream, recalled, strict=True)]
    last = [layer_norm(x, weights, "model.norm", config.layer_norm_eps) for x in stream]
    return torch.stack([config.logit_scale * weights["lm_head.weight"] @ x for x in last])
