"""Memory Mosaics v2 against the equations written slowly, and what must hold whatever the weights."""

import copy
import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn.attention.flex_attention import flex_attention
from transformers import DynamicCache, Trainer, TrainingArguments

from modeling_mosaic import MosaicV2ForCausalLM
from modeling_mosaic.plain_mosaic_v2 import PlainMosaicV2
from row_checks import assert_same_gradients, enable_checkpointing, gradients, loss_of, padded

SHAPES = [
    dict(),
    dict(num_attention_heads=1, num_hidden_layers=1, short_memory_size=100, long_memory_delay=64),
    dict(short_memory_size=2, long_memory_delay=1, long_memory_delay_range=(1, 3)),
    dict(short_memory_size=16, long_memory_delay=17, long_memory_delay_range=(17, 17)),
    dict(use_long_memory=False, short_memory_size=5),
    dict(tie_word_embeddings=True, logit_scale=0.5, rms_norm_eps=1e-2, hidden_size=24, num_attention_heads=3),
]


@pytest.mark.parametrize("fields", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 8, 67])
def test_logits_and_gradients_are_those_of_the_equations(make_v2, random_tokens, fields, length):
    model = make_v2(**fields).double()
    tokens = random_tokens(2, length)
    plain = PlainMosaicV2(model).logits(tokens)
    torch.testing.assert_close(PlainMosaicV2(model).logits(tokens, last_only=True), plain[:, -1:])
    expected = gradients(model, loss_of(plain))
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        for use_cache in (False, True):
            exact = model(tokens, use_cache=use_cache).logits
            torch.testing.assert_close(exact, plain, rtol=0, atol=1e-11)
            assert_same_gradients(gradients(model, loss_of(exact)), expected)
    single = make_v2(**fields)(tokens).logits
    assert (single - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_scalars_keep_to_their_bounds(make_v2, random_tokens):
    """Those of the paper's table 6, and the absolute value of the exponent."""
    model, tokens = make_v2().double(), random_tokens(2, 12)
    moved = {"log_beta": 11.0, "exponent": -0.4, "peek_norm.log_scale": 16.0}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for part, value in moved.items():
                if part in name:
                    parameter.fill_(value)
    torch.testing.assert_close(model(tokens).logits, PlainMosaicV2(model).logits(tokens))


def test_each_training_step_draws_its_delay(make_v2, random_tokens):
    """One for all layers, also where layers run again for their gradients; all of the range, in time."""
    model, tokens = make_v2().double().train(), random_tokens(2, 20)
    plain = PlainMosaicV2(model)
    by_delay = {delay: plain.logits(tokens, delay) for delay in range(2, 9)}
    drawn = []
    for checkpointed in (False, True):
        if checkpointed:
            enable_checkpointing(model)
        for _ in range(30):
            logits = model(tokens, use_cache=False).logits
            drawn += [m for m, expected in by_delay.items() if torch.allclose(logits, expected, atol=1e-11)]
        assert len(drawn) == (60 if checkpointed else 30) and set(drawn) == set(by_delay)
        assert_same_gradients(
            gradients(model, loss_of(logits)), gradients(model, loss_of(by_delay[drawn[-1]]))
        )
    assert torch.equal(model.eval()(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_never_nan(make_v2, dtype, implementation):
    """Gains and leaks of standard deviation 30, empty memories, rows of padding, embeddings of zeros."""
    model = make_v2(implementation=implementation).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain_proj" in name or "leak_proj" in name:
                parameter.copy_(30 * torch.randn(parameter.shape) / math.sqrt(32))
    tokens = torch.randint(0, 61, (4, 70), generator=torch.Generator().manual_seed(0))
    masks = torch.ones(4, 70, dtype=torch.long)
    masks[0] = 0
    masks[1, 1:] = 0
    masks[2, :-1] = 0
    for inputs in (dict(input_ids=tokens), dict(inputs_embeds=torch.zeros(4, 70, 32, dtype=dtype))):
        for mask in (masks, None):
            logits = model(**inputs, attention_mask=mask).logits
            assert logits.isfinite().all()
            if dtype == torch.float16 and "inputs_embeds" in inputs:
                # The norm of nothing, twice a layer, has a gradient beyond the range of this type.
                continue
            found = gradients(model, logits.float().sum())
            assert all(gradient.isfinite().all() for gradient in found.values())
    if dtype == torch.float32:
        exact = PlainMosaicV2(model.double()).logits(tokens)
        torch.testing.assert_close(model(tokens).logits, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fields", [dict(), dict(use_long_memory=False)])
def test_memory_is_linear_in_the_context(make_v2, random_tokens, fields):
    """What training keeps for the backward pass; nothing of time x time is made."""
    model = make_v2(num_hidden_layers=1, **fields).train()

    def sizes_of(time):
        tokens, sizes = random_tokens(1, time), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model(tokens, attention_mask=torch.ones_like(tokens), labels=tokens, use_cache=False)
        return sizes

    short, long = sizes_of(512), sizes_of(2048)
    assert sum(long) <= 4.1 * sum(short) and max(long) < 2048**2 / 4


@pytest.mark.slow
@torch._dynamo.config.patch(automatic_dynamic_shapes=False)
def test_flex_attention(make_v2, random_tokens, compiling):
    model = make_v2(num_hidden_layers=1)
    tokens, mask = padded(
        [random_tokens(n) for n in (20, 3, 1)], 20, "left", torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        expected = model(tokens, attention_mask=mask).logits
        model.set_attn_implementation("flex_attention")
        with compiling(flex_attention):
            ours = model(tokens, attention_mask=mask).logits
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_attentions(make_v2, random_tokens):
    """Rows of short-term memories, then of long-term ones, weigh the pairs that each may see; of sum 1."""
    model, tokens = make_v2(implementation="eager").double(), random_tokens(2, 20)
    outputs = model(tokens, output_attentions=True, output_hidden_states=True)
    assert len(outputs.attentions) == 2 and len(outputs.hidden_states) == 3
    age = torch.arange(20)[:, None] - torch.arange(20)
    seen = torch.stack([(age >= 1) & (age <= 7), age >= 3]).repeat_interleave(4, 0)
    for weights in outputs.attentions:
        assert weights.shape == (2, 8, 20, 20)
        assert ((weights > 0) == seen).all()
        torch.testing.assert_close(weights.sum(-1), seen.any(-1).double().expand(2, -1, -1))
    cache, start = DynamicCache(config=model.config), 0
    for stop in (12, 13, 20):
        part = model(tokens[:, start:stop], cache=cache, output_attentions=True)
        for cached, weights in zip(part.attentions, outputs.attentions, strict=True):
            torch.testing.assert_close(cached, weights[:, :, start:stop, :stop])
        start = stop


@pytest.mark.parametrize(
    "backend, lengths",
    [("eager", [20] * 4), pytest.param("aot_eager", [20, 20, 30, 30, 40, 40], marks=pytest.mark.slow)],
)
def test_compiled_training_draws_a_delay_each_time(make_v2, random_tokens, backend, lengths):
    """In one graph, with the gradients of that draw."""
    model = make_v2(num_hidden_layers=1).double().train()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    drawn = set()
    for length in lengths:
        tokens = random_tokens(2, length)
        logits = compiled(tokens, use_cache=False).logits
        by_delay = {m: PlainMosaicV2(model).logits(tokens, m) for m in range(2, 9)}
        (delay,) = (m for m, expected in by_delay.items() if torch.allclose(logits, expected, atol=1e-11))
        drawn.add(delay)
        assert_same_gradients(gradients(model, loss_of(logits)), gradients(model, loss_of(by_delay[delay])))
    assert len(drawn) > 1


def test_the_long_memory_can_be_left_out_after_training(make_v2, random_tokens, tmp_path, caplog):
    """Its half of the output projection goes, and all else stays."""
    model, tokens = make_v2(), random_tokens(2, 20)
    model.save_pretrained(tmp_path)
    with caplog.at_level("WARNING"):
        without = MosaicV2ForCausalLM.from_pretrained(tmp_path, use_long_memory=False)
    assert "long_memory" not in caplog.text and not [n for n, _ in without.named_parameters() if "long" in n]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.contextual_memory.long_memory.o_proj.weight.zero_()
    torch.testing.assert_close(without(tokens).logits, model(tokens).logits)
    without.save_pretrained(tmp_path / "without")
    again = MosaicV2ForCausalLM.from_pretrained(tmp_path / "without")
    torch.testing.assert_close(again(tokens).logits, without(tokens).logits, rtol=0, atol=0)


@pytest.mark.parametrize("field", ["attention_dropout", "hidden_dropout"])
def test_dropout(make_v2, random_tokens, field):
    model, tokens = make_v2(long_memory_delay_range=(3, 3), **{field: 0.5}), random_tokens(2, 15)
    torch.testing.assert_close(model(tokens).logits, make_v2()(tokens).logits)
    assert not torch.allclose(model.train()(tokens).logits, model.eval()(tokens).logits)


def test_a_copy(make_v2, random_tokens):
    model, tokens = make_v2(), random_tokens(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model)(tokens).logits, model(tokens).logits)


def test_the_trainer_decays_matrices_only_and_learns(make_v2, random_tokens, tmp_path):
    model, tokens = make_v2(), random_tokens(8, 24)
    rows = [dict(input_ids=row, labels=row) for row in tokens]
    options = dict(report_to="none", use_cpu=True, max_steps=20, learning_rate=1e-2, disable_tqdm=True)
    trainer = Trainer(model, TrainingArguments(tmp_path, **options), train_dataset=rows)
    decayed = set(trainer.get_decay_parameter_names(model))
    assert decayed == {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    loss = model.eval()(tokens, labels=tokens).loss
    trainer.train()
    assert model.eval()(tokens, labels=tokens).loss < 0.7 * loss
    assert not [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]


def test_a_cache_without_a_long_memory_is_refused(make_v2, random_tokens):
    cache = DynamicCache(config=make_v2(use_long_memory=False).config)
    with pytest.raises(ValueError, match="cache .* must hold .*DynamicCache\\(config=model.config\\)"):
        make_v2()(random_tokens(2, 5), cache=cache)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(long_memory_delay_range=[3]), "long_memory_delay_range must be two numbers"),
        (dict(long_memory_delay_range=[5, 3]), "long_memory_delay_range must be two numbers"),
        (dict(long_memory_delay=9), r"long_memory_delay \(9\) must be at most short_memory_size \+ 1 \(8\)"),
        (dict(long_memory_delay_range=(3, 9)), r"long_memory_delay_range \(9\) must be at most"),
        (dict(short_memory_size=1), "short_memory_size"),
        (dict(intermediate_size=0), "intermediate_size must be at least 1, not 0"),
        (dict(initializer_factor=0.0), "initializer_factor must be finite and above 0, not 0.0"),
        (dict(hidden_size=30), r"hidden_size \(30\) must be a multiple of num_attention_heads \(4\)"),
        (dict(rms_norm_eps=0), "rms_norm_eps must be above 0"),
        (dict(short_memory_sise=3), "no field 'short_memory_sise' .* did you mean short_memory_size"),
    ],
)
def test_wrong_fields_are_named(make_v2_config, fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        make_v2_config(**fields)
