"""Nothing that the library does leads through what Python, torch or transformers are about to drop."""

import os
import subprocess
import sys

USES = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, pipeline
from transformers.utils import logging
from modeling_mosaic import MosaicForCausalLM

logging.set_verbosity_warning()
model = MosaicForCausalLM.from_pretrained("runs/demo")
tokenizer = AutoTokenizer.from_pretrained("runs/demo")
tokens = torch.randint(1, 250, (4, 12))
rows = [dict(input_ids=row, labels=row) for row in tokens]
options = dict(report_to="none", use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True)
name = "activation_checkpointing"
if not hasattr(TrainingArguments, name):
    name = "gradient_checkpointing"
options |= {name: True, "max_steps": 2, "use_cache": True, "eval_strategy": "steps", "eval_steps": 1}
trainer = Trainer(model, TrainingArguments("runs/trained", **options), train_dataset=rows, eval_dataset=rows)
trainer.train()
trainer.evaluate()
trainer.save_model("runs/saved")
tokenizer.save_pretrained("runs/saved")
model = AutoModelForCausalLM.from_pretrained("runs/saved")
for choice in (dict(do_sample=True), dict(num_beams=2), dict(cache_implementation="static")):
    model.generate(tokens, max_new_tokens=4, pad_token_id=0, **choice)
first = model(tokens[:, :6], use_cache=True)
model(tokens[:, 6:], cache=first["cache" if "cache" in first else "past_key_values"])
tell = pipeline("text-generation", model=model, tokenizer=tokenizer)
tell("Once upon a time", max_new_tokens=4, do_sample=False)
"""


def test_no_deprecation(demo):
    """As errors; and of what is only logged, as transformers' pipelines do, what the model causes."""
    command = [sys.executable, "-W", "error::DeprecationWarning", "-W", "error::FutureWarning", "-c", USES]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(command, env=environment, cwd=demo, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for cause in ("past_key_values", "MosaicConfig"):
        assert cause not in process.stderr, process.stderr
