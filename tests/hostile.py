"""Wrong and hostile command lines for every program, and what becomes of them.

    python tests/hostile.py FOLDER [SEED] [DRAWN]    runs the listed ones and DRAWN more for each program

Each runs in a process of its own, forked from this one, on tiny data in FOLDER. A table counts which ended
well (accepted), with one line and exit status 2 (clear error), so but with files left behind (left output),
with anything else (raw traceback), or never (hang).
"""

import json
import math
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as

ENDS = ("accepted", "clear error", "left output", "raw traceback", "hang")
ACCEPTED, CLEAR, LEFT, RAW, HANG = ENDS
SECONDS = 180
HUGE = "99999999999999999999"
INTS = ("-1", "0", "1", "2", HUGE, f"-{HUGE}", "1.5", "nan", "", "x")
FLOATS = ("-1", "0", "0.5", "1e-40", "1e300", "nan", "inf", "-inf", "", "x")
WORDS = ("", " ", "nope", "none", "true", "-1", "é\n", "\x1b[31m", "\udcff", "x" * 5000, "{", "[1]", "null")
BROKEN_RECIPES = (
    "a: b: c",
    "- list",
    "",
    "[" * 5000,
    "block_size: [1, 2]",
    "seed: .nan",
    "seed: {a: 1}",
    "nope: 1",
    "a: &a [1]\nb: [*a, *a]",
    "output_dir: 'a\\0b'".replace("'", '"'),
    "seed: !!python/object/apply:os.system ['true']",
    f"seed: {'9' * 5000}",
    "seed: 2020-99-99",
    "? [a]\n: 1",
    "\x00\xff",
)
# They compile for minutes, start processes, or change the machine's state.
NOT_DRAWN = ("torch_compile", "dataloader_num_workers", "output_dir", "dry_run", "memory_of", "help")

# Program, arguments after those of `BASE`, and whether the command line alone shows what is wrong.
LISTED = [
    ("train", "--learning_rate nan", True),
    ("train", "--learning_rate -1", True),
    ("train", "--adam_beta1 2", True),
    ("train", "--warmup_steps nan", True),
    ("train", "--per_device_train_batch_size 0", True),
    ("train", "--per_device_train_batch_size -1", True),
    ("train", "--gradient_accumulation_steps 0", True),
    ("train", "--seed -1", True),
    ("train", f"--seed {HUGE}", True),
    ("train", "--corpus_seed -1", True),
    ("train", "--validation_fraction 0.999999", False),
    ("train", f"--block_size {HUGE}", True),
    ("train", "--preprocessing_workers -2", True),
    ("train", "--report_to tensorboard", False),
    ("train", "--report_to wandb", False),
    ("train", "--optim adamw_bnb_8bit", False),
    ("train", "--fsdp full_shard", False),
    ("train", "--deepspeed /nope.json", False),
    ("train", "--torch_compile_backend nope", False),
    (
        "train",
        "--metric_for_best_model accuracy --load_best_model_at_end true --eval_strategy steps --eval_steps 1"
        " --save_steps 1 --save_strategy steps --validation_fraction 0.2",
        True,
    ),
    ("train", "--attn_implementation flex_attention", False),
    ("train", "--dataset ../deep.json", False),
    ("train", "--model ../deep.json", False),
    ("train", "--dataset ../surrogate.jsonl", False),
    ("train", f"--dataset stories --num_stories {HUGE}", True),
    ("train", "--dataset=", True),
    ("train", "--model mosaic-99", False),
    ("train", "--output_dir ../empty-manifest --resume_from_checkpoint --max_steps 4", False),
    ("train", "--output_dir ../list-manifest --resume_from_checkpoint --max_steps 4", False),
    ("train", "--output_dir ../damaged-state --resume_from_checkpoint --max_steps 4", False),
    *(("generate", f"--device {name}", False) for name in ("cuda", "cuda:99", "tpu", "-1", "meta")),
    *(("generate", f"--dtype {name}", False) for name in ("nope", "float8_e4m3fn")),
    *(("generate", f"--num_beams {number}", True) for number in (0, -1, 100000)),
    *(("generate", f"--num_return_sequences {number}", True) for number in (0, -1)),
    *(("generate", f"--top_p {number}", True) for number in (2, "nan")),
    ("generate", "--max_new_token 3", True),
    ("generate", "--temperature 1e-40", True),
    ("generate", ["../out", "a\udcff"], True),
    *(
        ("generate", [f"../{name}", "Once"], False)
        for name in (
            "null-config",
            "null-tokenizer",
            "list-tokenizer-config",
            "list-generation-config",
            "float99",
            "layer-types",
            "pickle",
            "nan-weights",
        )
    ),
    *(("evaluate", f"--dtype {name}", False) for name in ("nope", "float8_e4m3fn")),
    ("evaluate", ["../nan-weights", "--output_dir", "measured"], False),
    ("evaluate", "--segment_size 1000000", True),
    ("convert_checkpoint", ["../sparse.pt", "--output_dir", "new"], False),
    ("convert_checkpoint", ["../meta.pt", "--output_dir", "new"], False),
    *(
        ("push_to_hub", [f"../{name}", "a/b", "--dry_run", "look"], False)
        for name in ("damaged-results", "damaged-push-state", "damaged-curve")
    ),
    *(("attention_maps", f"--dtype {name}", False) for name in ("nope", "float8_e4m3fn")),
    ("attention_maps", "--output_dir ../maps", False),
    ("three_moons", "--min_learning_rate nan", True),
    ("three_moons", "--min_learning_rate inf", True),
    ("comparison", "--seeds -1", True),
    ("regbench", "--seeds -1", True),
    ("regbench_data", "--max_string_length 99999999999", True),
    ("make_stories", "--model grammar --num_stories 1 --validation_fraction 0.5", False),
    ("make_stories", "--model grammar --validation_fraction 0.999999", False),
    ("make_stories", f"--model grammar --num_stories {2**62}", True),
    ("make_stories", "--model ../out --prompts ../surrogate.jsonl", False),
    ("make_stories", "--model ../nope", False),
    ("make_stories", "--dtype nope --model ../out", False),
    ("benchmark", "--device cuda", False),
]

