"""README and docs are true: the numbers of experiments are those of the results."""

import re

import numpy as np
import pytest

from docs_tables import ROOT, cells_of, check, load, row, rows, section
from mosaic_lab.attention_maps.report import AVERAGES
from mosaic_lab.attention_maps.report import group as group_maps
from mosaic_lab.comparison.report import group_runs, losses_of
from mosaic_lab.core.command import load_recipe
from mosaic_lab.core.figures import name_of
from mosaic_lab.core.work import load_gathered
from mosaic_lab.in_context.report import format_accuracy
from mosaic_lab.inspection.report import WORTH_LISTING, mosaics
from mosaic_lab.regbench.report import choose_best
from mosaic_lab.three_moons.report import summarise
from mosaic_lab.training.contestants import choose_best as choose_best_runs
from mosaic_lab.training.contestants import format_values

LANGUAGE, SYNTHETIC = "docs/language_modelling.md", "docs/synthetic.md"
# In docs/v2.md.
LONG_ROWS = "## Stories, and contexts beyond those of training"
# The results behind the pages.
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


def test_numbers_of_longer_training_on_tinystories():
    heading, short = "### For four times as long", load("comparison/tinystories")
    runs = load_gathered(ROOT / "results" / "comparison" / "tinystories-long")
    assert len(rows(LANGUAGE, heading)) == 1 + len(runs)
    ends, overfitting = {}, []
    for result, arrays in runs:
        losses, tokens = arrays["validation_loss"], arrays["validation_step"] * arrays["tokens_per_step"]
        (before,) = (run["validation_loss"] for run in short if run["name"] == result["name"])
        depth = str(result["num_layers"])
        *cells, lowest = row(LANGUAGE, heading, depth, name_of(result["model_type"]))
        check(cells, [before, losses[-1]], result["name"])
        lowest, place = re.fullmatch(r"(\S+) after (\S+) million", lowest).groups()
        check([lowest, place], [losses.min(), tokens[losses.argmin()] / 1e6], result["name"])
        ends[result["model"]] = np.array([before, losses[-1]])
        overfitting.append(result["validation_loss"] - result["train_loss"])
    text = " ".join(section(LANGUAGE, heading).split())
    shown = re.search(
        r"GPT-2 shrinks from (\S+) to (\S+) nats with one layer and from (\S+) to (\S+) with two, "
        r"and that to Llama from (\S+) to (\S+)\. ",
        text,
    ).groups()
    pairs = (("gpt2-1", "mosaic-1"), ("gpt2-2", "mosaic-2"), ("llama-1", "mosaic-1"))
    check(list(shown), [gap for theirs, ours in pairs for gap in ends[theirs] - ends[ours]], "ends")
    shown = re.search(r"training loss is (\S+) to (\S+) lower", text).groups()
    check(list(shown), [min(overfitting), max(overfitting)], "overfitting")


