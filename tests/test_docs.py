"""README and docs are true: examples run, what they name is there, and numbers are those of the results."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, MosaicMemory
from mosaic_lab.attention_maps.report import AVERAGES
from mosaic_lab.attention_maps.report import group as group_maps
from mosaic_lab.benchmark.report import compute_ratios
from mosaic_lab.bounding.report import NAMES as POLICY_LABELS
from mosaic_lab.bounding.report import WHOLE, group_by_memory
from mosaic_lab.comparison.report import group_runs, losses_of
from mosaic_lab.core.command import load_recipe
from mosaic_lab.core.figures import name_of
from mosaic_lab.core.work import load_gathered
from mosaic_lab.in_context.report import format_accuracy
from mosaic_lab.inspection.report import WORTH_LISTING, mosaics
from mosaic_lab.merging.parts import ALONE, MERGED, NOTHING
from mosaic_lab.merging.report import average
from mosaic_lab.merging.report import group as group_merged
from mosaic_lab.regbench.report import choose_best
from mosaic_lab.searching.report import SHARES
from mosaic_lab.three_moons.report import summarise
from mosaic_lab.training.contestants import choose_best as choose_best_runs
from mosaic_lab.training.contestants import format_values

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "results/README.md")
# Where the recipes of each command are.
RECIPES = {
    "train": "train",
    "make-stories": "stories",
    "benchmark": "benchmark",
    "reproduce": ".",
    "evaluate --recipe": "evaluation",
}
LANGUAGE, SYNTHETIC = "docs/language_modelling.md", "docs/synthetic.md"
# The results behind the pages.
MAPS = "attention_maps/tinystories"
EVALUATIONS = {1: "evaluation/tinystories-1", 2: "evaluation/tinystories-2", 4: "evaluation/tinystories-4"}
IN_CONTEXT = {
    "### Associative recall": "recall",
    "### Facts in a long text": "facts",
    "### Anonymous labels": "labels",
}
# By their names without the depth.
LONG_CONTEXTS = {
    "mosaic": "mosaic",
    "mosaic-v2": "mosaic-v2",
    "mosaic-v2-constant-bandwidth": "mosaic-v2, constant bandwidth",
    "mosaic-v2-constant-gates": "mosaic-v2, constant gates",
    "mosaic-v2-trained-pairs": "mosaic-v2, trained pairs",
    "mosaic-v2-one-memory": "mosaic-v2, one memory",
    "mosaic-v2-fixed": "mosaic-v2, fixed delay",
    "llama": "Llama",
    "gpt2": "GPT-2",
}
REGBENCH = {
    "mosaic": "Memory Mosaic",
    "gpt2": "GPT-2",
    "llama": "Llama (RoPE)",
    "mamba2": "Mamba-2",
    "rwkv": "RWKV",
    "1-gram": "counting single symbols in the context",
    "2-gram": "counting 2-grams in the context",
    "3-gram": "counting 3-grams in the context",
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


def section(page: str, heading: str) -> str:
    """What stands under a heading of a page, up to the next one."""
    _, found, text = (ROOT / page).read_text().partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r} in {page}"
    return re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of all lines of the tables under a heading of a page, without emphasis."""
    return cells_of(section(page, heading))


def cells_of(text: str) -> list[list[str]]:
    """The cells of all lines of tables, without emphasis."""
    lines = text.splitlines()
    lines = [line for line in lines if line.startswith("|") and set(line) - set("|- ")]
    return [[re.sub(r"\*\*|`", "", cell).strip() for cell in line.split("|")[1:-1]] for line in lines]


def row(page: str, heading: str, *start: str) -> list[str]:
    """The cells behind `start` in the one line under a heading that begins so."""
    found = [cells[len(start) :] for cells in rows(page, heading) if cells[: len(start)] == list(start)]
    assert len(found) == 1, f"{page}, {heading}: {len(found)} lines begin with {start}"
    return found[0]


