"""Uploads to a Hub on this machine, with the real client, and loads from it where this package is missing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hub_server import READER, WRITER, run_hub
from mosaic_lab.programs import reproduce, train

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"
REPO = "somebody/stories"
TEXT = "Once upon a time"
CODE = {
    "configuration_mosaic.py",
    "leaky_average.py",
    "leaky_norm_triton.py",
    "compatibility.py",
    "memory_masks.py",
    "memory_norms.py",
    "memory_state.py",
    "mlx_mosaic.py",
    "modeling_mosaic.py",
    "next_token_loss.py",
}
WITHOUT_PACKAGE = "import sys; sys.modules['modeling_mosaic'] = None\n"

LOAD = """
import json
import huggingface_hub.constants
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

# Of a download that breaks off, whole pieces are kept: 10 MB otherwise.
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 4096
output, text, *repos = sys.argv[1:]
result = {}
for repo in repos:
    repo_id, _, revision = repo.partition("@")
    remote = {"trust_remote_code": True, "revision": revision or "main"}
    tokenizer = AutoTokenizer.from_pretrained(repo_id, **remote)
    model = AutoModelForCausalLM.from_pretrained(repo_id, **remote)
    assert type(model).__module__.startswith("transformers_modules")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        result[repo] = model(ids).logits
    write = pipeline("text-generation", repo_id, **remote)
    story = write(text, max_new_tokens=5, do_sample=False, return_full_text=False)[0]["generated_text"]
    result[repo + " story"] = tokenizer(story, return_tensors="pt")["input_ids"]
save_file(result, output)
exec(sys.stdin.read())
"""

STEPS = """
import contextlib, io, json, os, socket, sys, time
from mosaic_lab.programs import push_to_hub

# Failed requests are repeated five times, after seconds.
time.sleep = lambda seconds: None
connect, outcomes = socket.socket.connect, []

def refuse(*args):
    raise AssertionError("a request")

for step in json.loads(sys.argv[1]):
    os.environ.pop("HF_TOKEN", None)
    if step["token"]:
        os.environ["HF_TOKEN"] = step["token"]
    socket.socket.connect = refuse if step["offline"] else connect
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            push_to_hub.main(step["argv"])
        except SystemExit as stop:
            status = stop.code
    outcomes.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(outcomes))
"""

TRAINERS = """
import sys
from mosaic_lab.programs import train
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

recipe, trained, folder = sys.argv[1:]
hub = ["--push_to_hub", "true", "--hub_always_push", "true"]
train.main([recipe, "--output_dir", f"{folder}/recipe", *hub, "--hub_model_id", "somebody/recipe"])
plain = Trainer(
    AutoModelForCausalLM.from_pretrained(trained),
    TrainingArguments(f"{folder}/plain", push_to_hub=True, hub_model_id="somebody/plain", use_cpu=True),
    processing_class=AutoTokenizer.from_pretrained(trained),
)
plain.push_to_hub()
"""

DATA_SET = """
import re, sys
from pathlib import Path
from mosaic_lab.programs import push_to_hub
from huggingface_hub import hf_hub_download

push_to_hub.main(sys.argv[1:])
card = Path(hf_hub_download(sys.argv[2], "README.md", repo_type="dataset")).read_text()
exec(re.search(r"```python\\n(.*?)```", card, flags=re.DOTALL)[1])
for row in languages["train"]:
    for token, state in zip(row["input_ids"][1:], row["states"]):
        assert token in row["symbols"][state] or token == 19