# What each program needs at least. Paths are relative to a folder beside the data.
BASE = {
    "train": ["../recipe.yaml", "--output_dir", "run"],
    "generate": ["../out", "Once", "--max_new_tokens", "3"],
    "evaluate": "../out --dataset ../text.txt --validation_fraction 0.5 --num_rows 2 --num_documents 2"
    " --num_segments 2 --segment_size 4 --max_new_tokens 0 --block_size 16 --output_dir measured".split(),
    "convert_checkpoint": ["../regular.pt", "--output_dir", "new"],
    "push_to_hub": ["../out", "a/b", "--dry_run", "look"],
    "make_stories": "../stories.yaml --num_stories 4 --output_dir told --train_tokenizer 300".split(),
    "benchmark": ["smoke", "--output_dir", "timed"],
    "attention_maps": "attention_maps/small --models ../out --dataset ../text.txt --validation_fraction 0.5"
    " --contexts 64 --num_sequences 2 --output_dir maps".split(),
    "three_moons": ["three_moons/grid", "--output_dir", "moons"],
    "comparison": ["comparison/small", "--output_dir", "compared"],
    "regbench": ["regbench/small", "--output_dir", "bench"],
    "regbench_data": ["regbench/data", "--output_dir", "languages"],
}
# Those that are experiments of `reproduce`.
EXPERIMENTS = ("attention_maps", "three_moons", "comparison", "regbench", "regbench_data")


def load(program: str) -> ModuleType:
    """The module of a program, or of the one that runs an experiment."""
    return import_module(f"mosaic_lab.programs.{'reproduce' if program in EXPERIMENTS else program}")


def make_parser(program: str) -> CommandParser:
    """The parser of a program, or that of an experiment."""
    make = load(program).make_parser
    return make(BASE[program][0])[1] if program in EXPERIMENTS else make()


