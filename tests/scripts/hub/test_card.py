import json
import re

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.hub.card import make_model_card
from mosaic_lab.programs import train

# None is the Trainer's default, and each changes the losses.
OPTIONS = """--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs {"min_lr":0.02} --warmup_steps 1
    --adam_epsilon 1e-3 --adam_beta1 0.7 --weight_decay 0.3 --max_grad_norm 0.123456789 --seed 7 --data_seed 8
    --learning_rate 0.0123456789 --per_device_train_batch_size 4 --gradient_accumulation_steps 2
    --corpus_seed 3 --optim adamw_torch --max_steps 4 --logging_steps 1 --eval_steps 2""".split()


@pytest.mark.parametrize("kind", ["mosaic", "mosaic_v2"])
def test_recipe_on_a_card_trains_the_same_model(recipe, tmp_path, kind):
    """For the second model, this includes the delays that its training draws."""
    config = json.loads((recipe.parent / "model.json").read_text()) | {"model_type": kind}
    if kind == "mosaic_v2":
        config |= {"short_memory_size": 32, "long_memory_delay": 8, "long_memory_delay_range": [8, 32]}
    (tmp_path / "model.json").write_text(json.dumps(config))
    here = ["--model", str(tmp_path / "model.json")]
    train.main([str(recipe), "--output_dir", str(tmp_path / "first"), *here, *OPTIONS])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    card = make_model_card(tmp_path / "first", "somebody/stories", model, tokenizer, "mit")
    (lines,) = re.findall(r"```yaml\n(.*?)```", card.text, flags=re.DOTALL)
    assert ("2507.03285" in card.text) == (kind == "mosaic_v2") and "trust_remote_code" in card.text
    assert "on 1\ndevice." in card.text and str(tmp_path) not in card.text
    # Where the files are, and what is shown of a run, is no part of it.
    assert yaml.safe_load(lines)["model"] == "model.json"
    (tmp_path / "again.yaml").write_text(lines)
    here += ["--output_dir", str(tmp_path / "again"), "--use_cpu"]
    shown = "--logging_steps 1 --logging_first_step --eval_strategy steps --eval_steps 2".split()
    train.main([str(tmp_path / "again.yaml"), *here, *shown])
    first, again = (
        json.loads((tmp_path / name / "loss_curve.json").read_text()) for name in ("first", "again")
    )
    assert len(first["train"]["loss"]) == 4 and len(first["validation"]["loss"]) == 2
    assert again == first