print({split: len(rows) for split, rows in languages.items()})
"""


@pytest.fixture(scope="module")
def hub():
    with run_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    """Runs Python in a process of its own, with an empty home, on the local Hub."""

    def run_python(*argv, stdin=""):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path_factory.mktemp("home")),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": WRITER,
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPTS}",
        }
        process = subprocess.run(
            [sys.executable, *map(str, argv)],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run_python


@pytest.fixture(scope="module")
def evaluation(trained, tmp_path_factory):
    """What `evaluate.py` leaves, in short."""
    folder = tmp_path_factory.mktemp("evaluation")
    figures = {"loss": {"mean": 1.25}, "perplexity": {"mean": 3.5}}
    content = {
        "architectures": {trained.name: "mosaic", "other": "gpt2"},
        "texts": [{"name": "tales", "models": {trained.name: figures, "other": {}}}],
        "induction": {trained.name: {"accuracy": {"mean": 0.75}}, "other": {}},
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def pushed(trained, evaluation, run):
    """What the program says of an upload."""
    return run(SCRIPTS / "push_to_hub.py", trained, REPO, "--evaluation", evaluation)


def load_without_package(run, output, *repos, then=""):
    """Logits on TEXT and continuations of each repository; runs the code `then` in the same process."""
    printed = run("-c", WITHOUT_PACKAGE + LOAD, output, TEXT, *repos, stdin=then)
    return load_file(output), printed


def find_code(card):
    (block,) = re.findall(r"```python\n(.*?)```", card.decode(), flags=re.DOTALL)
    return block


def expected(folder):
    """Logits of the local model on TEXT."""
    ids = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(ids).logits


def test_one_commit_with_all_that_loading_needs(pushed, hub):
    assert "loaded without this package: same tokens, and logits within" in pushed
    assert hub.messages(REPO) == ["Upload model"]
    saved = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    saved |= {"tokenizer_config.json", "loss_curve.json", "loss_curve.png", "README.md", ".gitattributes"}
    assert set(hub.files(REPO)) == saved | CODE
    # The weights went in parts.
    assert [path for method, path, _ in hub.requests if method == "PUT" and path.endswith("/2")]
    assert b"local_files_only" not in hub.files(REPO)["tokenizer_config.json"]


def test_card(pushed, hub, trained):
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    curve = json.loads((trained / "loss_curve.json").read_text())
    measures = {(result.dataset_name, result.metric_type): result for result in card.data.eval_results}
    assert measures["stories", "loss"].metric_value == curve["validation"]["loss"][-1]
    assert measures["tales", "perplexity"].metric_value == 3.5
    assert measures["random segments, repeated", "accuracy"].metric_value == 0.75
    assert len(measures) == 6
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    assert card.data.pipeline_tag == "text-generation" and card.data.model_name == "stories"
    for fact in ("learning_rate: 0.03\n", "num_stories: 100\n", "12 steps of 4,096 tokens", "2 layers"):
        assert fact in card.text
    assert str(trained.parent) not in card.content


def test_loads_where_the_package_is_missing(pushed, run, hub, trained, tmp_path):
    """Tokenizer, model, pipeline and the card's code, although a download of the weights breaks off."""
    hub.dropped.add("model.safetensors")
    code = find_code(hub.files(REPO)["README.md"])
    loaded, printed = load_without_package(run, tmp_path / "loaded.safetensors", REPO, then=code)
    assert printed.startswith(TEXT)
    assert not hub.dropped
    ranges = [headers["range"] for _, path, headers in hub.requests if "/cdn/" in path and "range" in headers]
    size = (trained / "model.safetensors").stat().st_size
    (start,) = re.fullmatch(r"bytes=(\d+)-", ranges[0]).groups()
    assert len(ranges) == 1 and size // 2 - 4096 <= int(start) <= size // 2
    assert torch.allclose(loaded[REPO], expected(trained), atol=1e-5)
    assert loaded[f"{REPO} story"].shape[1] >= 1


def test_what_goes_wrong_is_one_line_and_breaks_nothing(pushed, run, hub, trained, tmp_path):
    before = hub.repositories["models", REPO].commits[-1]
    hub.failures |= {"/lfs/somebody/no-weights/": 500, "/somebody/no-commit/commit/": 500}
    hub.failures[f"/{REPO}/commit/"] = 500
    here, dry = str(trained), str(tmp_path / "dry")
    steps = [
        ([here, "somebody/new"], None, "somebody/new: there is no token"),
        ([here, "somebody/new"], "hf_wrong", "somebody/new: the Hub does not know this token (401)"),
        ([here, "somebody/new"], READER, "somebody/new: this token has no permission to write there (403)"),
        ([here, "else/new"], WRITER, "else/new: this token has no permission to write there (403)"),
        ([here, "a/b/c"], WRITER, "repo_id a/b/c: "),
        ([here, "stories"], WRITER, "repo_id stories: must be owner/name"),
        ([f"{here}/none", "somebody/new"], WRITER, "none: there is no such folder"),
        ([str(tmp_path), "somebody/new"], WRITER, "there is no model in it (config.json)"),
        ([here, "somebody/new", "--repo_type", "dataset"], WRITER, "no data set's card in it (README.md)"),
        ([here, "somebody/new", "--evaluation", here], WRITER, "there is no evaluation.json in it"),
        ([here, REPO, "--private"], WRITER, f"private: {REPO} exists and is public"),
        ([here, "somebody/no-weights"], WRITER, "somebody/no-weights: Server error '500"),
        ([here, "somebody/no-commit"], WRITER, "somebody/no-commit: Server error '500"),
        ([here, REPO, "--license", "mit"], WRITER, f"{REPO}: Server error '500"),
        ([here, "somebody/dry", "--dry_run", here], None, f"dry_run {here}: cannot be created: File exists"),
    ]
    calls = [{"argv": argv, "token": token, "offline": token is None} for argv, token, _ in steps]
    calls.append({"argv": [here, "somebody/dry", "--dry_run", dry], "token": WRITER, "offline": True})
    *failed, (status, said, _) = json.loads(run("-c", STEPS, json.dumps(calls)).splitlines()[-1])
    hub.failures.clear()
    for (code, _, err), (argv, _, reason) in zip(failed, steps, strict=True):
        lines = [line for line in err.splitlines() if line.startswith("push_to_hub: error: ")]
        assert code == 2 and len(lines) == 1 and reason in lines[0], (argv, err)
        assert "Traceback" not in err
    assert status == 0 and f"prepared in {dry}; nothing was uploaded" in said
    assert {path.name for path in Path(dry).iterdir()} == set(hub.files(REPO)) - {".gitattributes"}
    for name in ("somebody/no-weights", "somebody/no-commit"):
        assert set(hub.files(name)) == {".gitattributes"}
    assert hub.repositories["models", REPO].commits[-1] is before
    assert not {("models", "somebody/new"), ("models", "somebody/dry")} & set(hub.repositories)


