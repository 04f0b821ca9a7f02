"""`reproduce serving/smoke`: all ways write the same, are measured in turn, and reported."""

import json
import sys

import pytest

from mosaic_lab.programs import reproduce
from mosaic_lab.serving import report

HERE = ("one_by_one", "static", "continuous")


@pytest.mark.slow
def test_smoke(tmp_path, capsys):
    folder = tmp_path / "smoke"
    reproduce.main(["serving/smoke", "--rounds", "1", "--output_dir", str(folder)])
    results = json.loads((folder / "results.json").read_text())
    assert {(result["way"], result["contestant"]) for result in results} == {
        (way, contestant) for way in HERE for contestant in ("mosaic", "gpt2")
    }
    for result in results:
        assert result["num_tokens"] == 4 * 3
        assert 0 < min(result["first_seconds"]) <= max(result["first_seconds"]) < result["seconds"]
    for contestant in ("mosaic", "gpt2"):
        assert len({str(r["digests"]) for r in results if r["contestant"] == contestant}) == 1
    table = (folder / "results.md").read_text()
    assert table.count("4 of 4") == len(results) and table in capsys.readouterr().out
    assert report.redraw(folder).startswith(table)
    # A second round is added to the first.
    reproduce.main(["serving/smoke", "--output_dir", str(folder)])
    assert len(json.loads((folder / "results.json").read_text())) == 2 * len(results)


def test_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["serving/smoke", "--ways", "telepathy", "--output_dir", str(tmp_path)])
    assert stop.value.code == 2
    assert (
        "ways must be of one_by_one, static, continuous, vllm, mlx, not 'telepathy'"
        in capsys.readouterr().err
    )


def test_an_engine_of_another_installation(tmp_path):
    """What it is asked and what it answers; a program that repeats tokens stands for its Python."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "from pathlib import Path\n"
        "assert Path(sys.argv[1]).name == 'vllm_engine.py'\n"
        "asked = json.loads(Path(sys.argv[2]).read_text())\n"
        "assert (Path(asked['model']) / 'config.json').exists() and asked['num_threads'] == 1\n"
        "tokens = [prompt[:1] * asked['new_tokens'] for prompt in asked['prompts']]\n"
        "served = dict(seconds=1.0, processor_seconds=2.0, first_seconds=[0.5] * 4, tokens=tokens)\n"
        "Path(sys.argv[3]).write_text(json.dumps(served))\n"
    )
    python.chmod(0o755)
    arguments = ["serving/smoke", "--ways", "vllm", "--rounds", "1", "--output_dir", str(tmp_path / "out")]
    reproduce.main([*arguments, "--vllm_python", str(python)])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(r["way"], r["seconds"], r["num_tokens"]) for r in results] == [("vllm", 1.0, 12)] * 2
    assert "| vLLM" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize(("program", "said"), [("false", "ended with status 1"), ("missing", "No such file")])
def test_an_engine_that_fails(tmp_path, capsys, program, said):
    with pytest.raises(SystemExit) as stop:
        reproduce.main(
            ["serving/smoke", "--ways", "mlx", "--mlx_python", program, "--output_dir", str(tmp_path / "out")]
        )
    assert stop.value.code == 2
    assert f"mlx_python '{program}': " in (error := capsys.readouterr().err) and said in error
