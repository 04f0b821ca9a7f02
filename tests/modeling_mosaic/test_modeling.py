"""The model against the equations written slowly, and what must hold whatever the weights."""

import copy

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import DynamicCache, Trainer, TrainingArguments

from modeling_mosaic import MosaicForCausalLM
from modeling_mosaic.plain_mosaic import PlainMosaic
from row_checks import assert_same_gradients, enable_checkpointing, gradients, loss_of, padded

# How far float32 logits may be off, in parts of the largest. Exponentials of the keys' scales and sharp
# attention magnify rounding: by up to 43 with torch's kernels for AVX2, AVX-512 and neither.
FLOAT32_ERROR = 128 * torch.finfo(torch.float32).eps
SHAPES = [
    dict(),
    dict(num_attention_heads=1, num_hidden_layers=1),
    dict(num_persistent_heads=2, num_persistent_banks=3, use_bias=True),
    dict(hidden_size=24, num_attention_heads=3, num_persistent_heads=6, persistent_memory_size=1),
    dict(tie_word_embeddings=False, logit_scale=1.0, max_log_key_scale=0.3, layer_norm_eps=1e-2),
]


@pytest.mark.parametrize("fields", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 67])
def test_logits_and_gradients_are_those_of_the_equations(make_model, random_tokens, fields, length):
    model = make_model(**fields)
    tokens = random_tokens(1, length)
    plain = PlainMosaic(copy.deepcopy(model).double()).logits(tokens)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        error = (model(tokens).logits.double() - plain).abs().max()
        assert error <= FLOAT32_ERROR * plain.abs().max()
    model.double()
    exact, plain = model(tokens).logits, PlainMosaic(model).logits(tokens)
    torch.testing.assert_close(exact, plain, rtol=0, atol=1e-12)
    assert_same_gradients(gradients(model, loss_of(exact)), gradients(model, loss_of(plain)))


# torch 2.13's flex attention for CPUs has no backward pass, and writes wrong C++ for dynamic shapes.
@torch._dynamo.config.patch(automatic_dynamic_shapes=False)
def test_flex_attention(make_model, random_tokens, compiling):
    model = make_model()
    tokens, mask = padded(
        [random_tokens(n) for n in (20, 3, 1)], 20, "left", torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        expected = model(tokens, attention_mask=mask).logits
        # Both sides are in float32.
        tolerance = dict(rtol=0, atol=2 * FLOAT32_ERROR * expected.abs().max().item())
        packed = model(tokens, position_ids=torch.arange(20)[None] % 9).logits
        model.set_attn_implementation("flex_attention")
        with compiling(flex_attention):
            ours = model(tokens, attention_mask=mask).logits
        torch.testing.assert_close(ours, expected, **tolerance)
        outputs = model(tokens[:, :7], attention_mask=mask[:, :7])
        rest = model(tokens[:, 7:], attention_mask=mask, past_key_values=outputs.past_key_values)
        torch.testing.assert_close(torch.cat([outputs.logits, rest.logits], 1), expected, **tolerance)
        ours = model(tokens, position_ids=torch.arange(20)[None] % 9).logits
        torch.testing.assert_close(ours, packed, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_never_nan(make_model, dtype, implementation):
    """Empty memories, one-token rows, rows of padding, repeated tokens, and embeddings of zeros."""
    model = make_model(implementation=implementation, max_log_key_scale=5.0).to(dtype)
    with torch.no_grad():
        model.model.layers[0].contextual_memory.key_extractor.leaky_norm.log_scale.fill_(0.5)
    tokens = torch.full((4, 70), 5)
    masks = torch.ones(4, 70, dtype=torch.long)
    masks[0] = 0
    masks[1, 1:] = 0
    masks[2, :-1] = 0
    for inputs in (dict(input_ids=tokens), dict(inputs_embeds=torch.zeros(4, 70, 32, dtype=dtype))):
        for mask in (masks, None):
            logits = model(**inputs, attention_mask=mask).logits
            grads = gradients(model, logits.float().square().mean())
            assert logits.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in grads.values())


@pytest.mark.parametrize(
    "any_model", [("mosaic", name) for name in ("eager", "sdpa", "flash_attention_2")], indirect=True
)
def test_an_empty_memory_recalls_zero(any_model, random_tokens):
    model = any_model()
    seen = []
    memory = model.model.layers[1].contextual_memory
    memory.o_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0].unflatten(0, (2, 12))))
    tokens, mask = padded([random_tokens(12), random_tokens(5)], 12, "left", torch.Generator().manual_seed(0))
    model(tokens, attention_mask=mask, use_cache=False)
    assert (seen[0][0, 0] == 0).all() and (seen[0][1, :8] == 0).all()
    assert (seen[0][0, 1] != 0).all() and (seen[0][1, 8] != 0).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.08), (torch.float16, 0.01)])
