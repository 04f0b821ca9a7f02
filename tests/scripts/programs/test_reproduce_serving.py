"""`reproduce serving/smoke`: all ways write the same, are measured in turn, and reported."""

import json

import pytest

from mosaic_lab.programs import reproduce
from mosaic_lab.serving import report
from mosaic_lab.serving.ways import WAYS


@pytest.mark.slow
def test_smoke(tmp_path, capsys):
    folder = tmp_path / "smoke"
    reproduce.main(["serving/smoke", "--rounds", "1", "--output_dir", str(folder)])
    results = json.loads((folder / "results.json").read_text())
    assert {(result["way"], result["contestant"]) for result in results} == {
        (way, contestant) for way in WAYS for contestant in ("mosaic", "gpt2")
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
    assert "ways must be of one_by_one, static, continuous, not 'telepathy'" in capsys.readouterr().err
