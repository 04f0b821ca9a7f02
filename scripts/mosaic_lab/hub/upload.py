"""The upload itself: one commit, so that a repository never holds half of a model."""

from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.hub_access import naming_hub_errors

# What earlier uploads may have left and a loader would take for a part of this one.
REPLACED = {
    "model": (
        *("*.safetensors", "*.bin", "*.index.json", "*.py", "tokenizer*", "vocab.*", "merges.txt"),
        *("added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"),
    ),
    "dataset": ("data/*",),
}


def connect(repo_id: str) -> HfApi:
    """A client that the Hub knows the user of.

    Raises:
        InputError: if there is no token, if it is not valid, or if the Hub is out of reach.
    """
    api = HfApi()
    with naming_hub_errors(repo_id):
        api.whoami()
    return api


def upload_folder(api: HfApi, folder: Path, repo_id: str, repo_type: str, private: bool) -> CommitInfo:
    """Makes the repository if there is none, and commits all files of `folder` at once.

    `HfApi.upload_folder` may spread a folder over several commits.

    Args:
        api (`HfApi`): the client.
        folder (`Path`): the files, at the places that they are to have.
        repo_id (`str`): owner/name.
        repo_type (`str`): model or dataset.
        private (`bool`): whether a new repository is private; an existing one must be so.

    Raises:
        InputError: if the Hub refuses. The repository holds what it held before then.
    """
    with naming_hub_errors(repo_id):
        api.create_repo(repo_id, private=private or None, repo_type=repo_type, exist_ok=True)
        before = api.repo_info(repo_id, repo_type=repo_type)
        if private and not before.private:
            raise InputError(f"private: {repo_id} exists and is public")
        added = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        gone = [
            file.rfilename
            for file in before.siblings
            if file.rfilename not in added and _is_replaced(file.rfilename, repo_type)
        ]
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationDelete(name, is_folder=False) for name in gone),
                *(CommitOperationAdd(name, path) for name, path in added.items()),
            ],
            commit_message=f"Upload {repo_type}",
            repo_type=repo_type,
            parent_commit=before.sha,
        )


def _is_replaced(name: str, repo_type: str) -> bool:
    """Whether an earlier upload's file goes; those in folders, such as checkpoints, stay."""
    return any(
        fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in REPLACED[repo_type]
    )
