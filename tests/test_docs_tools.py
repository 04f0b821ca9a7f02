"""README and docs are true: what the tools cost, and what they do to models, is as measured."""

import json
import re
from collections.abc import Iterator

import pytest
import torch

from docs_tables import ROOT, check, load, row, rows
from modeling_mosaic import MosaicConfig, MosaicForCausalLM
from mosaic_lab.benchmark.report import compute_ratios
from mosaic_lab.bounding.report import NAMES as POLICY_LABELS
from mosaic_lab.bounding.report import WHOLE, group_by_memory
from mosaic_lab.core.figures import name_of
from mosaic_lab.merging.parts import ALONE, MERGED, NOTHING
from mosaic_lab.merging.report import average
from mosaic_lab.merging.report import group as group_merged
from mosaic_lab.searching.report import SHARES


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


BOUNDED = {
    "## What a bound costs": ("small", ["value"]),
    "### Facts far back": ("small", ["recall"]),
    "### After ten times the tokens": ("long", ["value", "recall"]),
    "### A language learned in context": ("regbench", ["value"]),
}


@pytest.mark.parametrize("heading", BOUNDED)
def test_numbers_of_bounded_memories(heading):
    name, measures = BOUNDED[heading]
    page, results = "docs/bounded_memories.md", load(f"bounding/{name}")
    groups = group_by_memory(results)
    bounds = sorted({result["bound"] for result in results} - {None})
    assert len(rows(page, heading)) == 1 + len(groups)
    for (depth, kind, policy), by_bound in groups.items():
        start = [str(depth), name_of(kind), POLICY_LABELS.get(policy, policy)]
        memories = [by_bound[None if policy == WHOLE else bound] for bound in bounds]
        values = [memory[measure][0] for measure in measures for memory in memories]
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
