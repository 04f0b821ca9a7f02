import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, modeling_mosaic
from modeling_mosaic.leaky_average import leaky_average
from mosaic_lab.benchmark import plot
from mosaic_lab.benchmark.cells import make_tokens, plan_cells, run_once
from mosaic_lab.benchmark.leaky_share import record_inputs
from mosaic_lab.benchmark.measure import memory_environment
from mosaic_lab.benchmark.models import balance_parameters, build_gpt2, build_mosaic, count_parameters
from mosaic_lab.benchmark.options import make_parser
from mosaic_lab.core.errors import InputError
from mosaic_lab.programs import benchmark
from plain_mosaic import plain_logits

RECIPES = sorted((Path(__file__).parents[3] / "configuration" / "benchmark").glob("*.yaml"))
SMOKE = str(next(path for path in RECIPES if path.stem == "smoke"))


def parse(*argv):
    return make_parser().parse([SMOKE, *argv])[0]


def measure_memory_here(argv, cell, name):
    # Spares the search through all that pytest has loaded.
    gc.freeze()
    # So small a model may find room in what others have freed.
    peak = max(1, benchmark.peak_memory(name, cell, parse()))
    gc.unfreeze()
    return peak


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder that the smoke recipe leaves behind; memory is measured without processes of its own."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "peak_memory_of_process", measure_memory_here)
        benchmark.main([SMOKE, "--output_dir", str(folder)])
    return folder


@pytest.fixture
def instant(monkeypatch):
    """Cells that cost no time; the list of those measured. Set its `stop_at` to stop there as Ctrl-C does."""

    class Names(list):
        stop_at = None

    names = Names()

    def measure_cell(cell, options, build, measure_memory):
        if len(names) == names.stop_at:
            raise KeyboardInterrupt
        names.append(cell.name)
        row = {"name": cell.name, **vars(cell), "contestants": list(cell.contestants)}
        if cell.measure == "memory":
            return {**row, "bytes": dict.fromkeys(cell.contestants, 10**7)}
        return {**row, "seconds": {name: [0.1 * options.repeats] * 5 for name in cell.contestants}}

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


def test_plain_implementation_equals_the_equations_of_the_tests():
    model = make_generic_model()
    tokens = torch.randint(40, (2, 12))
    logits = benchmark.PlainMosaic(model).logits(tokens)
    expected = torch.stack([plain_logits(model, row.tolist()) for row in tokens])
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    last = benchmark.PlainMosaic(model).logits(tokens, last_only=True)
    torch.testing.assert_close(last, logits[:, -1:], rtol=1e-10, atol=1e-12)


def test_plain_implementation_equals_the_model():
    model = make_generic_model()
    tokens = torch.randint(40, (2, 150))
    differences = benchmark.compare(model, tokens)
    assert differences.keys() == {"logits", *dict(model.named_parameters())}
    assert max(differences.values()) < 1e-10
    for time in (1, 2):
        plain = benchmark.PlainMosaic(model).logits(tokens[:, :time])
        torch.testing.assert_close(plain, model(tokens[:, :time]).logits, rtol=1e-10, atol=1e-12)


def test_unequal_models_are_not_timed(tmp_path, monkeypatch, capsys, instant):
    def forget_faster(key, leak, *args, **kwargs):
        return leaky_average(key, 1.0001 * leak, *args, **kwargs)

    monkeypatch.setattr(modeling_mosaic, "leaky_average", forget_faster)
    with pytest.raises(SystemExit) as stop:
        benchmark.main([SMOKE, "--output_dir", str(tmp_path)])
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
    assert list(cells) == [cell.name for cell in plan_cells(parse())] == list(result["ratios"])
    assert len(cells) == 17
    for cell in cells.values():
        measurements = cell["bytes"] if cell["measure"] == "memory" else cell["seconds"]
        assert list(measurements) == cell["contestants"]
        for value in measurements.values():
            assert value > 0 if cell["measure"] == "memory" else len(value) == 5 and min(value) > 0
    assert "plain" in cells["time-train-16-batch8-eager"]["contestants"]
    assert "plain" not in cells["time-train-64-batch2-eager"]["contestants"]
    assert result["check"]["float64"]["gradients"] < 1e-10


def test_report_has_targets_and_tables(measured):
    (path,) = measured.glob("*.md")
    report = path.read_text()
    result = json.loads(path.with_suffix(".json").read_text())
    assert len(result["targets"]) == 8
    for target in result["targets"]:
        assert f"| {target['target']} " in report and f"| {target['value']:.3f} " in report
    for title in ("Training step", "Prefill", "Time per new token", "Peak memory"):
        assert f"## {title}, eager" in report
    assert f"mosaic {result['parameters']['mosaic']:,}" in report
    assert "{" not in report


def test_picture_can_be_drawn_again(measured, tmp_path):
    (data,) = measured.glob("*.json")
    assert data.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "again.json").write_text(data.read_text())
    plot.main([str(tmp_path / "again.json")])
    assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")


