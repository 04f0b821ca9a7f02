"""The library behind the programs has a ground floor, and nothing imports upwards."""

import ast
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "scripts" / "mosaic_lab"
# Who may import whom: folders of a line may import those of the lines above it, and not each other.
FLOORS = (
    {"core"},
    {"stories", "ablations"},
    {"training"},
    {"evaluation", "babistories", "benchmark", "three_moons", "regbench", "in_context", "memories"},
    {
        "hub",
        "comparison",
        "attention_maps",
        "inspection",
        "merging",
        "bounding",
        "searching",
        "serving",
        "speedrun",
    },
    {"programs"},
)


def read_imports(path):
    """The folders of `mosaic_lab` that a file imports, at its top or inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "mosaic_lab" and len(parts) > 1 and (LIBRARY / parts[1]).is_dir():
                yield parts[1]


def test_nothing_imports_upwards():
    floor_of = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
    assert {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()} == set(floor_of)
    for path in LIBRARY.rglob("*.py"):
        folder = path.relative_to(LIBRARY).parts[0]
        if folder in floor_of:
            for imported in set(read_imports(path)) - {folder}:
                assert floor_of[imported] < floor_of[folder], f"{path} imports {imported}"


def test_programs_are_only_called():
    """What a program needs lies in the library, where notebooks can import it."""
    programs = {path.stem for path in (LIBRARY.parent).glob("*.py")}
    assert programs <= {path.stem for path in (LIBRARY / "programs").glob("*.py")}


def test_no_program_hides_a_package(tmp_path):
    """Programs are named like packages, `evaluate` for one, which libraries must still find."""
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "__init__.py").write_text("name = 'the package'")
    for program in sorted(LIBRARY.parent.glob("*.py")):
        code = program.read_text().split("    from mosaic_lab.cli import run")[0]
        probe = tmp_path / "scripts" / program.name
        probe.parent.mkdir(exist_ok=True)
        probe.write_text(code + "    import evaluate\n    print(evaluate.name)\n")
        result = subprocess.run(
            [sys.executable, str(probe)], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
        )
        assert result.stdout == "the package\n", result.stderr
