import json
from pathlib import Path

import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, memory_masks_v2, memory_norms
from modeling_mosaic.leaky_average import leaky_average
from modeling_mosaic.memory_masks_v2 import see_latest
from modeling_mosaic.plain_mosaic import PlainMosaic
from mosaic_lab.benchmark import measure, plot
from mosaic_lab.benchmark.cells import make_tokens, plan_cells
from mosaic_lab.benchmark.check import compare
from mosaic_lab.benchmark.contestants import Contestant
from mosaic_lab.benchmark.memory import in_fresh_process
from mosaic_lab.benchmark.models import (
    FAMILIES,
    SIZE_STEP,
    balance_parameters,
    build,
    count_parameters,
)
from mosaic_lab.benchmark.options import BenchmarkArguments
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.figures import name_of
from mosaic_lab.programs import benchmark

RECIPES = sorted((Path(__file__).parents[3] / "configuration" / "benchmark").glob("*.yaml"))
SMOKE = str(next(path for path in RECIPES if path.stem == "smoke"))
BOTH = pytest.mark.parametrize("kind", FAMILIES)


def parse(recipe=SMOKE, *argv):
    parser = CommandParser(BenchmarkArguments, description="", recipes="benchmark")
    return parser.parse([str(recipe), *argv])[0]


def find_cell(options, name):
    return next(cell for cell in plan_cells(options) if cell.name == name)