def arguments_of(program: str, rest: str | list[str]) -> list[str]:
    """The command line: a text is split and follows the base, a list stands for itself."""
    return rest if isinstance(rest, list) else [*BASE[program], *rest.split()]


def draw(program: str, seed: str, folder: Path) -> list[str]:
    """A command line with one to three options and values that are valid, or are not."""
    rng = random.Random(seed)
    parser = make_parser(program)
    argv = list(BASE[program])
    if rng.random() < 0.1 and parser.recipes is not None:
        path = folder / f"{seed}.yaml"
        path.write_bytes(rng.choice(BROKEN_RECIPES).encode("latin-1"))
        argv = ["--recipe", str(path), *argv] if program == "evaluate" else [str(path), *argv[1:]]
    actions = [
        action
        for action in parser._actions
        if action.option_strings and not action.dest.startswith(NOT_DRAWN)
    ]
    for action in rng.sample(actions, min(len(actions), rng.randint(1, 3))):
        option = rng.choice(action.option_strings) if rng.random() < 0.95 else f"--{action.dest[:-1]}"
        values = {int: INTS, float: FLOATS}.get(action.type, WORDS)
        if action.choices and rng.random() < 0.7:
            values = [str(choice) for choice in action.choices]
        count = rng.choice((0, 1, 2)) if action.nargs == "+" else 0 if action.nargs == 0 else 1
        words = [rng.choice(values) for _ in range(count)]
        argv += [f"{option}={words[0]}"] if len(words) == 1 and rng.random() < 0.7 else [option, *words]
    return argv


def parse(program: str, argv: list[str]) -> None:
    """Only what the program does with its command line."""
    with reported_as(program):
        if program in EXPERIMENTS:
            load(program).parse(argv)
        else:
            make_parser(program).parse(argv)


def attempt(call, *arguments, folder: Path, seconds: float = SECONDS) -> tuple[str, str]:
    """Calls in a forked process in `folder`: the kind of its end, and all that it printed."""
    log = folder / "log.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.setsid()
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace") for number in (1, 2))
        status = 0
        try:
            call(*arguments)
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    end = time.monotonic() + seconds
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return HANG, log.read_text(errors="replace")
        time.sleep(0.01)
    printed = log.read_text(errors="replace")
    status = os.waitstatus_to_exitcode(ended[1])
    lines = re.findall(r"^[a-z_]+: error: .+", printed, re.MULTILINE)
    if status == 0:
        return ACCEPTED, printed
    return (CLEAR if status == 2 and len(lines) == 1 and "Traceback" not in printed else RAW), printed


