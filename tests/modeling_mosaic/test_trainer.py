"""What transformers' Trainer and pipelines do with the model, by rules of their own."""

import logging

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


def test_predictions_with_a_cache(make_model, random_tokens, make_trainer):
    """The cache is no prediction, by neither of its names."""
    tokens = random_tokens(3, 9)
    trainer = make_trainer(make_model(), tokens, use_cache=True)
    predictions = trainer.predict(trainer.eval_dataset).predictions
    torch.testing.assert_close(torch.tensor(predictions), trainer.model(tokens).logits)


def test_resuming_misses_no_tied_head(make_model, random_tokens, make_trainer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    options = dict(max_steps=1, save_steps=1, save_strategy="steps")
    trainer = make_trainer(make_model(), random_tokens(2, 9), **options)
    trainer.train()
    again = make_trainer(make_model(seed=1), random_tokens(2, 9), **options)
    again.train(resume_from_checkpoint=True)
    assert "missing keys" not in caplog.text
    ours, theirs = (dict(one.model.named_parameters()) for one in (again, trainer))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_what_is_missing_is_reported(make_model):
    state_dict = make_model().state_dict()
    del state_dict["lm_head.weight"]
    assert not make_model().load_state_dict(state_dict).missing_keys
    untied = make_model(tie_word_embeddings=False)
    assert untied.load_state_dict(state_dict, strict=False).missing_keys == ["lm_head.weight"]
    del state_dict["model.embed_tokens.weight"]
    missing = make_model().load_state_dict(state_dict, strict=False).missing_keys
    assert missing == ["model.embed_tokens.weight", "lm_head.weight"]
