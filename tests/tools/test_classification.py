"""A classifier, fine-tuned with the Trainer, saved, and loaded by a pipeline."""

import torch
from transformers import AutoModelForSequenceClassification

from modeling_mosaic import MosaicForSequenceClassification


def test_recipe(run_examples):
    names = run_examples("docs/tools.md", "## Classification with the Trainer")
    assert names["accuracy"] > 0.95
    held_out = names["rows"]["test"]
    loaded = AutoModelForSequenceClassification.from_pretrained("runs/moods")
    assert type(loaded) is MosaicForSequenceClassification
    tokens = torch.tensor([held_out[0]["input_ids"]])
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, names["model"].eval()(tokens).logits)
    single = names["classify"](list(held_out["text"]))
    right = [
        row["label"] == loaded.config.id2label[label]
        for row, label in zip(single, held_out["label"], strict=True)
    ]
    assert sum(right) > 0.95 * len(right)
    batched = names["classify"](list(held_out["text"]), batch_size=8)
    assert [row["label"] for row in batched] == [row["label"] for row in single]
