"""Records of a small model, and a browser that shows their pages."""

import os
import shutil

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, MosaicV2Config, MosaicV2ForCausalLM
from modeling_mosaic.inspector.page import write_page
from modeling_mosaic.inspector.record import record_memories

STORY = (
    "Once upon a time a little cat had a red ball. The cat lost the red ball. A kind dog found the ball, "
    "and the little cat smiled. Then the dog and the cat played with the red ball until the sun went down. "
)
# Tokens of the text that the small models read.
TIME = 40
HOSTILE = (
    'a </script><script>alert(1)</script> <img src=x onerror=alert(2)> "q" &amp; '
    "\u202eabc שלום 👩\u200d🚀 é 日本\n\ttab\x00"
)


@pytest.fixture
def text(random_tokens):
    """Tokens with repetitions."""
    return random_tokens(TIME, vocab_size=30).tolist()


@pytest.fixture
def makers(make_model, make_v2):
    """Builds small models, by kind."""
    return {"mosaic": make_model, "mosaic_v2": make_v2}


@pytest.fixture(params=["mosaic", "mosaic_v2"])
def make(request, makers):
    """Builds small models of either kind."""
    return makers[request.param]


@pytest.fixture(scope="session")
def tokenizer():
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator([STORY], 320, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def model(tokenizer):
    """Two layers of three units, whose keys are long enough that some pairs matter much more than others."""
    torch.manual_seed(0)
    config = MosaicConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        persistent_memory_size=40,
    )
    return MosaicForCausalLM(config).eval()


@pytest.fixture(scope="session")
def record(model, tokenizer):
    return record_memories(model, tokenizer, STORY)


@pytest.fixture(scope="session")
def model_v2(tokenizer):
    """The same in the second model: short-term memories that forget, long-term ones that wait."""
    torch.manual_seed(0)
    config = MosaicV2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        short_memory_size=20,
        long_memory_delay=9,
        long_memory_delay_range=(9, 20),
    )
    return MosaicV2ForCausalLM(config).eval()


@pytest.fixture(scope="session")
def record_v2(model_v2, tokenizer):
    return record_memories(model_v2, tokenizer, STORY)


@pytest.fixture
def record_of(request):
    """The record of a model, by the model's kind."""
    names = {"mosaic": "record", "mosaic_v2": "record_v2"}
    return lambda kind: request.getfixturevalue(names[kind])


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright; its tests skip where one of the two is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra inspect-test)")
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"needs a browser: one of {', '.join(names)}, or its path in CHROMIUM")
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


class Shown:
    """A page of the inspector, and all that it asked for or complained of."""

    def __init__(self, browser, address: str, **options):
        defaults = {"viewport": {"width": 1280, "height": 900}, "offline": True}
        self.context = browser.new_context(**(defaults | options))
        self.page = self.context.new_page()
        self.requests, self.problems = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("console", self.hear)
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)

    def hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def fact(self, name: str) -> float:
        """A number above the table of pairs."""
        return as_number(self.page.locator(f"dl [data-fact={name}]").inner_text().split("\n")[0])

    def pairs(self) -> dict[int, dict[str, float]]:
        """Numbers of the table of pairs, by pair."""
        rows = self.page.locator(".pairTable tbody tr").evaluate_all(
            "rows => rows.map(row => [row.dataset.pair, Object.fromEntries(Array.from("
            "row.querySelectorAll('[data-fact]'), cell => [cell.dataset.fact, cell.innerText]))])"
        )
        return {
            int(pair): {name: as_number(text.split("\n")[0]) for name, text in row.items()}
            for pair, row in rows
        }


def as_number(text: str) -> float:
    """A number as the page writes it."""
    text = text.strip().replace("−", "-").lstrip("+")
    if text == "–":
        return float("nan")
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


@pytest.fixture
def show(browser, tmp_path):
    """Writes a record's page and opens it from its file."""
    shown = []

    def show(record, link: str = "", *, compare=None, units="auto", slots=None, **options):
        path = write_page(record, tmp_path / "page.html", units=units, compare=compare, slots=slots)
        shown.append(Shown(browser, f"{path.as_uri()}#{link}", **options))
        return shown[-1]

    yield show
    for one in shown:
        one.context.close()
