"""Files of a run: a line for each measured cell while it goes on, then result, report and picture."""

import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from mosaic_lab.benchmark.plot import draw
from mosaic_lab.benchmark.ratios import compute_ratios, compute_targets
from mosaic_lab.benchmark.report import format_report
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import describe_difference


class Results:
    """The cells measured so far, in `<recipe>-<hardware>.partial.jsonl`, so that a run can stop and go on.

    Its first line holds all that must not change in between, and the day on which the run began, which names
    the result: `<day>-<recipe>-<hardware>.json`, `.md` and `.png`.

    Raises:
        InputError: if `folder` cannot be written, if it holds that result already, or cells measured with
            other options, hardware, versions or another model.
    """

    def __init__(self, folder: Path, header: dict[str, Any]):
        self.folder = folder
        stem = f"{header['recipe']}-{header['hardware']['slug']}"
        self.partial = folder / f"{stem}.partial.jsonl"
        # As it comes back from the file.
        self.header = json.loads(json.dumps(header))
        try:
            lines = self._read_lines()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"output_dir {folder}: cannot be written: {error.strerror}") from error
        self.day = lines[0]["day"] if lines else date.today().isoformat()
        self.name = f"{self.day}-{stem}"
        self._refuse_to_mix(lines)
        self.rows = {row["name"]: row for row in lines[1:]}

    def _read_lines(self) -> list[dict[str, Any]]:
        if not self.partial.exists():
            return []
        return [json.loads(line) for line in self.partial.read_text(encoding="utf-8").splitlines()]

    def _refuse_to_mix(self, lines: list[dict[str, Any]]) -> None:
        for suffix in (".json", ".md", ".png"):
            path = self.folder / (self.name + suffix)
            if path.exists():
                raise InputError(f"{path} exists: move it away, or name another output_dir")
        if lines:
            for part, value in self.header.items():
                before = lines[0].get(part)
                if before != value:
                    raise InputError(
                        f"{self.partial} holds cells of other {part}: {describe_difference(before, value)}; "
                        "finish that run, or delete the file"
                    )

    def append(self, row: dict[str, Any]) -> None:
        """Keeps a measured cell; the file is never half written."""
        self.rows[row["name"]] = row
        lines = [{"day": self.day, **self.header}, *self.rows.values()]
        growing = self.partial.with_suffix(".growing")
        growing.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        growing.replace(self.partial)

    def finish(
        self, command: str, check: dict[str, Any], names: list[str]
    ) -> tuple[dict[str, Any], list[Path]]:
        """Moves the finished result, report and picture into the folder; returns the result and the paths."""
        rows = [self.rows[name] for name in names]
        result = {"name": self.name, "date": self.day, "command": command, **self.header, "check": check}
        result |= {"cells": rows, "ratios": compute_ratios(rows)}
        result["targets"] = compute_targets(self.header["options"], rows)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".benchmark-") as folder:
            written = [Path(folder) / (self.name + suffix) for suffix in (".json", ".md", ".png")]
            written[0].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            written[1].write_text(format_report(result), encoding="utf-8")
            draw(written[0], written[2])
            paths = [path.replace(self.folder / path.name) for path in written]
        self.partial.unlink()
        return result, paths
