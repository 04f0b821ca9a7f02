"""TRL's SFTTrainer, by the example of the documentation, makes a model that chats."""

import pytest

pytest.importorskip("trl")


@pytest.mark.slow
def test_chat(run_examples):
    names = run_examples("docs/serving.md", "## Chat")
    trainer, tokenizer = names["trainer"], names["tokenizer"]
    # Rows of packed dialogues; the loss is that of the assistant's answers alone.
    batch = next(iter(trainer.get_train_dataloader()))
    starts = batch["position_ids"] == 0
    counted = batch["labels"] != -100
    said = tokenizer.decode(batch["labels"][counted]).split(tokenizer.eos_token)
    answers = {f"The {animal} says {sound}." for animal, sound in names["sounds"].items()}
    assert starts.sum() > len(batch["input_ids"])
    assert set(said) - {""} <= answers
    # What was saved, with its template, has learnt all answers.
    tell = names["AutoModelForCausalLM"].from_pretrained("runs/chat").eval()
    tokenizer = names["AutoTokenizer"].from_pretrained("runs/chat")
    for animal, sound in names["sounds"].items():
        question = [{"role": "user", "content": f"What does the {animal} say?"}]
        inputs = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        answer = tell.generate(**inputs, max_new_tokens=30, do_sample=False)
        text = tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == f"The {animal} says {sound}."
