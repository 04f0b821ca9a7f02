"""lm-evaluation-harness on a local task, where this package cannot be imported."""

import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

WITHOUT_PACKAGE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_mosaic":
            raise ImportError("modeling_mosaic cannot be imported here")

sys.meta_path.insert(0, Blocker())
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""


def write_questions(path, count=24):
    """Contexts of all lengths, so that batches need padding, with endings of different lengths."""
    draw = random.Random(0)
    words = "Once upon a time there was story".split()
    with path.open("w") as file:
        for _ in range(count):
            context = " ".join(draw.choices(words, k=draw.randint(1, 30)))
            endings = [" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(3)]
            row = {"context": context, "endings": endings, "label": draw.randrange(3)}
            file.write(json.dumps(row) + "\n")


def evaluate(command, batch_size):
    """The results and the log-likelihoods of all endings, in the order of the questions."""
    output = f"runs/batch-{batch_size}"
    arguments = [
        *shlex.split(command.replace("\\\n", ""))[1:],
        "--log_samples",
        "--batch_size",
        str(batch_size),
    ]
    arguments += ["--output_path", output]
    environment = {**os.environ, "HF_HOME": str(Path.cwd() / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
    (results,) = Path(output).rglob("results_*.json")
    (samples,) = Path(output).rglob("samples_endings_*.jsonl")
    rows = sorted((json.loads(line) for line in samples.open()), key=lambda row: row["doc_id"])
    scores = [float(answer[0]) for row in rows for answer in row["filtered_resps"]]
    return json.loads(results.read_text())["results"]["endings"], scores


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_recipe(demo, examples):
    page, heading = "docs/tools.md", "## lm-evaluation-harness"
    (task,), (command,) = examples(page, heading, "yaml"), examples(page, heading, "sh")
    Path("tasks").mkdir()
    Path("tasks/endings.yaml").write_text(task)
    write_questions(Path("tasks/endings.jsonl"))
    alone, alone_scores = evaluate(command, 1)
    batched, batched_scores = evaluate(command, 8)
    assert len(alone_scores) == 72 and len(set(alone_scores)) > 60
    assert batched_scores == pytest.approx(alone_scores, rel=0, abs=1e-4)
    for metric in ("acc,none", "acc_norm,none"):
        assert 0 <= alone[metric] <= 1 and batched[metric] == alone[metric]
