"""The same logits and texts on a CUDA device as on a CPU; flash attention where it is installed."""

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from modeling_mosaic import MemoryEdit, record_memories

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_equals_the_cpu(make_model, random_tokens, implementation):
    tokens = random_tokens(2, 70)
    mask = (torch.arange(70) >= torch.tensor([[13], [0]])).long()
    model = make_model(attention_dropout=0.0)
    expected = model(tokens, attention_mask=mask).logits
    model.cuda().set_attn_implementation(implementation)
    logits = model(tokens.cuda(), attention_mask=mask.cuda()).logits.cpu()
    torch.testing.assert_close(logits[mask == 1], expected[mask == 1], rtol=0, atol=1e-3)


@pytest.mark.skipif(not is_flash_attn_2_available(), reason="needs flash-attn")
@pytest.mark.parametrize("packed", [False, True])
def test_flash_attention(make_model, random_tokens, packed):
    model = make_model(hidden_size=64, attention_dropout=0.0).to("cuda", torch.bfloat16)
    inputs = dict(input_ids=random_tokens(1, 70).cuda(), use_cache=False)
    if packed:
        inputs["position_ids"] = (torch.arange(70) % 23)[None].cuda()
    expected = model(**inputs).logits
    model.set_attn_implementation("flash_attention_2")
    logits = model(**inputs).logits
    assert (logits - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.parametrize("cache", ["dynamic", "static", "offloaded"])
def test_generation(make_model, random_tokens, cache):
    model = make_model().cuda()
    prompt = random_tokens(2, 12).cuda()
    options = dict(max_new_tokens=20, do_sample=False)
    expected = model.generate(prompt, use_cache=False, **options)
    assert torch.equal(model.generate(prompt, cache_implementation=cache, **options), expected)


@pytest.mark.parametrize("kind", ["make_model", "make_v2"])
def test_records(request, kind, random_tokens):
    tokens = random_tokens(70).tolist()
    model = request.getfixturevalue(kind)()
    expected = record_memories(model, None, tokens)
    record = record_memories(model.cuda(), None, tokens)
    for name in ("error", "next_token_auc", "ablation_cost", "cross_retrieval", "persistent_direct_logit"):
        torch.testing.assert_close(
            record.measure(name), expected.measure(name), rtol=0, atol=1e-2, equal_nan=True
        )
    assert max(record.self_check.values()) < 1e-3
    with MemoryEdit().delete(pairs=[3]).applied(model):
        edited = model(torch.tensor([tokens]).cuda()).logits.cpu()
    with MemoryEdit().delete(pairs=[3]).applied(model.cpu()):
        torch.testing.assert_close(edited, model(torch.tensor([tokens])).logits, rtol=0, atol=1e-3)