@pytest.fixture(scope="module", params=FAMILIES)
def measured(request, tmp_path_factory):
    """The folder that the smoke recipe leaves behind for each mosaic, with numbers in place of memory."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "in_fresh_process", lambda function, name, cell, options: 1000 * len(name))
        benchmark.main([SMOKE, "--output_dir", str(folder), "--model", request.param])
    return folder


@pytest.fixture
def instant(monkeypatch):
    """Cells that cost no time; the list of those measured. Set its `stop_at` to stop there as Ctrl-C does."""

    class Names(list):
        stop_at = None

    names = Names()

    def measure_cell(cell, options):
        if len(names) == names.stop_at:
            raise KeyboardInterrupt
        names.append(cell.name)
        if cell.measure == "time":
            return {"seconds": {name: [0.1 * options.repeats] * 5 for name in cell.contestants}}
        kind = "bytes" if cell.measure == "memory" else cell.measure
        return {kind: dict.fromkeys(cell.contestants, 10**7)}

    monkeypatch.setattr(benchmark, "measure_cell", measure_cell)
    return names


def make_generic_model():
    """All that differs from the defaults, with parameters that are not those of the start."""
    torch.manual_seed(0)
    config = MosaicConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_persistent_heads=4,
        persistent_memory_size=10,
        num_persistent_banks=2,
        use_bias=True,
        max_log_key_scale=1.0,
        logit_scale=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = MosaicForCausalLM(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_plain_implementation_equals_the_model():
    model = make_generic_model()
    tokens = torch.randint(40, (2, 150))
    differences = compare(model, tokens)
    assert differences.keys() == {"logits", *dict(model.named_parameters())}
    assert max(differences.values()) < 1e-10
    for time in (1, 2):
        plain = PlainMosaic(model).logits(tokens[:, :time])
        torch.testing.assert_close(plain, model(tokens[:, :time]).logits, rtol=1e-10, atol=1e-12)
    last = PlainMosaic(model).logits(tokens, last_only=True)
    torch.testing.assert_close(last, model(tokens).logits[:, -1:], rtol=1e-10, atol=1e-12)


@BOTH
def test_unequal_models_are_not_timed(tmp_path, monkeypatch, capsys, instant, kind):
    def forget_faster(key, leak, *args, **kwargs):
        return leaky_average(key, 1.0001 * leak, *args, **kwargs)

    def see_fewer(tokens, number):
        return see_latest(tokens, number - 1)

    monkeypatch.setattr(memory_norms, "leaky_average", forget_faster)
    monkeypatch.setattr(memory_masks_v2, "see_latest", see_fewer)
    with pytest.raises(SystemExit) as stop:
        benchmark.main([SMOKE, "--output_dir", str(tmp_path), "--model", kind])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert "does not equal the plain implementation: in float64" in printed.err
    assert printed.out == "" and not instant and not list(tmp_path.iterdir())


def test_result_has_every_cell(measured):
    (path,) = measured.glob("*.json")
    result = json.loads(path.read_text())
    assert sorted(file.suffix for file in measured.iterdir()) == [".json", ".md", ".png"]
    assert {file.stem for file in measured.iterdir()} == {result["name"]}
    assert result["name"] == f"{result['date']}-smoke-{result['hardware']['slug']}"
    cells = {cell["name"]: cell for cell in result["cells"]}
    assert list(cells) == [cell.name for cell in plan_cells(parse())]
    assert len(cells) == 22
    for cell in cells.values():
        kind = {"time": "seconds", "memory": "bytes"}.get(cell["measure"], "operations")
        assert list(cell[kind]) == cell["contestants"]
        for name, value in cell[kind].items():
            if kind == "seconds":
                assert len(value) == 5 and min(value) > 0
            elif kind == "bytes":
                assert value == 1000 * len(name)
            else:
                # Views and all, a block cannot do with less.
                assert value > 50 * result["options"]["num_hidden_layers"]
    step = cells["time-train-16-batch8-eager"]
    peer = FAMILIES[result["options"]["model"]].peer
    assert step["contestants"] == ["mosaic", peer, "mosaic_own_loss", "plain"]
    ratios = [a / b for a, b in zip(step["seconds"]["mosaic"], step["seconds"][peer], strict=True)]
    assert step["ratios"][f"mosaic / {name_of(peer)}"] == sorted(ratios)[2]
    assert "plain" not in cells["time-train-64-batch2-eager"]["contestants"]
    assert result["check"]["float64"]["gradients"] < 1e-10


def test_report_has_a_table_per_measure(measured):
    (path,) = measured.glob("*.md")
    report = path.read_text()
    result = json.loads(path.with_suffix(".json").read_text())
    for title in ("Operations", "Time", "Peak memory"):
        assert f"## {title}, eager" in report
    for cell in result["cells"]:
        if cell["measure"] == "operations":
            assert f"| {cell['operations']['mosaic']:,} " in report
            # Three digits.
            ratio = next(iter(cell["ratios"].values()))
            assert f"| {ratio:.{2 if ratio >= 1 else 3}f} " in report
    kind = result["options"]["model"]
    assert f"{name_of(kind)} {result['parameters']['mosaic']:,}, {name_of(FAMILIES[kind].peer)} " in report
    assert FAMILIES[kind].plain.__module__.replace(".", "/") in report
    assert "{" not in report


def test_pictures_can_be_drawn_again(measured, tmp_path):
    """Those of earlier results too."""
    (data,) = measured.glob("*.json")
    assert data.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    earlier = Path(__file__).parents[3] / "results" / "benchmark"
    pictured = [path for path in earlier.glob("*.json") if path.with_suffix(".png").exists()]
    for number, path in enumerate([data, *pictured]):
        again = tmp_path / f"{number}.json"
        again.write_text(path.read_text())
        plot.main([str(again)])
        assert again.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_operations_alone(tmp_path, instant):
    """Need no picture."""
    benchmark.main([SMOKE, "--output_dir", str(tmp_path), "--measures", "operations"])
    (data,) = tmp_path.glob("*.json")
    assert {cell["measure"] for cell in json.loads(data.read_text())["cells"]} == {"operations"}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]


def test_stopped_run_resumes(tmp_path, instant, capsys):
    argv = [SMOKE, "--output_dir", str(tmp_path), "--contexts", "16", "64", "128"]
    instant.stop_at = 5
    with pytest.raises(SystemExit) as stop:
        benchmark.main(argv)
    assert stop.value.code == 130
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    instant.stop_at = None
    benchmark.main(argv)
    assert instant == [cell.name for cell in plan_cells(parse(SMOKE, "--contexts", "16", "64", "128"))]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".png"]
    assert "## Time, eager" in capsys.readouterr().out


def test_results_are_neither_mixed_nor_overwritten(tmp_path, instant, read_error):
    argv = [SMOKE, "--output_dir", str(tmp_path)]
    instant.stop_at = 1
    with pytest.raises(SystemExit):
        benchmark.main(argv)
    error = read_error(benchmark.main, *argv, "--repeats", "6")
    assert ".partial" in error and "begun with other options: repeats 5, not 6" in error
    instant.stop_at = None
    benchmark.main(argv)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert ".json exists" in read_error(benchmark.main, *argv)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "file").touch()
    assert "cannot be written" in read_error(benchmark.main, SMOKE, "--output_dir", tmp_path / "file")


def test_memory_is_measured_in_a_process_of_its_own():
    options = parse()
    cell = find_cell(options, "memory-train-16-batch8-eager")
    peak = in_fresh_process(measure.peak_memory, "mosaic", cell, options)
    # Parameters, gradients and the two moments of AdamW are the least.
    assert 16 * balance_parameters(options)["mosaic"] < peak < 100e6


@BOTH
def test_losses_are_the_same_but_for_its_own(kind):
    options = parse(SMOKE, "--model", kind)
    cell = find_cell(options, "time-train-16-batch8-eager")
    contestants = {name: Contestant(name, cell, options) for name in cell.contestants}
    assert [type(contestants[name].model).__name__ for name in cell.contestants[:2]] == {
        "mosaic": ["MosaicForCausalLM", "GPT2LMHeadModel"],
        "mosaic_v2": ["MosaicV2ForCausalLM", "LlamaForCausalLM"],
    }[kind]
    for name in cell.contestants[:2]:
        assert contestants[name].model.loss_function.__name__ == "ForCausalLMLoss"
    assert contestants["mosaic_own_loss"].model.loss_function.__name__ == "next_token_loss"
    tokens = make_tokens(cell, options)
    losses = [
        contestants[name].model(input_ids=tokens, labels=tokens, use_cache=False).loss.item()
        for name in ("mosaic", "mosaic_own_loss", "plain")
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@BOTH
def test_decoding_continues_to_the_last_token(kind):
    options = parse(SMOKE, "--dtype", "bfloat16", "--model", kind)
    cell = find_cell(options, "time-decode-64+4-batch1-eager")
    assert cell.contestants == ("mosaic", FAMILIES[kind].peer)
    for name in cell.contestants:
        contestant = Contestant(name, cell, options)
        assert contestant.model.dtype == torch.bfloat16
        assert contestant.run(make_tokens(cell, options)) > 0


@pytest.mark.parametrize("execution", ["fullgraph", "regional"])
def test_compiled_steps(monkeypatch, execution):
    """The first step's time apart from that of later ones; graphs run as they are, which saves minutes."""
    compiled, compile = [], torch.compile

    def record(model, **options):
        compiled.append((type(model).__name__, options))
        return compile(model, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", record)
    options = parse(SMOKE, "--execution", "compiled")
    assert [cell.name for cell in plan_cells(options)] == [
        "time-train-16-batch8-fullgraph",
        "time-train-16-batch8-regional",
    ]
    row = measure.measure_cell(find_cell(options, f"time-train-16-batch8-{execution}"), options)
    assert row["first_seconds"].keys() == row["seconds"].keys() == {"mosaic", "gpt2"}
    for name, seconds in row["seconds"].items():
        assert row["first_seconds"][name] > min(seconds)
    if execution == "fullgraph":
        assert ("MosaicForCausalLM", {"fullgraph": True}) in compiled
    else:
        assert [name for name, _ in compiled].count("MosaicBlock") == options.num_hidden_layers


@BOTH
def test_training_in_bfloat16_keeps_float32_weights(kind):
    options = parse(SMOKE, "--dtype", "bfloat16", "--model", kind)
    cell = find_cell(options, "time-train-16-batch8-eager")
    for name in cell.contestants[:3]:
        contestant = Contestant(name, cell, options)
        before = [parameter.clone() for parameter in contestant.model.parameters()]
        contestant.run(make_tokens(cell, options))
        after = list(contestant.model.parameters())
        assert {parameter.dtype for parameter in after} == {torch.float32}
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(parameter.grad is None for parameter in after)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path):
    options = parse(path)
    assert "1e-" not in path.read_text()
    for name in ("hidden_size", "repeats", "train_tokens", "plain_max_context"):
        assert type(getattr(options, name)) is int, name
    assert type(options.min_seconds) is float
    assert all(type(number) is int for number in options.contexts + options.decode_batches)
    balance, peer = balance_parameters(options), FAMILIES[options.model].peer
    assert balance["memory_size"] % SIZE_STEP == 0 and abs(balance["difference"]) < 0.01
    with torch.device("meta"):
        assert count_parameters(build("mosaic", options)) == balance["mosaic"]
        assert count_parameters(build(peer, options)) == balance[peer]
        longer = count_parameters(build(peer, options, 700))
        assert longer - balance[peer] == (188 * options.hidden_size if peer == "gpt2" else 0)
        # A step further is no nearer.
        further = count_parameters(build("mosaic", options, memory_size=balance["memory_size"] + SIZE_STEP))
    assert abs(balance["mosaic"] - balance[peer]) <= (further - balance["mosaic"]) / 2
    names = [cell.name for cell in plan_cells(options)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hiden_size: 32", "unknown option 'hiden_size'; did you mean 'hidden_size'?"),
        ("hidden_size: 30", "hidden_size (30) must be a multiple of num_attention_heads (8)"),
        ("num_hidden_layers: 0", "num_hidden_layers must be at least 1, not 0"),
        ("repeats: 4", "repeats must be at least 5, not 4"),
        ("contexts: [512, 600]", "contexts: 600 must be at least 2 and divide train_tokens (8192)"),
        ("contexts: 0", "contexts must be at least 1, not [0]"),
        ("contexts: [512, 512]", "contexts must name one or more, each once, not [512, 512]"),
        ("decode_batches: [one]", "invalid int value: 'one'"),
        ("decode_new_tokens: 1", "decode_new_tokens must be at least 2, not 1"),
        ("execution: [eager, fast]", "execution must be of eager, compiled, not 'fast'"),
        ("measures: [speed]", "measures must be of operations, time, memory, not 'speed'"),
        ("device: tpu", "invalid choice: 'tpu'"),
        ("model: llama", "invalid choice: 'llama'"),
        ("dtype: float16", "invalid choice: 'float16'"),
        ("num_threads: 0", "num_threads must be at least 1, not 0"),
        ("min_seconds: -1.0", "min_seconds must be at least 0, not -1.0"),
        ("output_dir: ''", "output_dir must name the folder"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, problem):
    path = tmp_path / "recipe.yaml"
    path.write_text(line)
    with pytest.raises(InputError) as error:
        parse(path)
    assert problem in str(error.value)


def test_impossible_benchmarks_are_named(tmp_path, read_error):
    argv = (SMOKE, "--output_dir", tmp_path / "out")
    assert "too small to compare" in read_error(benchmark.main, *argv, "--vocab_size", "16")
    if not torch.cuda.is_available():
        assert "device cuda: not in this machine" in read_error(benchmark.main, *argv, "--device", "cuda")
    assert not (tmp_path / "out").exists()
