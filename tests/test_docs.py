"""README and docs are true: examples run, and what they name is there."""

import re

import pytest

from modeling_mosaic import MosaicForCausalLM

PAGES = ("README.md", "CONTRIBUTING.md")
# Where the recipes of each command are.
RECIPES = {"train": "train", "make-stories": "stories", "benchmark": "benchmark", "reproduce": "."}


@pytest.fixture(scope="module")
def pages(request):
    """The text of each page, by its path."""
    root = request.config.rootpath
    paths = [*(root / page for page in PAGES), *sorted((root / "docs").glob("*.md"))]
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
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


def test_names_exist(request, pages):
    """Every class, function and file that a page names is there, and every recipe that a command takes."""
    root = request.config.rootpath
    sources = "".join(path.read_text() for path in (root / "modeling_mosaic").glob("*.py"))
    for text in pages.values():
        for name in re.findall(r"`(Mosaic\w+|leaky_average\w*|create_\w+|eager_\w+)`", text):
            assert f"class {name}" in sources or f"def {name}" in sources, name
        folders = "modeling_mosaic|scripts|tests|configuration|results|docs"
        for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
            assert (root / path).exists(), path
        for program, recipe in re.findall(rf"mosaic ({'|'.join(RECIPES)}) ([a-z][\w/-]*)(?![\w./-])", text):
            path = root / "configuration" / RECIPES[program] / f"{recipe}.yaml"
            assert path.exists(), f"mosaic {program} {recipe}"
