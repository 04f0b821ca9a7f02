"""README and docs are true: examples run, and what they name is there."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from docs_tables import ROOT
from modeling_mosaic import MosaicForCausalLM, MosaicMemory

PAGES = ("README.md", "CONTRIBUTING.md", "results/README.md")
# Where the recipes of each command are.
RECIPES = {
    "train": "train",
    "make-stories": "stories",
    "benchmark": "benchmark",
    "reproduce": ".",
    "evaluate --recipe": "evaluation",
}


@pytest.fixture(scope="module")
def pages():
    """The text of each page, by its path."""
    paths = [*(ROOT / page for page in PAGES), *sorted((ROOT / "docs").glob("*.md"))]
    return {path: path.read_text() for path in paths}


def test_examples(demo, run_examples, capsys):
    names = run_examples("README.md", "## Load and generate")
    assert "Once upon a time" in capsys.readouterr().out
    names = run_examples("README.md", "## Train your own", **names)
    assert (demo / "runs" / "cats" / "model.safetensors").exists()
    inputs = names["tokenizer"]("A dog had a red ball.", return_tensors="pt")
    untrained, trained = (
        model(**inputs, labels=inputs["input_ids"]).loss.item()
        for model in (MosaicForCausalLM(names["config"]), names["trainer"].model.eval())
    )
    assert trained < untrained - 1


def test_the_story_of_memories(run_examples, capsys):
    names = run_examples("docs/memories.md", "## A story")
    shown = capsys.readouterr().out
    tom, anna, memory = (names[name] for name in ("tom", "anna", "memory"))
    # At first, all of both books; at last, Tom's without what is about the colour of his boat.
    assert f"{{'tom': {len(tom)}, 'anna': {len(anna)}}}" in shown
    assert memory.sources == ("tom",)
    held = [(token.start, token.end) for pair in range(len(memory)) for token in memory.where(pair)]
    start, end = names["start"], names["start"] + len("blue")
    assert 0 < len(memory) < len(tom) and not any(a < end and b > start for a, b in held)
    assert f"{len(memory)} pairs are left of {len(tom)}" in shown
    assert (
        names["answer"].shape
        == names["asked_again"].shape
        == (1, names["question"]["input_ids"].shape[1] + 10)
    )
    run_examples("docs/memories.md", "## Where an answer comes from", **names)
    assert capsys.readouterr().out.count("in tom\n") == names["model"].config.num_attention_heads
    uploaded = Path(names["folder"], "memory.safetensors")
    with safe_open(uploaded, "pt") as file:
        assert file.metadata()["version"] == "1"
    assert torch.equal(MosaicMemory.load(uploaded).keys, memory.keys)


def test_the_answer_depends_on_what_is_in_memory(run_examples):
    """In the story, with larger weights: the logits after the question change with each act."""
    names = run_examples("docs/memories.md", "## A story")
    ids, model = names["question"]["input_ids"], names["model"]
    memories = [names["tom"], names["tom"] + names["anna"], names["memory"], None]
    with torch.no_grad():
        logits = [
            model(ids, cache=None if each is None else each.end_text().to_cache()).logits for each in memories
        ]
    for number, one in enumerate(logits):
        assert all(not torch.allclose(one, other, atol=1e-4) for other in logits[:number])


def test_links_lead_somewhere(pages):
    for page, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
                shown = (re.sub(r"[^\w -]", "", heading.lower()) for heading in headings)
                assert anchor in {heading.replace(" ", "-") for heading in shown}, target


def test_names_exist(pages):
    """Every class, function and file that a page names is there, and every recipe that a command takes."""
    sources = "".join(path.read_text() for path in (ROOT / "modeling_mosaic").rglob("*.py"))
    for text in pages.values():
        for name in re.findall(r"`(Mosaic\w+|leaky_average\w*|create_\w+|eager_\w+)`", text):
            assert f"class {name}" in sources or f"def {name}" in sources, name
        folders = "modeling_mosaic|scripts|tests|configuration|results|docs"
        for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
            assert (ROOT / path).exists(), path
        for program, recipe in re.findall(rf"mosaic ({'|'.join(RECIPES)}) ([a-z][\w/-]*)(?![\w./-])", text):
            path = ROOT / "configuration" / RECIPES[program] / f"{recipe}.yaml"
            assert path.exists(), f"mosaic {program} {recipe}"


def test_nothing_lies_outside_the_repository():
    """Pages, results and the Makefile name no file beside the repository, which others do not have."""
    paths = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").iterdir()]
    paths += [path for path in (ROOT / "results").rglob("*") if path.suffix in (".md", ".json")]
    assert [path for path in paths if re.search(r"\.\./shared|/work/|/tmp/|/home/", path.read_text())] == []


def test_examples_of_bounded_memories(run_examples, capsys):
    names = run_examples("docs/bounded_memories.md", "## Bounded memories")
    assert names["cache"].layers[0].keys.shape[2] == 17
    assert "tokens seen, 16 pairs held" in capsys.readouterr().out
    pytest.importorskip("faiss", reason="the extra `search` is not installed")
    names = run_examples("docs/bounded_memories.md", "## Searched memories", **names)
    assert names["outputs"].shape[1] == names["inputs"]["input_ids"].shape[1] + 40