def test_stopped_run_goes_on(tmp_path, instant, capsys):
    argv = [SMOKE, "--output_dir", str(tmp_path), "--contexts", "16", "64", "128"]
    instant.stop_at = 5
    with pytest.raises(SystemExit) as stop:
        benchmark.main(argv)
    assert stop.value.code == 130
    assert [path.name.split(".", 1)[1] for path in tmp_path.iterdir()] == ["partial.jsonl"]
    instant.stop_at = None
    benchmark.main(argv)
    assert instant == [cell.name for cell in plan_cells(parse("--contexts", "16", "64", "128"))]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".png"]
    assert "## Targets" in capsys.readouterr().out


def test_results_are_neither_mixed_nor_overwritten(tmp_path, instant, read_error):
    argv = [SMOKE, "--output_dir", str(tmp_path)]
    instant.stop_at = 1
    with pytest.raises(SystemExit):
        benchmark.main(argv)
    error = read_error(benchmark.main, *argv, "--repeats", "6")
    assert "partial.jsonl holds cells of other options: repeats 5, not 6" in error
    instant.stop_at = None
    benchmark.main(argv)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert ".json exists" in read_error(benchmark.main, *argv)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "file").touch()
    assert "cannot be written" in read_error(benchmark.main, SMOKE, "--output_dir", tmp_path / "file")


def test_program_measures_memory_in_a_process_of_its_own():
    cell = "memory-train-16-batch8-eager"
    result = subprocess.run(
        [sys.executable, "-m", "mosaic_lab.programs.benchmark", SMOKE, "--memory_of", cell, "mosaic"],
        env={**memory_environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    # Parameters, gradients and the two moments of AdamW are the least.
    assert int(result.stdout) > 16 * balance_parameters(parse())["mosaic"]


def test_decoding_goes_on_to_the_last_token():
    options = parse("--execution", "compiled", "eager", "--dtype", "bfloat16")
    assert options.execution == ["eager", "compiled"]
    for cell in plan_cells(options):
        if cell.task == "decode" and cell.context == 64 and cell.measure == "time":
            assert cell.contestants == ("mosaic", "gpt2")
            for name in cell.contestants:
                contestant = benchmark.build_contestant(name, cell, options)
                assert contestant.model.dtype == torch.bfloat16
                assert run_once(contestant, cell, make_tokens(cell, options)) > 0


def test_training_in_bfloat16_keeps_float32_weights():
    options = parse("--dtype", "bfloat16")
    cell = next(cell for cell in plan_cells(options) if cell.task == "train")
    for name in cell.contestants:
        contestant = benchmark.build_contestant(name, cell, options)
        before = [parameter.clone() for parameter in contestant.model.parameters()]
        run_once(contestant, cell, make_tokens(cell, options))
        after = list(contestant.model.parameters())
        assert {parameter.dtype for parameter in after} == {torch.float32}
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(parameter.grad is None for parameter in after)


def test_leaky_averages_get_what_the_model_gives_them():
    options = parse("--dtype", "bfloat16")
    cell = plan_cells(options)[0]
    model = benchmark.build_contestant("mosaic", cell, options).model
    (args, kwargs), averages = record_inputs(model, make_tokens(cell, options), options)
    assert args[0].shape == (cell.batch, cell.context, 32) and not kwargs["masks"]["keep"]
    # Of the contextual and of the persistent memories.
    assert len(averages) == 2
    for inputs, _ in averages:
        assert inputs[0].dtype == torch.bfloat16 and inputs[1].dtype == torch.float32


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path):
    options, _ = make_parser().parse([str(path)])
    assert "1e-" not in path.read_text()
    for name in ("hidden_size", "repeats", "train_tokens", "plain_max_context"):
        assert type(getattr(options, name)) is int, name
    assert type(options.min_seconds) is float
    assert all(type(number) is int for number in options.contexts + options.decode_batches)
    balance = balance_parameters(options)
    assert balance["memory_size"] % 16 == 0 and abs(balance["difference"]) < 0.01
    with torch.device("meta"):
        assert count_parameters(build_mosaic(options, 512, balance["memory_size"])) == balance["mosaic"]
        assert count_parameters(build_gpt2(options)) == balance["gpt2"]
        longer = count_parameters(build_gpt2(options, 700))
        assert longer - balance["gpt2"] == 188 * options.hidden_size
    # A step of 16 pairs further is no nearer.
    step = 2 * 16 * options.hidden_size * options.num_hidden_layers
    assert abs(balance["mosaic"] - balance["gpt2"]) <= step / 2
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
        ("decode_batches: [one]", "invalid int value: 'one'"),
        ("decode_new_tokens: 1", "decode_new_tokens must be at least 2, not 1"),
        ("execution: [eager, fast]", "execution must be eager or compiled, not 'fast'"),
        ("device: tpu", "invalid choice: 'tpu'"),
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
        make_parser().parse([str(path)])
    assert problem in str(error.value)


def test_impossible_benchmarks_are_named(tmp_path, read_error):
    argv = (SMOKE, "--output_dir", tmp_path / "out")
    assert "too small to compare" in read_error(benchmark.main, *argv, "--vocab_size", "16")
    assert "'plain' in 'memory-train-64-batch2-eager'" in read_error(
        benchmark.main, SMOKE, "--memory_of", "memory-train-64-batch2-eager", "plain"
    )
    if not torch.cuda.is_available():
        assert "no CUDA device" in read_error(benchmark.main, *argv, "--device", "cuda")
    assert not (tmp_path / "out").exists()