def test_half_precision_stays_near_float32(make_model, random_tokens, dtype, tolerance):
    model = make_model()
    tokens = random_tokens(2, 200)
    expected = model(tokens).logits
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(tokens, labels=tokens)
    outputs.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    half = copy.deepcopy(model).to(dtype)(tokens).logits
    for logits in (outputs.logits, half):
        assert logits.dtype == dtype
        assert (logits - expected).norm() <= tolerance * expected.norm()


def test_no_tensor_is_quadratic_in_time(make_model, random_tokens):
    """At T = 2,048, no operation of a training step makes a tensor with two dimensions of about T."""
    from torch.utils._python_dispatch import TorchDispatchMode

    shapes = set()

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            results = result if isinstance(result, tuple | list) else [result]
            shapes.update(tuple(t.shape) for t in results if isinstance(t, torch.Tensor))
            return result

    model = make_model(attention_dropout=0.0).train()
    tokens = random_tokens(1, 2048)
    with Shapes():
        model(tokens, attention_mask=torch.ones_like(tokens), labels=tokens, use_cache=False).loss.backward()
    assert not [shape for shape in shapes if sum(size >= 2000 for size in shape) > 1]


def test_a_context_far_beyond_the_training_length(make_model, random_tokens):
    model = make_model(max_position_embeddings=16).double()
    tokens = random_tokens(1, 8192)
    with torch.no_grad():
        logits = model(tokens).logits
        first = model(tokens[:, :8000])
        rest = model(tokens[:, 8000:], past_key_values=first.past_key_values).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(rest, logits[:, 8000:], rtol=0, atol=1e-10)


def test_attentions(make_model, random_tokens):
    """Row t weighs the pairs before t: strictly lower triangular, and of sum 1 but for the empty memory."""
    model = make_model(implementation="eager")
    tokens = random_tokens(2, 12)
    outputs = model(tokens, output_attentions=True, output_hidden_states=True)
    assert len(outputs.attentions) == 2 and len(outputs.hidden_states) == 3
    for weights in outputs.attentions:
        assert weights.shape == (2, 4, 12, 12)
        assert (weights == weights.tril(-1)).all()
        expected = torch.ones(2, 4, 12)
        expected[..., 0] = 0
        torch.testing.assert_close(weights.sum(-1), expected)
    first = model(tokens[:, :7])
    later = model(tokens[:, 7:], past_key_values=first.past_key_values, output_attentions=True)
    for cached, weights in zip(later.attentions, outputs.attentions, strict=True):
        torch.testing.assert_close(cached, weights[:, :, 7:])


def test_gradient_checkpointing(make_model, random_tokens):
    model = make_model(attention_dropout=0.2, hidden_dropout=0.2).double().train()
    inputs = dict(input_ids=random_tokens(2, 30), position_ids=torch.arange(30)[None] % 13, use_cache=False)

    def gradients_with_same_dropout():
        torch.manual_seed(0)
        return gradients(model, loss_of(model(**inputs).logits))

    expected = gradients_with_same_dropout()
    for use_reentrant in (False, True):
        enable_checkpointing(model, use_reentrant=use_reentrant)
        assert_same_gradients(gradients_with_same_dropout(), expected)


def test_checkpointed_layers_store_nothing_twice(make_model, random_tokens):
    model = make_model(attention_dropout=0.0, hidden_dropout=0.0).double().train()
    tokens = random_tokens(2, 9)
    expected = gradients(model, model(tokens, labels=tokens).loss)
    enable_checkpointing(model)
    cache = DynamicCache(config=model.config)
    assert_same_gradients(gradients(model, model(tokens, cache=cache, labels=tokens).loss), expected)
    assert cache.get_seq_length() == 0
    with torch.no_grad():
        model(tokens, cache=cache)
    assert cache.get_seq_length() == 9
    with pytest.raises(ValueError, match="checkpointing .* excludes a cache"):
        model(tokens, cache=cache)


