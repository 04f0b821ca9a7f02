"""From a folder on this machine to a repository on the Hub that is known to load."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mosaic_lab.core.errors import InputError
from mosaic_lab.hub.check import check_dataset, check_model
from mosaic_lab.hub.prepare_dataset import prepare_dataset
from mosaic_lab.hub.prepare_model import prepare_model
from mosaic_lab.hub.upload import connect, upload_folder

REPO_TYPES = ("model", "dataset")


def push(
    folder: str,
    repo_id: str,
    repo_type: str = "model",
    private: bool = False,
    license: str | None = None,
    evaluation: str | None = None,
    dry_run: str | None = None,
) -> None:
    """Prepares the exact folder, uploads it in one commit, and compares what is downloaded from there.

    Args:
        folder (`str`): of a trained model or a data set.
        repo_id (`str`): owner/name.
        repo_type (`str`): model or dataset.
        private (`bool`): whether a new repository is private.
        license (`str`, *optional*): of the weights; Apache 2.0 if `None`. A data set's card tells its own.
        evaluation (`str`, *optional*): folder that `evaluate.py` left; for models.
        dry_run (`str`, *optional*): new folder to leave the prepared files in, without any request.

    Raises:
        InputError: for a folder, a name or options that cannot be used, a Hub that refuses, or a repository
            from which something else is loaded than what was uploaded.
    """
    check_request(folder, repo_id, repo_type, license, evaluation, dry_run)
    api = connect(repo_id) if dry_run is None else None
    with tempfile.TemporaryDirectory() as place:
        prepared = Path(place, "repository")
        prepared.mkdir()
        if repo_type == "model":
            model, tokenizer = prepare_model(
                Path(folder), prepared, repo_id, license or "apache-2.0", evaluation
            )
        else:
            prepare_dataset(Path(folder), prepared, repo_id)
        print(list_files(prepared), flush=True)
        if api is None:
            shutil.move(prepared, dry_run)
            print(f"prepared in {dry_run}; nothing was uploaded")
            return
        commit = upload_folder(api, prepared, repo_id, repo_type, private)
        print(f"uploaded: {commit.commit_url}", flush=True)
        if repo_type == "model":
            print(check_model(repo_id, commit.oid, model, tokenizer))
        else:
            print(check_dataset(repo_id, commit.oid, prepared))


def check_request(
    folder: str,
    repo_id: str,
    repo_type: str,
    license: str | None,
    evaluation: str | None,
    dry_run: str | None,
) -> None:
    """Refuses, before any work, what cannot be meant.

    Raises:
        InputError: that names the argument and its value.
    """
    if not Path(folder).is_dir():
        raise InputError(f"folder {folder}: there is no such folder")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"repo_id {repo_id}: {error}") from error
    if "/" not in repo_id:
        raise InputError(f"repo_id {repo_id}: must be owner/name")
    for name, value in (("license", license), ("evaluation", evaluation)):
        if value is not None and repo_type != "model":
            raise InputError(f"{name} {value}: only a model's card takes one")
    if dry_run is not None:
        with _named("dry_run", dry_run):
            Path(dry_run).mkdir(parents=True)
            Path(dry_run).rmdir()


@contextmanager
def _named(field: str, value: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{field} {value}: cannot be created: {error.strerror}") from error


def list_files(folder: Path) -> str:
    """The files of a folder with their sizes, one a line."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{path.stat().st_size:>13,}  {path.relative_to(folder)}" for path in files)
