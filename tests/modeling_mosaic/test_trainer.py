"""What transformers' Trainer and pipelines do with the model, by rules of their own."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments


@pytest.fixture
def make_trainer(tmp_path):
    def make(model, rows=None, **options):
        options = (
            dict(use_cpu=True, report_to="none", disable_tqdm=True, dataloader_pin_memory=False) | options
        )
        dataset = None if rows is None else [dict(input_ids=row, labels=row) for row in rows]
        args = TrainingArguments(output_dir=str(tmp_path / "run"), **options)
        return Trainer(model=model, args=args, train_dataset=dataset, eval_dataset=dataset)

    return make


def test_smoothed_labels_are_those_of_the_next_token(make_model, random_tokens, make_trainer):
    """The Trainer computes this loss by itself, and shifts labels for models that it knows by name."""
    model, tokens = make_model(), random_tokens(2, 15)
    trainer = make_trainer(model, label_smoothing_factor=0.1)
    loss = trainer.compute_loss(model, dict(input_ids=tokens, labels=tokens.clone()))
    logits = model(tokens).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, tokens[:, 1:].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