def write_recipes(folder: Path) -> None:
    """The recipes that `BASE` names."""
    options = {
        "dataset": str(folder / "text.txt"),
        "model": str(folder / "tiny.json"),
        "train_tokenizer": 300,
        "validation_fraction": 0,
        "block_size": 32,
        "max_steps": 2,
        "save_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    (folder / "recipe.yaml").write_text("".join(f"{key}: {value}\n" for key, value in options.items()))
    (folder / "stories.yaml").write_text("model: grammar\nshard_size: 4\nnear_duplicate: 1.0\n")


def prepare(folder: Path) -> None:
    """Tiny data, a model of a few steps, and damaged copies of it."""
    import torch
    from safetensors.torch import load_file, save_file

    from mosaic_lab.programs import train
    from original_reference import random_checkpoint

    story = "Once upon a time there was a small fox who liked to count the stars above the quiet hill.\n\n"
    (folder / "text.txt").write_text("".join(f"{number}. {story}" for number in range(60)))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "surrogate.jsonl").write_text('{"text": "a\\ud800"}\n' * 5)
    config = {"model_type": "mosaic", "vocab_size": 320, "hidden_size": 16, "num_hidden_layers": 1}
    (folder / "tiny.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    write_recipes(folder)
    out = folder / "out"
    end, printed = attempt(train.main, [f"{folder}/recipe.yaml", "--output_dir", str(out)], folder=folder)
    assert end == ACCEPTED, printed

    def damage(name: str, file: str, content: str | bytes) -> Path:
        copy = Path(shutil.copytree(out, folder / name))
        (copy / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return copy

    fields = json.loads((out / "config.json").read_text())
    damage("null-config", "config.json", "null")
    damage("null-tokenizer", "tokenizer.json", "null")
    damage("list-tokenizer-config", "tokenizer_config.json", "[]")
    damage("list-generation-config", "generation_config.json", "[]")
    damage("float99", "config.json", json.dumps(fields | {"dtype": "float99"}))
    damage("layer-types", "config.json", json.dumps(fields | {"layer_types": ["a"]}))
    pickled = b"cos\nsystem\n(S'touch PWNED'\ntR."
    (damage("pickle", "pytorch_model.bin", pickled) / "model.safetensors").unlink()
    weights = load_file(out / "model.safetensors")
    save_file(
        {name: torch.full_like(weight, math.nan) for name, weight in weights.items()},
        damage("nan-weights", "README.txt", "") / "model.safetensors",
        metadata={"format": "pt"},
    )
    for checkpoint in ("checkpoint-1", "checkpoint-2"):
        assert (out / checkpoint / "complete.json").exists()
    damage("empty-manifest", "checkpoint-2/complete.json", "")
    damage("list-manifest", "checkpoint-2/complete.json", "[]")
    damage("damaged-state", "checkpoint-2/trainer_state.json", "{")
    damage("damaged-results", "results.json", "{")
    damage("damaged-push-state", "trainer_state.json", "[")
    damage("damaged-curve", "loss_curve.json", "nope")
    for run in ("out", "out/64"):
        (folder / "maps" / run).mkdir(parents=True)
        for name in ("options.json", "result.json"):
            (folder / "maps" / run / name).write_text("{")
    state_dict, arguments = random_checkpoint("regular")
    key = next(key for key, weight in state_dict.items() if weight.dim() == 2)
    weight = state_dict[key]
    kinds = {"regular": weight, "sparse": weight.to_sparse(), "meta": weight.to("meta")}
    for name, weight in kinds.items():
        content = {"model": state_dict | {key: weight}, "model_args": arguments}
        torch.save(content, folder / f"{name}.pt")


def main(folder: Path, seed: str = "0", drawn: int = 0) -> bool:
    """Runs all, and prints the table and whatever ended raw; whether nothing did."""
    prepare(folder)
    cases = [(program, arguments_of(program, rest)) for program, rest, _ in LISTED]
    # What the benchmark accepts takes it minutes.
    for program in (name for name in BASE if name not in EXPERIMENTS and name != "benchmark"):
        cases += [(program, draw(program, f"{seed}-{program}-{number}", folder)) for number in range(drawn)]
    counts = Counter()
    place = folder / "case"
    for program, argv in cases:
        place.mkdir()
        start = time.monotonic()
        end, printed = attempt(load(program).main, argv, folder=place)
        seconds = time.monotonic() - start
        left = sorted(path.name for path in place.iterdir() if path.name != "log.txt")
        if end == CLEAR and left:
            end = LEFT
        counts[program, end] += 1
        line = next((line for line in printed.splitlines() if ": error: " in line), "")
        options = argv[len(BASE[program]) :] or argv
        print(f"{end} in {seconds:.1f} s: {program} {options}: {line[:300]}", flush=True)
        if end == LEFT:
            print(left)
        if end in (RAW, HANG):
            print(printed[-3000:])
        shutil.rmtree(place)
    print("\n| program | cases | " + " | ".join(ENDS) + " |" + "\n|" + " --- |" * (2 + len(ENDS)))
    for program in (*BASE, "sum"):
        row = [
            sum(n for (name, end), n in counts.items() if end == kind and program in (name, "sum"))
            for kind in ENDS
        ]
        print(f"| {program} | {sum(row)} | " + " | ".join(map(str, row)) + " |")
    return not any(end in (LEFT, RAW, HANG) for _, end in counts)


if __name__ == "__main__":
    for name in BASE:
        load(name)
    sys.exit(not main(Path(sys.argv[1]).absolute(), *sys.argv[2:3], *map(int, sys.argv[3:4])))
