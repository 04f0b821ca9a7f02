"""TRL's SFTTrainer, by the example of the documentation, makes a model that chats."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_mosaic import MosaicConfig, MosaicForCausalLM

pytest.importorskip("trl")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_chat(demo, run_examples):
    # Of the kind that `make demo` leaves, and large enough to learn the answers within the example's steps.
    config = MosaicConfig.from_pretrained("runs/demo")
    size = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4)
    torch.manual_seed(0)
    model = MosaicForCausalLM(
        MosaicConfig(vocab_size=config.vocab_size, eos_token_id=config.eos_token_id, **size)
    )
    model.save_pretrained("runs/demo")
    names = run_examples("docs/serving.md", "## Chat")
    trainer, tokenizer = names["trainer"], names["tokenizer"]
    # Rows of packed dialogues; the loss is that of the assistant's answers alone.
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["position_ids"] == 0).sum() > len(batch["input_ids"])
    counted = batch["labels"] != -100
    said = tokenizer.decode(batch["labels"][counted]).split(tokenizer.eos_token)
    answers = {animal: f"The {animal} says {sound}." for animal, sound in names["sounds"].items()}
    assert set(said) - {""} <= set(answers.values())
    # What was saved, with its template, has learnt to answer.
    model = AutoModelForCausalLM.from_pretrained("runs/chat").eval()
    tokenizer = AutoTokenizer.from_pretrained("runs/chat")
    for animal, answer in answers.items():
        question = [{"role": "user", "content": f"What does the {animal} say?"}]
        options = dict(add_generation_prompt=True, return_tensors="pt", return_dict=True)
        inputs = tokenizer.apply_chat_template(question, **options)
        tokens = model.generate(**inputs, max_new_tokens=30, do_sample=False)
        new = tokens[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True) == answer
