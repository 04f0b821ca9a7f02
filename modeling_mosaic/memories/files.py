"""Memories as safetensors files, here and on the Hub."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..complete_files import replacing
from .layout import LAYOUTS
from .window import Window

FORMAT, VERSION = "mosaic-memory", "1"
# The file's name in a repository on the Hub.
FILENAME = "memory.safetensors"
_CARD = """\
# {name}

What a [Memory Mosaic](https://arxiv.org/abs/{paper}) keeps of what it has read, to be continued by the
model that read it: {description}.

```python
from modeling_mosaic import MosaicMemory

memory = MosaicMemory.load("{repo_id}", model)
model.generate(**tokenizer("...", return_tensors="pt"), cache=memory.to_cache())
```

It holds the ids of the tokens that were read: whoever has the file can read the texts.
"""


def save_memory(memory, path: str | os.PathLike) -> None:
    """Writes the tensors of a `MosaicMemory`, with the rest as metadata; see `MosaicMemory.save`."""
    tensors = {"keys": memory.keys, "values": memory.values, "tokens": memory.tokens}
    for group in ("states", "beginning"):
        states = getattr(memory, group)
        if states is not None:
            tensors |= {
                f"{group}.{name}": state for name, state in zip(memory.layout.states, states, strict=True)
            }
    if memory.layout.window:
        tensors |= {f"window.{name}": tensor for name, tensor in memory.window._asdict().items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model_type": memory.model_type,
        "fingerprint": memory.fingerprint,
        "sources": json.dumps(memory.sources),
        "beginning_id": json.dumps(memory.beginning_id),
    }
    with replacing(path) as partial:
        # Views of one tensor, as cuts of a memory are, are refused.
        content = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(content, partial, metadata)


def load_memory(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the arguments of a `MosaicMemory`; see `MosaicMemory.load`."""
    name = os.fspath(path)
    if not os.path.exists(path) and name.count("/") == 1 and not name.endswith(".safetensors"):
        path = hf_hub_download(name, FILENAME)
    if os.path.isdir(path):
        path = os.path.join(path, FILENAME)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            found = (metadata.get("format"), metadata.get("version"))
            if found != (FORMAT, VERSION):
                what = "no memory of a mosaic" if found[0] != FORMAT else f"a memory of version {found[1]}"
                raise ValueError(f"{name}: {what}; this release reads version {VERSION}")
            return _as_arguments({key: file.get_tensor(key) for key in file.keys()}, metadata)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{name}: damaged, or no memory: {error}") from error


def _as_arguments(tensors: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
    # Files from before there was a second model do not name the first.
    model_type = metadata.get("model_type", "mosaic")
    layout = LAYOUTS[model_type]
    has_beginning = any(name.startswith("beginning.") for name in tensors)
    window = Window.empty(tensors["keys"])
    if layout.window:
        window = Window(**{name: tensors[f"window.{name}"] for name in Window._fields})
    return {
        **{name: tensors[name] for name in ("keys", "values", "tokens")},
        "window": window,
        "states": tuple(tensors[f"states.{name}"] for name in layout.states),
        "beginning": tuple(tensors[f"beginning.{name}"] for name in layout.states) if has_beginning else None,
        "beginning_id": json.loads(metadata["beginning_id"]),
        "sources": tuple(map(str, json.loads(metadata["sources"]))),
        "model_type": model_type,
        "fingerprint": metadata["fingerprint"],
    }


def push_memory(
    memory,
    repo_id: str,
    *,
    base_model: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    dry_run: str | os.PathLike | None = None,
) -> str:
    """Uploads a memory with a card in one commit, to a repository that is created if there is none.

    Args:
        memory (`MosaicMemory`): the memory.
        repo_id (`str`): owner/name.
        base_model (`str`, *optional*): Hub id of the model that read it, for the card.
        private (`bool`, *optional*): whether a new repository is private.
        token (`str`, *optional*): of the Hub; the one that is logged in by default.
        dry_run (`str` or `PathLike`, *optional*): new folder to leave the files in instead, without any
            request.

    Returns:
        `str`: address of the commit, or the folder.
    """
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"repo_id must be owner/name, not {repo_id!r}")
    metadata = ModelCardData(base_model=base_model, tags=["memory-mosaics", FORMAT])
    text = _CARD.format(
        name=repo_id.split("/")[1], repo_id=repo_id, paper=memory.layout.paper, description=f"`{memory}`"
    )
    card = ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")
    if dry_run is not None:
        with replacing(dry_run) as folder:
            _fill_repository(folder, memory, card)
        return os.fspath(dry_run)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "repository")
        _fill_repository(folder, memory, card)
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        # `upload_folder` may make several commits.
        added = [CommitOperationAdd(file.name, file) for file in sorted(folder.iterdir())]
        return api.create_commit(repo_id, added, commit_message="Upload memory").commit_url


def _fill_repository(folder: Path, memory, card: ModelCard) -> None:
    folder.mkdir()
    memory.save(folder / FILENAME)
    card.save(folder / "README.md")
