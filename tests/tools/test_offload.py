"""device_map="auto" with too little room: layers wait on disk, and nothing else changes."""

import pytest
import torch

from modeling_mosaic import MosaicForCausalLM, MosaicForSequenceClassification


@pytest.mark.parametrize("share", [0.9, 0.3])
@pytest.mark.parametrize("padded", [False, True])
def test_layers_on_disk(demo, share, padded):
    whole = MosaicForCausalLM.from_pretrained("runs/demo")
    room = {"cpu": int(share * whole.get_memory_footprint())}
    options = dict(device_map="auto", max_memory=room, offload_folder="offload")
    model = MosaicForCausalLM.from_pretrained("runs/demo", **options)
    devices = set(model.hf_device_map.values())
    assert "disk" in devices and (share < 0.9 or "cpu" in devices)
    assert any(p.device.type == "meta" for p in model.parameters())
    tokens = torch.randint(1, 250, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    if padded:
        mask[0, :7] = 0
    inputs = dict(input_ids=tokens, attention_mask=mask)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, whole(**inputs).logits)
    new = dict(max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(**inputs, **new), whole.generate(**inputs, **new))


def test_classifier_on_disk(demo):
    whole = MosaicForSequenceClassification.from_pretrained("runs/demo", pad_token_id=0)
    whole.save_pretrained("classifier")
    room = {"cpu": whole.get_memory_footprint() // 2}
    options = dict(device_map="auto", max_memory=room, offload_folder="offload")
    model = MosaicForSequenceClassification.from_pretrained("classifier", **options)
    assert "disk" in model.hf_device_map.values()
    tokens = torch.randint(1, 250, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, whole(tokens).logits)


def test_recipe(run_examples):
    model = run_examples("docs/tools.md", "## Weights offloaded to the CPU and to disk")["model"]
    assert "disk" in model.hf_device_map.values()