def test_numbers_of_longer_training_on_the_embedded_stories():
    """Every model beside its shorter training with the same seeds."""
    heading, groups = "### For ten times as long", group_runs(load("comparison/long"))
    short = {run["name"]: run["validation_loss"] for run in load("comparison/v2") + load("comparison/small")}
    losses = {
        key: np.mean([[short[run["name"]], run["validation_loss"]] for run in runs], axis=0)
        for key, runs in groups.items()
    }
    evaluation = load("evaluation/names-long", "evaluation.json")
    one_by_one, names = evaluation["texts"][0]["models"], evaluation["names"]
    assert len(rows(LANGUAGE, heading)) == 1 + len(groups)
    for (depth, model), runs in groups.items():
        both, kind = losses[depth, model], runs[0]["model_type"]
        seeds, *cells, alone = row(LANGUAGE, heading, str(depth), name_of(kind))
        assert seeds == ", ".join(str(run["seed"]) for run in runs)
        check(cells[::2], list(both), model)
        if kind != "gpt2":
            check(cells[1::2], list(both - losses[depth, f"gpt2-{depth}"]), model)
        check([alone], [np.mean([one_by_one[run["name"]]["loss"]["mean"] for run in runs])], model)
    parts = {"a seventh": 1 / 7, "a third": 1 / 3, "two thirds": 2 / 3, "six sevenths": 6 / 7}
    gaps = {depth: losses[depth, f"gpt2-{depth}"] - losses[depth, f"mosaic-{depth}"] for depth in (1, 2, 4)}
    left = {depth: now / before for depth, (before, now) in gaps.items()}
    told = r"leave (.+?) of the mosaic's lead over GPT-2 with one layer, (.+?) with two, and (.+?) with four,"
    shown = re.search(told, bullet("Text unlike the training data")).groups()
    assert [parts[part] for part in shown] == pytest.approx(list(left.values()), abs=0.02)
    text = " ".join(section(LANGUAGE, heading).split())
    told = r"one layer (.+?) of the gap .+? close, with two layers (.+?)\. With four layers it is (.+?): "
    shown = re.search(told, text).groups()
    assert [parts[part] for part in shown] == pytest.approx([1 - part for part in left.values()], abs=0.02)
    shown = re.search(
        r"by (\S+) nats after the .+?, by (\S+) now\), (\S+) behind with two, and .+?, (\S+) ahead",
        text,
    ).groups()
    ahead = [losses[depth, f"mosaic-{depth}"] - losses[depth, f"llama-{depth}"] for depth in (1, 2, 4)]
    check(list(shown), [*ahead[0], -ahead[1][1], ahead[2][1]], "Llama and the mosaic")
    by_seed = re.search(
        r"ends at (\S+), (\S+) and (\S+), while the mosaics differ by (\S+)\. ", text
    ).groups()
    spread = np.ptp(losses_of(groups[1, "mosaic-1"], "validation"))
    check(list(by_seed), [*losses_of(groups[1, "gpt2-1"], "validation"), spread], "seeds")
    others = re.search(r"cost it (\S+) nats each, the mosaic (\S+) and Llama (\S+)\. ", text).groups()
    values = [names[f"{kind}-4-seed0"]["other"]["mean"] for kind in ("gpt2", "mosaic", "llama")]
    check(list(others), values, "tokens that are not names")


def test_numbers_of_rows_longer_than_those_of_training():
    heading = "### Rows longer than those of training"
    results = load("evaluation/contexts-long", "evaluation.json")
    shown = row(LANGUAGE, heading, "layers")[1:]
    ends = shown[0], shown[-1]
    stretches = {
        f"{each['first']} to {each['last']}": each["models"] for each in results["texts"][0]["stretches"]
    }
    assert len(rows(LANGUAGE, heading)) == 1 + len(results["architectures"])
    for model, architecture in results["architectures"].items():
        kind, depth = architecture.split(" layer")[0].split(", ")
        name = name_of(kind) + (" with YaRN" if "yarn" in model else "")
        values = [stretches[label][model]["mean"] for label in shown]
        check(row(LANGUAGE, heading, depth, name), values, model)
    shown = re.findall(r"from (\S+) to (\d\.\d+)", bullet("Texts longer than in training"))
    for cells, model in zip(shown, ("mosaic-4-seed0", "llama-4-seed0", "llama-4-yarn-seed0"), strict=True):
        check(list(cells), [stretches[end][model]["mean"] for end in ends], model)
    bounded = {result["name"]: result["value"][0] for result in load("bounding/long")}
    (stays,) = re.search(r"stays at (\S+)\. ", bullet("Texts longer than in training")).groups()
    check([stays], [bounded["mosaic-4-seed0/recent-128"]], "the 128 latest pairs")