@pytest.mark.parametrize(
    "blocks, parameters",
    [(1, 45_713_748), (2, 52_793_256), (8, 95_270_304), (12, 123_588_336), (18, 166_065_384)],
)
def test_parameter_counts_of_the_paper(make_config, blocks, parameters):
    config = make_config(
        vocab_size=50304,
        hidden_size=768,
        num_attention_heads=12,
        num_hidden_layers=blocks,
        persistent_memory_size=None,
    )
    assert config.persistent_memory_size == 2688
    with torch.device("meta"):
        assert MosaicForCausalLM(config).num_parameters() == parameters


@pytest.mark.parametrize("layers", [1, 8])
def test_initialisation_of_the_paper(make_config, layers):
    torch.manual_seed(0)
    fields = dict(
        hidden_size=128, num_hidden_layers=layers, vocab_size=997, persistent_memory_size=None, use_bias=True
    )
    model = MosaicForCausalLM(make_config(**fields))
    untied = MosaicForCausalLM(make_config(**fields, tie_word_embeddings=False))
    deviations = {
        "embed_tokens.weight": 128**-0.5,
        "lm_head.weight": 128**-0.5,
        "k_proj.weight": 128**-0.5,
        "v_proj.weight": 128**-0.5,
        "o_proj.weight": (128 * layers) ** -0.5,
        "memory_keys": 32**-0.5,
        "memory_values": 32**-0.5,
    }
    values = {
        "leak": torch.linspace(0.05, 0.5, 4),
        "key_extractor.leaky_norm.log_scale": torch.tensor(0.1),
        "peek_norm.log_scale": torch.tensor(-0.05),
        "log_value_norm": torch.tensor(-0.05),
        "norm.weight": torch.tensor(1.0),
        "bias": torch.tensor(0.0),
    }
    unchecked = []
    for name, parameter in model.named_parameters():
        if expected := [value for end, value in deviations.items() if name.endswith(end)]:
            assert parameter.std().item() == pytest.approx(expected[0], rel=0.05), name
        elif expected := [value for end, value in values.items() if name.endswith(end)]:
            torch.testing.assert_close(parameter, expected[0].expand_as(parameter), msg=name)
        else:
            unchecked.append(name)
            assert name.endswith("peek_norm.mix") and 0 <= parameter.min() and parameter.max() <= 1
    assert len(unchecked) == layers
    assert untied.lm_head.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)


def test_the_plain_trainer_decays_matrices_only(make_model, tmp_path):
    """The original decays what has two dimensions or more."""
    for fields in (dict(), dict(use_bias=True, tie_word_embeddings=False)):
        model = make_model(**fields)
        decayed = set(Trainer(model, TrainingArguments(tmp_path)).get_decay_parameter_names(model))
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
        assert decayed & {name for name, _ in model.named_parameters()} == matrices


@pytest.mark.parametrize("training, padded", [(True, False), (False, True)])
def test_compiles_without_a_graph_break(make_model, random_tokens, training, padded):
    """For one length, and for any length once a second one came."""
    model = make_model(attention_dropout=0.0, hidden_dropout=0.0).double().train(training)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for length in (40, 70):
        tokens = random_tokens(2, length)
        inputs = dict(input_ids=tokens, labels=tokens, use_cache=False)
        if padded:
            inputs["attention_mask"] = (torch.arange(length) >= torch.tensor([[3], [0]])).long()
        ours, expected = compiled(**inputs), model(**inputs)
        torch.testing.assert_close(ours.logits, expected.logits, rtol=0, atol=1e-11)
        if training:
            # Compiled, the loss is transformers' own, in float32.
            eps = torch.finfo(torch.float32).eps
            assert_same_gradients(gradients(model, ours.loss), gradients(model, expected.loss), eps)


@pytest.mark.slow
def test_compiled_training_at_several_lengths(make_model, random_tokens):
    """From the second length on, sizes are symbols."""
    model = make_model(num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True)
    for shape in ((2, 32), (2, 64), (3, 17), (2, 100)):
        tokens = random_tokens(*shape)
        inputs = dict(input_ids=tokens, labels=tokens, use_cache=False)
        ours, expected = compiled(**inputs).loss, model(**inputs).loss
        torch.testing.assert_close(ours, expected)
        assert_same_gradients(gradients(model, ours), gradients(model, expected), 1e-5)