def test_trainer_uploads_what_loads(run, hub, recipe, trained, tmp_path):
    """Also during training, and with a plain `Trainer`."""
    run("-c", TRAINERS, recipe, trained, tmp_path)
    in_training = "Training in progress, step 6"
    messages = hub.messages("somebody/recipe")
    assert messages[0] == in_training and messages[-1] == "Upload model"
    assert not [name for name in hub.files("somebody/recipe") if name.endswith(".bin") or "/" in name]
    assert hub.messages("somebody/plain") == ["End of training"]
    commits = hub.repositories["models", "somebody/recipe"].commits
    assert not [name for _, _, files in commits for name in files if "training_args" in name]
    first = commits[1][0]
    repos = [f"somebody/recipe@{first}", "somebody/recipe", "somebody/plain"]
    loaded, _ = load_without_package(run, tmp_path / "loaded.safetensors", *repos)
    halfway, end = expected(trained / "checkpoint-6"), expected(trained)
    for repo, logits in zip(repos, (halfway, end, end), strict=True):
        assert torch.allclose(loaded[repo], logits, atol=1e-4), repo


def test_data_set(run, hub, tmp_path):
    """RegBench's splits, made, uploaded and loaded as its card says."""
    folder = tmp_path / "languages"
    sizes = "--num_train 12 --num_validation 3 --num_test 4 --max_string_length 5".split()
    reproduce.main(["regbench/data", "--output_dir", str(folder), *sizes])
    # What make_stories.py leaves besides: the one belongs to the data set, the other does not.
    (folder / "statistics.json").write_text("{}")
    (folder / "shards").mkdir()
    (folder / "shards" / "stories-00000.jsonl").write_text("{}")
    said = run("-c", DATA_SET, folder, "somebody/regbench", "--repo_type", "dataset")
    assert "downloaded into an empty folder: the same 5 files" in said
    assert said.splitlines()[-1] == "{'train': 12, 'validation': 3, 'test': 4}"
    assert hub.messages("somebody/regbench", "datasets") == ["Upload dataset"]
    readme = hub.files("somebody/regbench", "datasets")["README.md"]
    assert 'load_dataset("somebody/regbench")' in find_code(readme)
    card = DatasetCard(readme.decode())
    assert card.data.license == "apache-2.0" and "| train | 12 | 12 |" in card.text


def test_regbench_folder_must_be_new(tmp_path, read_error):
    (tmp_path / "thesis.txt").write_text("mine")
    error = read_error(reproduce.main, "regbench/data", "--output_dir", tmp_path)
    assert "there is something already" in error
    error = read_error(reproduce.main, "regbench/data", "--output_dir", tmp_path / "new", "--num_test", "0")
    assert "num_test must be at least 1, not 0" in error


def test_token_is_not_pickled(recipe, tmp_path, read_error):
    options = ["--output_dir", tmp_path / "out", "--hub_token", "hf_secret"]
    error = read_error(train.main, recipe, *options)
    assert "hub_token would be written" in error and "hf_secret" not in error
