"""What is downloaded from the Hub is what was uploaded."""

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import get_token, snapshot_download
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.hub_access import naming_hub_errors

LOADER = Path(__file__).with_name("load_remote.py")
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play in the park with her dog."
# Float32 logits may differ by so much of the largest one, from one process to the next.
TOLERANCE = 1e-4


def check_model(
    repo_id: str, revision: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Loads a commit into an empty cache, in a process without this package, and compares the logits.

    Args:
        repo_id (`str`): owner/name.
        revision (`str`): the commit.
        model (`PreTrainedModel`): what was uploaded; float32 afterwards.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.

    Returns:
        `str`: what was found, for the terminal.

    Raises:
        InputError: if it does not load, or if it is another model or tokenizer.
    """
    with tempfile.TemporaryDirectory() as place:
        output = Path(place, "output.safetensors")
        process = subprocess.run(
            [sys.executable, str(LOADER), repo_id, revision, TEXT, str(output)],
            env=clean_environment(place),
            capture_output=True,
            text=True,
        )
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            raise InputError(f"{repo_id}: uploaded, but does not load in a clean process: {reason}")
        loaded = load_file(output)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    if not torch.equal(loaded["ids"], ids):
        raise InputError(f"{repo_id}: uploaded, but the tokenizer that loads from there is another one")
    with torch.no_grad():
        logits = model.float()(ids).logits
    difference = (loaded["logits"] - logits).abs().max().item()
    if not difference <= TOLERANCE * logits.abs().max().item():
        raise InputError(
            f"{repo_id}: uploaded, but the logits of what loads from there differ by {difference}"
        )
    return (
        f"downloaded into an empty cache and loaded without this package: same tokens, and logits within "
        f"{difference:.1e}"
    )


def clean_environment(home: str) -> dict[str, str]:
    """This process's environment with empty caches in `home`, but with the user's token."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("HF_") and name.endswith("_CACHE")) and name != "PYTHONPATH"
    }
    return environment | {"HF_HOME": home, "HF_TOKEN": get_token() or ""}


def check_dataset(repo_id: str, revision: str, folder: Path) -> str:
    """Downloads a commit into an empty folder, and compares the files with those of `folder`.

    Returns:
        `str`: what was found, for the terminal.

    Raises:
        InputError: if files are missing or differ.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    with tempfile.TemporaryDirectory() as place:
        with naming_hub_errors(repo_id):
            snapshot_download(repo_id, repo_type="dataset", revision=revision, local_dir=place)
        _, *differing = filecmp.cmpfiles(folder, place, names, shallow=False)
    if wrong := sorted(sum(differing, [])):
        raise InputError(f"{repo_id}: uploaded, but what is downloaded differs: {', '.join(wrong)}")
    return f"downloaded into an empty folder: the same {len(names)} files"
