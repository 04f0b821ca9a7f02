"""One HTML file that shows a memory record: no network, no server, no framework.

The file holds the record in packs, each a safetensors file in gzip and base64, which the browser unpacks; the
page's scripts, as an import map of `data:` addresses; and a content security policy that forbids everything
else. Texts of the record enter the file in base64 only, so that none can be taken for markup.
"""

import hashlib
import html
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ..complete_files import replacing
from .catalogue import LEADING, MEASURES
from .packs import as_base64, pack_record

ASSETS = Path(__file__).parent / "assets"
# Larger pages are slow to send and to open. What is left out is read from a record file dropped on the page.
MAX_BYTES = 9_500_000
# Of a page in a notebook, which grows by as much.
MAX_NOTEBOOK_BYTES = 4_000_000


def write_page(record, path, *, units: str | Iterable = "auto", compare=None, slots=None) -> Path:
    """Writes a record as one HTML file, which opens without a network.

    Args:
        record (`MemoryRecord`): what to show.
        path: the file; an older one is replaced once the new one is complete.
        units: contextual units whose keys and values go in, so that pairs can be deleted there: "auto" (those
            that cost most to remove, as many as fit into 9.5 MB), "all", or pairs `(layer, unit)`.
        compare (`MemoryRecord`, *optional*): a second record, shown beside the first on the same scales.
        slots (`SlotStatistics`, *optional*): persistent slots over many texts.

    Raises:
        ValueError: if a unit does not exist, the slots are another model's, or the file cannot be written.
    """
    text = page_html(record, units=units, compare=compare, slots=slots)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def page_html(
    record, *, units: str | Iterable = "auto", compare=None, slots=None, serve: bool = False
) -> str:
    """The page as a string; arguments as those of `write_page`. A served page may ask its own server."""
    if slots is not None and slots.model_fingerprint != record.model_fingerprint:
        raise ValueError("slots were counted with another model than the record was made with")
    return _page([record] if compare is None else [record, compare], units, serve, MAX_BYTES, slots)


def notebook_html(record) -> str:
    """The page in a frame of its own, for a notebook's output."""
    page = html.escape(_page([record], "auto", False, MAX_NOTEBOOK_BYTES), quote=True)
    return (
        f'<iframe srcdoc="{page}" sandbox="allow-scripts allow-downloads" title="Memory inspector" '
        'style="width: 100%; height: 860px; border: 0"></iframe>'
    )


def _page(records: list, units: str | Iterable, serve: bool, max_bytes: int, slots=None) -> str:
    packs = [
        f'<script type="application/x-safetensors" data-pack="{place}.{name}">{pack}</script>'
        for place, one in enumerate(records)
        for name, pack in pack_record(
            one, units, max_bytes // len(records), slots if place == 0 else None
        ).items()
    ]
    modules = {
        f"inspector/{path.stem}": f"data:text/javascript;base64,{as_base64(_module(path))}"
        for path in sorted(ASSETS.glob("*.js"))
        if path.name != "start.js"
    }
    catalogue = {"measures": [asdict(one) for one in MEASURES.values()], "leading": LEADING}
    scripts = {"importmap": json.dumps({"imports": modules}), "start": (ASSETS / "start.js").read_text()}
    parts = scripts | {
        "hashes": " ".join(f"'sha256-{_hash(text)}'" for text in scripts.values()),
        "connect": "'self'" if serve else "'none'",
        "style": (ASSETS / "page.css").read_text(),
        "catalogue": as_base64(json.dumps(catalogue).encode()),
        "packs": "\n".join(packs),
        # Last, as a name may look like a place to fill.
        "title": html.escape("Memories of " + " and ".join(Path(one.model_name).name for one in records)),
    }
    page = (ASSETS / "page.html").read_text()
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text, 1)
    return page


def _module(path: Path) -> bytes:
    """A script with the name under which developer tools list it."""
    return f"{path.read_text(encoding='utf-8')}\n//# sourceURL=inspector/{path.name}\n".encode()


def _hash(text: str) -> str:
    return as_base64(hashlib.sha256(text.encode("utf-8")).digest())
