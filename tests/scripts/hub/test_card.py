import json
import re

import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.hub.card import make_model_card
from mosaic_lab.programs import train

# None is the Trainer's default, and each changes the losses.
OPTIONS = """--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs {"min_lr":0.02} --warmup_steps 1
    --adam_epsilon 1e-3 --adam_beta1 0.7 --weight_decay 0.3 --max_grad_norm 0.123456789 --seed 7 --data_seed 8
    --learning_rate 0.0123456789 --per_device_train_batch_size 4 --gradient_accumulation_steps 2
    --corpus_seed 3 --optim adamw_torch --max_steps 4 --logging_steps 1 --eval_steps 2""".split()


def test_recipe_on_a_card_trains_the_same_model(recipe, tmp_path):
    train.main([str(recipe), "--output_dir", str(tmp_path / "first"), *OPTIONS])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    card = make_model_card(tmp_path / "first", "somebody/stories", model, tokenizer, "mit")
    (lines,) = re.findall(r"```yaml\n(.*?)```", card.text, flags=re.DOTALL)
    assert "on 1\ndevice." in card.text and str(tmp_path) not in card.text
    # Where the files are, and what is shown of a run, is no part of it.
    assert yaml.safe_load(lines)["model"] == "model.json"
    (tmp_path / "again.yaml").write_text(lines)
    here = [
        "--model",
        str(recipe.parent / "model.json"),
        "--output_dir",
        str(tmp_path / "again"),
        "--use_cpu",
    ]
    shown = "--logging_steps 1 --logging_first_step --eval_strategy steps --eval_steps 2".split()
    train.main([str(tmp_path / "again.yaml"), *here, *shown])
    first, again = (
        json.loads((tmp_path / name / "loss_curve.json").read_text()) for name in ("first", "again")
    )
    assert len(first["train"]["loss"]) == 4 and len(first["validation"]["loss"]) == 2
    assert again == first