def test_growth_of_losses_in_long_rows():
    """After long training and after short training, from the first stretch that is shown to the last one."""
    text = " ".join(section(LANGUAGE, "### Rows longer than those of training").split())
    (had,) = re.search(r"had (\S+)\]\(v2", text).groups()
    assert row("docs/v2.md", LONG_ROWS, "1", "Llama")[-1].split()[0] == had
    growth = []
    for name in ("evaluation/contexts-long", "evaluation/contexts"):
        stretches = load(name, "evaluation.json")["texts"][0]["stretches"]
        first, last = (
            next(each["models"] for each in stretches if each["first"] == begin) for begin in (201, 3201)
        )
        for start in ("mosaic-1-seed", "mosaic-2-seed", "mosaic-4-seed"):
            models = [model for model in first if model.startswith(start)]
            growth.append(np.mean([last[model]["mean"] - first[model]["mean"] for model in models]))
    shown = re.search(r"by (\S+), (\S+) and (\S+) nats instead of (\S+), (\S+) and (\S+)\. ", text).groups()
    check(list(shown), growth, "growth")


def test_the_sample_is_described_once():
    """Sizes and checksums of its files are the same wherever they stand."""
    for file in ("train.jsonl", "validation.jsonl"):
        described = row("results/README.md", "## The sample of TinyStories", file)
        assert row(LANGUAGE, "## On TinyStories", file) == described


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


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("## Where attention goes", "attention_maps/tinystories"),
        ("### After ten times the tokens", "attention_maps/long"),
    ],
)
def test_numbers_of_attention(heading, name):
    groups, table = group_maps(load(name)), rows(LANGUAGE, heading)[1:]
    assert len(table) == len(groups)
    for same in groups:
        kind, depth, _ = same[0]["architecture"].split(", ", 2)
        found = [
            cells
            for context, model, *cells in table
            if context == f"{same[0]['context']:,}"
            and model.startswith(name_of(kind))
            and model.endswith(depth)
        ]
        assert len(found) == 1, same[0]["architecture"]
        values = []
        for metric in ("sink_share", "far_to_near", "unevenness"):
            heads = [result["heads"][metric] for result in same]
            values.append(AVERAGES[metric](np.array(heads, dtype=float)))
        check(found[0], values, same[0]["name"])


def test_numbers_of_attention_by_distance():
    text = " ".join(section(LANGUAGE, "### After ten times the tokens").split())
    story = int(re.search(r"to the last (\d+) tokens, a story's mean length", text)[1])
    names_long = load("evaluation/names-long", "evaluation.json")["texts"][0]
    assert story == round(names_long["num_tokens"] / names_long["num_documents"])
    with np.load(ROOT / "results" / "attention_maps" / "long" / "figures.npz") as arrays:
        attention = {name: array for name, array in arrays.items() if name.endswith("mean")}
    near = {
        name: array[..., -story:].sum(-1) for name, array in attention.items() if name.split("/")[1] == "512"
    }
    gpt2 = np.sort(
        np.concatenate([shares.flatten() for name, shares in near.items() if name.startswith("gpt2")])
    )
    # The two that look further.
    assert (near["gpt2-4-seed0/512/mean"][0] < gpt2[2]).sum() == 2
    # All but the first of several layers.
    behind = {"llama-1-seed0": slice(None), "llama-2-seed0": slice(1, None), "llama-4-seed0": slice(1, None)}
    llama = min(near[f"{name}/512/mean"][layers].min() for name, layers in behind.items())
    far = min(
        attention[f"{name}/1536/mean"][layers, :, :-512].sum(-1).min() for name, layers in behind.items()
    )
    shown = re.findall(r"at least (\d\.\d+)", text)
    assert shown == [f"{np.floor(share * 100) / 100:.2f}" for share in (gpt2[2], llama, far)]


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
OTHER_NAMES = {
    "demo-both-seed1": ("Memory Mosaic, another seed", "--seed 1"),
    "demo-llama": ("Llama, 4 layers", "--model comparison/small/llama-4"),
    "demo-gpt2": ("GPT-2, 4 layers", "--model comparison/small/gpt2-4"),
}