def as_shown(cell: str, value: float) -> str:
    """`value` with the decimals, the sign and the unit of `cell`."""
    shown = re.fullmatch(r"([+-]?)[\d,]*\.?(\d*)(%?)", cell)
    assert shown, f"{cell!r} is no number"
    sign, decimals, percent = shown.groups()
    return f"{value:{'+' if sign else ''},.{len(decimals)}{percent or 'f'}}"


def check(cells: list[str], values: list[float], what: str) -> None:
    """All cells show their values."""
    assert cells == [as_shown(*pair) for pair in zip(cells, values, strict=True)], what


def load(name: str, file: str = "results.json"):
    return json.loads((ROOT / "results" / name / file).read_text())


def bullet(title: str) -> str:
    """The text of the item of the README that begins with `title`, on one line."""
    found = re.findall(rf"^- \*\*{title}\.\*\*((?:.|\n  )+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(found) == 1, title
    return " ".join(found[0].split())


def last_stretch(depth: int) -> dict[str, dict]:
    """By kind of model, the last losses on WikiText-2 minus GPT-2's."""
    stretches = load(EVALUATIONS[depth], "evaluation.json")["texts"][1]["stretches"]
    return {name.split(",")[0]: record for name, record in stretches[-1]["differences"].items()}


@pytest.mark.parametrize(
    ("heading", "name"),
    [("## On the embedded stories", "comparison/small"), ("## On TinyStories", "comparison/tinystories")],
)
def test_numbers_of_the_comparison(heading, name):
    results = load(name)
    groups = group_runs(results)
    means = {key: losses_of(runs, "validation").mean() for key, runs in groups.items()}
    assert len([cells for cells in rows(LANGUAGE, heading) if cells[0].isdigit()]) == len(groups)
    for (depth, model), runs in groups.items():
        kind = runs[0]["model_type"]
        parameters, seeds, mean, difference = row(LANGUAGE, heading, str(depth), name_of(kind))
        check([parameters, mean], [runs[0]["num_parameters"], means[depth, model]], model)
        assert row(LANGUAGE, heading, "layers")[2] == "seeds " + ", ".join(str(run["seed"]) for run in runs)
        check(seeds.split(", "), list(losses_of(runs, "validation")), model)
        if kind != "gpt2":
            check([difference], [means[depth, model] - means[depth, f"gpt2-{depth}"]], model)
    text = section(LANGUAGE, heading)
    bigram = re.search(r"bigram\s+model\s+has\s+(\S+?)[:.]?\s", text)[1]
    check([bigram], [results[0]["bigram_loss"]], "bigrams")
    corpus = results[0]["corpus"]
    if name == "comparison/small":
        assert corpus["sha256"] in text
    else:
        assert row(LANGUAGE, heading, "train.jsonl")[0] == f"{corpus['num_train']:,}"
        assert row(LANGUAGE, heading, "validation.jsonl")[0] == f"{corpus['num_validation']:,}"


def test_the_sample_is_described_once():
    """Sizes and checksums of its files are the same wherever they stand."""
    for file in ("train.jsonl", "validation.jsonl"):
        described = row("results/README.md", "## The sample of TinyStories", file)
        assert row(LANGUAGE, "## On TinyStories", file) == described


@pytest.mark.parametrize(
    ("page", "recipe", "peer"),
    [("docs/speed.md", "operations", "gpt2"), ("docs/v2.md", "v2-operations", "llama")],
)
def test_numbers_of_operations(page, recipe, peer):
    (path,) = (ROOT / "results" / "benchmark").glob(f"????-??-??-{recipe}-*.json")
    cells = {cell["name"].removesuffix("-eager"): cell for cell in json.loads(path.read_text())["cells"]}
    shown = {
        "a decoded token, one row": "operations-decode-64+2-batch1",
        "a decoded token, eight rows": "operations-decode-64+2-batch8",
        "prefill of 512 tokens": "operations-prefill-512-batch1",
        "training step, 512 tokens": "operations-train-512-batch1",
    }
    assert [cells[0] for cells in rows(page, "## Operations")[1:]] == list(shown)
    for label, name in shown.items():
        counts = cells[name]["operations"]
        numbers = [counts["mosaic"], counts[peer], counts["mosaic"] / counts[peer]]
        check(row(page, "## Operations", label), numbers, name)


def test_numbers_of_other_text():
    heading, shown = "## Text unlike the training data", 0
    for depth, name in EVALUATIONS.items():
        text = load(name, "evaluation.json")["texts"][1]
        assert text["name"].startswith("wikitext2")
        labels = [f"{stretch['first']} to {stretch['last']}" for stretch in text["stretches"]]
        assert row(LANGUAGE, heading, "tokens behind") == labels
        for architecture in text["differences"]:
            kind = name_of(architecture.split(",")[0])
            values = [stretch["differences"][architecture]["mean"] for stretch in text["stretches"]]
            label = f"{kind}, {depth} layer{'' if depth == 1 else 's'}"
            check(row(LANGUAGE, heading, label), values, architecture)
            shown += 1
    assert len([cells for cells in rows(LANGUAGE, heading) if "layer" in cells[0]]) == shown


def test_numbers_of_attention():
    heading, groups = "## Where attention goes", group_maps(load(MAPS))
    table = rows(LANGUAGE, heading)[1:]
    assert len(table) == len(groups)
    for same in groups:
        context, kind = f"{same[0]['context']:,}", name_of(same[0]["architecture"].split(",")[0])
        (cells,) = [cells for cells in table if cells[0] == context and cells[1].startswith(kind)]
        values = []
        for metric in ("sink_share", "far_to_near", "unevenness"):
            heads = [result["heads"][metric] for result in same]
            values.append(AVERAGES[metric](np.array(heads, dtype=float)))
        check(cells[2:], values, f"{kind} at {context}")


def test_numbers_of_regbench():
    heading, best = "## RegBench", {result["model"]: result for result in choose_best(load("regbench/small"))}
    assert best.keys() == REGBENCH.keys() and len(rows(SYNTHETIC, heading)) == 1 + len(best)
    for model, label in REGBENCH.items():
        parameters, *scores = row(SYNTHETIC, heading, label)
        check(scores, [best[model]["accuracy"], best[model]["tvd"]], model)
        number = best[model]["num_parameters"]
        assert parameters == ("-" if number is None else f"{number:,}")


# The first cells of lines in docs/language_modelling.md.
DEMO_NAMES = {
    "demo-neither": ("no", "no"),
    "demo-apart": ("no", "yes"),
    "demo-order": ("yes", "no"),
    "demo-both": ("yes", "yes"),
}


def test_numbers_of_regbench_as_published():
    heading = "### With its own strings"
    best = {result["model"]: result for result in choose_best(load("regbench/published"))}
    for model, scores in best.items():
        number, (parameters, *shown, _) = scores["num_parameters"], row(SYNTHETIC, heading, REGBENCH[model])
        assert parameters == ("-" if number is None else f"{number:,}")
        check(shown, [scores["accuracy"], scores["tvd"]], model)
    lower = next(each for each in load("regbench/published") if each.get("learning_rate") == 1e-3)
    text = " ".join(section(SYNTHETIC, heading).split())
    assert f"with the lower rate are {lower['accuracy']:.3f} and {lower['tvd']:.3f}" in text


def check_names(record: dict, *start: str) -> None:
    """A line under "Names" shows the losses of a model, and which names in its stories belong."""
    *losses, shares = row(LANGUAGE, "## Names", *start)
    check(losses, [record["repeated"]["mean"], record["other"]["mean"]], start)
    share = record["belonging"]
    shown = re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", shares).groups()
    check(list(shown), [share["mean"], share["low"], share["high"]], start)


def test_numbers_of_names():
    """Losses and shares of all models, and the strongest unit of each mosaic."""
    heading, results = "## Names", load("evaluation/names", "evaluation.json")
    for model, architecture in results["architectures"].items():
        kind, depth, _ = architecture.split(", ", 2)
        check_names(results["names"][model], f"{name_of(kind)}, {depth}")
    for model, record in results["units"].items():
        depth = results["architectures"][model].split(", ")[1].split()[0]
        last = [unit for unit in record["units"] if unit["layer"] == int(depth) - 1]
        best = max(last, key=lambda unit: unit["copies"])
        values = [best[name] for name in ("right", "name", "peek", "copies")]
        check(row(LANGUAGE, heading, depth, f"{best['layer']}, {best['unit']}"), values, model)
        text = section(LANGUAGE, heading)
        even = re.search(r"be (0\.\d+) and (0\.\d+)", text).groups()
        check(list(even), [record["even_right"], record["even_name"]], "even weights")


def test_numbers_of_names_in_the_demo():
    """The demo's recipe with and without its order, and with and without its borders between stories."""
    shuffled, ordered = (
        load(f"evaluation/demo-names-{order}", "evaluation.json") for order in ("shuffled", "ordered")
    )
    names = shuffled["names"] | ordered["names"]
    assert names.keys() == DEMO_NAMES.keys()
    for model, start in DEMO_NAMES.items():
        check_names(names[model], *start)
    units = ordered["units"]["demo-both"]["units"]
    for unit in sorted(units, key=lambda unit: unit["copies"])[-2:]:
        shown = rf"unit {unit['unit']} of layer {unit['layer']}\s+\((\S+) of the\s+weight, (\S+)\s+nats\)"
        cells = re.search(shown, section(LANGUAGE, "## Names")).groups()
        check(list(cells), [unit["right"], unit["copies"]], unit)


def test_numbers_of_the_scale_of_logits():
    shown = {
        "logit_scale 1": ("logit_scale", "one"),
        "1 / sqrt(64)": ("logit_scale", "original"),
        "1 / sqrt(64), four times the rate": ("logit_scale-fast", "original"),
    }
    heading = "## The scale of the logits"
    steps = [int(cell.replace(",", "")) for cell in row(LANGUAGE, heading, "steps")]
    for label, (name, model) in shown.items():
        with np.load(ROOT / "results" / "comparison" / name / "figures.npz") as arrays:
            losses = dict(
                zip(*(arrays[f"{model}-seed0/validation_{axis}"] for axis in ("step", "loss")), strict=True)
            )
        cells = [cell for cell in row(LANGUAGE, heading, label) if cell]
        check(cells, [losses[step] for step in steps if step in losses], label)


def test_numbers_of_the_speedrun():
    """The record is that of the recipes as they stand."""
    results, heading = load("speedrun"), "## The record"
    assert len(rows("docs/speedrun.md", heading)) == 1 + len(results)
    for result in results:
        assert result["options"] == load_recipe(ROOT / "configuration" / "train" / f"{result['recipe']}.yaml")
        parameters, tokens, operations, *measured = row("docs/speedrun.md", heading, result["recipe"])[1:]
        check([parameters, tokens], [result["num_parameters"], result["tokens"]], result["recipe"])
        assert operations == f"{6 * result['num_parameters'] * result['tokens']:.2e}".replace("+", "")
        share = result["seconds"] / results[0]["seconds"]
        check(measured, [result["seconds"], share, result["bits_per_byte"]], result["recipe"])


@pytest.mark.parametrize(("heading", "task"), IN_CONTEXT.items())
def test_numbers_of_tasks_in_context(heading, task):
    """The table of docs/v2.md has all contestants, and columns of the one that the runs left."""
    best = choose_best_runs(load(f"in_context/{task}"), key=lambda result: result["model"])
    columns, shown = (
        [list(column) for column in zip(*table, strict=True)]
        for table in (cells_of(format_accuracy(best)), rows("docs/v2.md", heading))
    )
    assert shown[0][1:] == columns[0][1:] and all(column in columns[1:] for column in shown[1:])


def test_numbers_of_regbench_for_v2():
    best = choose_best_runs(load("regbench/v2"), key=lambda result: result["model"])
    shown = {name: scores for name, *scores in rows("docs/v2.md", "### RegBench")[1:]}
    assert shown == {
        name: [format_values([run[score] for run in runs]) for score in ("accuracy", "tvd")]
        for name, runs in best.items()
    }


def test_numbers_of_long_contexts():
    """The table of docs/v2.md has all models of the comparison, and the last stretches of long rows."""
    page, heading = "docs/v2.md", "## Stories, and contexts beyond those of training"
    groups = group_runs(load("comparison/v2"))
    shown = rows(page, heading)[0][3:]
    long: dict[str, list[float]] = {}
    for evaluation in ("evaluation/contexts", "evaluation/ablations"):
        stretches = load(evaluation, "evaluation.json")["texts"][0]["stretches"]
        stretches = [each["models"] for each in stretches if f"{each['first']} to {each['last']}" in shown]
        long |= {name: [each[name]["mean"] for each in stretches] for name in stretches[0]}
    assert len(rows(page, heading)) == 1 + len(groups)
    for (depth, model), runs in groups.items():
        validation, *cells = row(page, heading, str(depth), LONG_CONTEXTS[model.replace(f"-{depth}", "")])
        assert validation == format_values(list(losses_of(runs, "validation"))), model
        found = [long[run["name"]] for run in runs if run["name"] in long]
        check([cell for cell in cells if cell], sum(found, []), model)


def merging_cells(results: list[dict], metrics: list[str], text: str) -> Iterator[tuple[list[str], list]]:
    """The first cells of each line of a table of docs/memories.md, and the values of the others."""
    numbers = results[0]["num_parts"]
    lines = {"all parts": (MERGED, numbers), "the last part": (ALONE, numbers[1:]), "nothing": (NOTHING, [0])}
    for (kind, depth), same in group_merged([result for result in results if result["text"] == text]).items():
        for label, (memory, columns) in lines.items():
            found = [
                [average(same, memory, number, metric)["mean"] for metric in metrics] for number in columns
            ]
            yield [name_of(kind), str(depth), label], found


def test_numbers_of_merging():
    """Each table's lines, in the order of the results; what cannot be measured is empty."""
    table = iter([cells for cells in rows("docs/memories.md", "## What merging costs") if cells[1].isdigit()])
    texts = load("merging/stories")
    other = texts[-1]["text"]
    for results, metrics, text in (
        (load("merging/regbench"), ["distance", "accuracy"], "RegBench"),
        (texts, ["loss"], "stories"),
        (texts, ["loss"], other),
    ):
        for start, values in merging_cells(results, metrics, text):
            line = next(table)
            assert line[:3] == start
            shown = [cell.split(" / ") for cell in line[3:] if cell]
            for cell, value in zip(shown, values, strict=True):
                check(cell, value, f"{text}, {start}")
    assert next(table, None) is None
    groups = group_merged(load("merging/regbench"))
    page = " ".join((ROOT / "docs/memories.md").read_text().split())
    for key, pattern in {
        ("mosaic", 4): r"the distance rises by (\S+) when .* last string are worth (\d\.\d+)",
        ("mosaic_v2", 2): r"With the second model, the distance rises by (\S+) of (\d\.\d+)",
    }.items():
        costs = [average(groups[key], memory, 8, "distance")["difference"] for memory in (MERGED, ALONE)]
        check(list(re.search(pattern, page).groups()), costs, f"{key}, eight parts")


def test_numbers_of_three_moons():
    heading = "## Three moons"
    summary = {name: summarise(load(f"three_moons/{name}")) for name in ("grid", "free", "paper")}
    for group in summary["grid"]["groups"]:
        errors = group["errors"]["validation"]
        label = "one memory" if group["num_memories"] == 1 else "three memories"
        values = [errors[place] for place in ("before_max", "midway", "after_lcm")]
        check(row(SYNTHETIC, heading, label), values, label)
        check(row(SYNTHETIC, heading, "repeating the last observation"), 3 * [errors["repeated"]], label)
    recipes = {
        "three_moons/grid": ("grid", "adam"),
        "the same with freely drawn periods": ("free", "adam"),
        "three_moons/paper": ("paper", "adam"),
        "the same without bias correction": ("paper", "uncorrected_adam"),
    }
    for start, (name, optimizer) in recipes.items():
        (cells,) = [cells for cells in rows(SYNTHETIC, heading) if cells[0].startswith(start)]
        (group,) = [
            group
            for group in summary[name]["groups"]
            if (group["num_memories"], group["optimizer"]) == (3, optimizer)
        ]
        assert cells[1] == f"{group['disentangled']} of {group['runs']}", start
        check(cells[2:], [min(group["purities"])], start)
    text = (ROOT / SYNTHETIC).read_text()
    for name, pattern in {
        "grid": r"least common multiple, to (\S+) of what .* midway is (\S+) of the other's",
        "free": r"error then falls to (\S+) after .* of three memories is (\S+) of it midway",
    }.items():
        shown = re.search(pattern, " ".join(text.split())).groups()
        ratios = summary[name]["ratios"]
        check(list(shown), [ratios["one_after_to_before_lcm"], ratios["three_to_one_midway"]], name)


@pytest.mark.parametrize(
    ("page", "peer", "recipes"),
    [
        ("docs/speed.md", "GPT-2", {"small": "cpu-small", "medium": "cpu-medium"}),
        ("docs/v2.md", "Llama", {"small": "v2-cpu-small"}),
    ],
)
def test_numbers_of_speed(page, peer, recipes):
    heading, ratio = "## Time and memory", f"mosaic / {peer}"
    records = {}
    for size, recipe in recipes.items():
        (path,) = (ROOT / "results" / "benchmark").glob(f"????-??-??-{recipe}-*.json")
        records[size] = json.loads(path.read_text())
    assert row(page, heading, ratio) == list(records)
    shown = {
        "training step, T = 512": ("time", "train", 512, 0, None),
        "prefill, T = 512": ("time", "prefill", 512, 0, 1),
        "prefill, T = 2,048": ("time", "prefill", 2048, 0, 1),
        "time per new token after 64, batch 1": ("time", "decode", 64, None, 1),
        "the same, batch 8": ("time", "decode", 64, None, 8),
        "peak memory of a training step": ("memory", "train", 512, 0, None),
    }
    fields = ("measure", "task", "context", "new_tokens", "batch")
    assert [cells[0] for cells in rows(page, heading)[1:]] == list(shown)
    for label, wanted in shown.items():
        values = []
        for record in records.values():
            (cell,) = (
                cell
                for cell in record["cells"]
                if cell["execution"] == "eager"
                and all(w in (None, cell[f]) for f, w in zip(fields, wanted, strict=True))
            )
            values.append(compute_ratios(cell)[ratio])
        check(row(page, heading, label), values, label)


def test_numbers_of_presets():
    for preset, *numbers in rows("docs/models.md", "## Presets")[1:]:
        config = MosaicConfig.from_json_file(ROOT / "configuration" / "model" / f"{preset}.json")
        with torch.device("meta"):
            parameters = MosaicForCausalLM(config).num_parameters()
        sizes = [config.num_hidden_layers, config.hidden_size, config.num_attention_heads]
        check(numbers, [parameters, *sizes], preset)


def test_numbers_of_the_front_page():
    better = -last_stretch(1)["mosaic"]["mean"]
    (shown,) = re.findall(
        r"a mosaic's loss is (\S+) nats per token below", bullet("Text unlike the training data")
    )
    check([shown], [better], "WikiText-2")

    best = {result["model"]: result for result in choose_best(load("regbench/published"))}
    shown = re.findall(r"[\d.]+%|0\.\d+", bullet("Learning in context"))
    accuracies = [best[model]["accuracy"] for model in ("mosaic", "gpt2", "3-gram")]
    check(shown, [*accuracies, best["mosaic"]["tvd"], best["3-gram"]["tvd"]], "RegBench")

    counts = []
    for name in ("grid", "paper"):
        groups = summarise(load(f"three_moons/{name}"))["groups"]
        group = next(group for group in groups if (group["num_memories"], group["optimizer"]) == (3, "adam"))
        counts.append(f"{group['disentangled']} of {group['runs']}")
    assert re.findall(r"\d+ of \d+", bullet("Predictive disentanglement")) == counts


BOUNDED = {
    "## What a bound costs": ("small", lambda result: result["value"][0]),
    "### Facts far back": ("small", lambda result: result["recall"][0]),
    "### A language learned in context": ("regbench", lambda result: result["value"][0]),
}


@pytest.mark.parametrize("heading", BOUNDED)
def test_numbers_of_bounded_memories(heading):
    name, value = BOUNDED[heading]
    page, results = "docs/bounded_memories.md", load(f"bounding/{name}")
    groups = group_by_memory(results)
    bounds = sorted({result["bound"] for result in results} - {None})
    assert len(rows(page, heading)) == 1 + len(groups)
    for (depth, kind, policy), by_bound in groups.items():
        start = [str(depth), name_of(kind), POLICY_LABELS.get(policy, policy)]
        values = [value(by_bound[None if policy == WHOLE else bound]) for bound in bounds]
        check(row(page, heading, *start), values, str(start))


def test_numbers_of_searched_memories():
    page, results = "docs/bounded_memories.md", load("searching/small")
    scans = [result for result in results if result["kind"] == "scan"]
    assert len(rows(page, "### How much is scanned")) == 1 + len(scans)
    for scan in scans:
        shown = row(page, "### How much is scanned", str(scan["num_layers"]), name_of(scan["model_type"]))
        check(shown, [scan[share][0] for share in SHARES], scan["name"])
    heading, ways = "### Time, error, memory", ("plain", "exact", "search", "estimate", "chosen")
    decodes = [result for result in results if result["kind"] == "decode"]
    assert len(rows(page, heading)) == 2 + 2 * len(decodes)
    for result in decodes:
        pairs = f"{result['num_pairs']:,}"
        times, losses = (cells[1:] for cells in rows(page, heading) if cells[0] == pairs)
        check(times, [result["milliseconds"][way] for way in ways], pairs)
        changes = [result["loss_change"][way] for way in ("search", "estimate", "nearest", "chosen")]
        megabytes = [result["bytes"][part] / 1e6 for part in ("pairs", "search")]
        check(losses, [result["loss"]["plain"], *changes, *megabytes], pairs)


def test_table_of_serving():
    report = (ROOT / "results/serving/cpu-small/results.md").read_text()
    assert report[report.index("| way") :] in (ROOT / "docs/serving.md").read_text()


def test_examples_of_bounded_memories(run_examples, capsys):
    names = run_examples("docs/bounded_memories.md", "## Bounded memories")
    assert names["cache"].layers[0].keys.shape[2] == 17
    assert "tokens seen, 16 pairs held" in capsys.readouterr().out
    pytest.importorskip("faiss", reason="the extra `search` is not installed")
    names = run_examples("docs/bounded_memories.md", "## Searched memories", **names)
    assert names["outputs"].shape[1] == names["inputs"]["input_ids"].shape[1] + 40


def test_numbers_of_predictions():
    """The units on the page are those of the results, and so are some numbers of the text."""
    page, folder = "docs/predictions.md", ROOT / "results" / "inspection" / "small"
    runs = load_gathered(folder)
    names = {
        "stories": ("ablation_cost", "peek_share", "next_token_auc", "error"),
        "other": ("ablation_cost",),
    }
    shown = 0
    for result, arrays in mosaics(runs, is_trained=True):
        found = {(text, name): arrays[f"{text}.{name}"] for text in names for name in names[text]}
        worth = np.maximum(found["stories", "ablation_cost"], found["other", "ablation_cost"])
        for layer, unit in np.argwhere(worth >= WORTH_LISTING):
            cells = row(page, "## Units", result["name"], f"{layer}.{unit}")
            order = [("stories", "ablation_cost"), ("other", "ablation_cost")]
            order += [("stories", name) for name in names["stories"][1:]]
            check(cells, [found[key][layer, unit] for key in order], f"{result['name']} {layer}.{unit}")
            shown += 1
    assert shown == len(rows(page, "## Units")) - 1
    gains = [run["copying"]["first"] - run["copying"]["second"] for run, _ in mosaics(runs, is_trained=True)]
    text = " ".join((ROOT / page).read_text().split())
    (said,) = re.findall(r"said twice cost the mosaics (.+?) nats per token less", text)
    said = said.replace(" and", ",").split(", ")
    check(said, gains, "copying")