@pytest.mark.parametrize(
    ("heading", "name"),
    [("### With its own strings", "published"), ("### Known languages", "in_distribution")],
)
def test_numbers_of_regbench_with_its_own_strings(heading, name):
    best = {result["model"]: result for result in choose_best(load(f"regbench/{name}"))}
    for model, scores in best.items():
        number, (parameters, *shown, _) = scores["num_parameters"], row(SYNTHETIC, heading, REGBENCH[model])
        assert parameters == ("-" if number is None else f"{number:,}")
        check(shown, [scores["accuracy"], scores["tvd"]], model)
    text = " ".join(section(SYNTHETIC, heading).split())
    for run in load(f"regbench/{name}"):
        if run["name"] != best[run["model"]]["name"]:
            assert f"{run['accuracy']:.3f} and {run['tvd']:.3f}" in text, run["name"]


def check_names(record: dict, *start: str, heading: str = "## Names") -> None:
    """A line shows the losses of a model, and which names in its stories belong."""
    *losses, shares = row(LANGUAGE, heading, *start)
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
    others = load("evaluation/demo-names-others", "evaluation.json")["names"]
    for model, start in OTHER_NAMES.items():
        check_names(others.pop(model), *start)
    assert not others
    units = ordered["units"]["demo-both"]["units"]
    for unit in sorted(units, key=lambda unit: unit["copies"])[-2:]:
        shown = rf"unit {unit['unit']} of layer {unit['layer']}\s+\((\S+) of the\s+weight, (\S+)\s+nats\)"
        cells = re.search(shown, section(LANGUAGE, "## Names")).groups()
        check(list(cells), [unit["right"], unit["copies"]], unit)


def test_numbers_of_names_after_more_tokens():
    heading, results = "### More tokens", load("evaluation/names-long", "evaluation.json")
    assert len(rows(LANGUAGE, heading)) == 1 + len(results["names"])
    for model, architecture in results["architectures"].items():
        kind, depth, _ = architecture.split(", ", 2)
        seed = model.split("seed")[1]
        check_names(results["names"][model], f"{name_of(kind)}, {depth}", seed, heading=heading)
    best = {
        model: sorted(record["units"], key=lambda unit: unit["copies"])[-2:]
        for model, record in results["units"].items()
    }
    for model, (second, first) in best.items():
        depth = results["architectures"][model].split(", ")[1].split()[0]
        assert first["layer"] == int(depth) - 1 and first["copies"] > 6 * second["copies"], model
    text = " ".join(section(LANGUAGE, heading).split())
    shown = re.search(
        r"with (\S+) of the weight on .+?, and (\S+) nats, in .+? with (\S+), and (\S+) nats, and in .+? "
        r"with (\S+), and (\S+) nats\. There a second unit adds (\S+)\. ",
        text,
    ).groups()
    units = [best[f"mosaic-{depth}-seed0"][1] for depth in (1, 2, 4)]
    values = [unit[key] for unit in units for key in ("right", "copies")]
    check(list(shown), [*values, best["mosaic-4-seed0"][0]["copies"]], "units that carry names")


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
    demo = {result["seed"]: result["seconds"] for result in results if result["recipe"] == "demo"}
    for result in results:
        assert result["options"] == load_recipe(ROOT / "configuration" / "train" / f"{result['recipe']}.yaml")
        _, parameters, tokens, operations, *measured = row(
            "docs/speedrun.md", heading, result["recipe"], str(result["seed"])
        )
        check([parameters, tokens], [result["num_parameters"], result["tokens"]], result["recipe"])
        assert operations == f"{6 * result['num_parameters'] * result['tokens']:.2e}".replace("+", "")
        share = result["seconds"] / demo[result["seed"]]
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
    page, heading = "docs/v2.md", LONG_ROWS
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
        by_seed = [long[run["name"]] for run in runs if run["name"] in long]
        expected = [format_values(list(values)) for values in zip(*by_seed, strict=True)]
        assert [cell for cell in cells if cell] == expected, model


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
