"""A page of 12 layers of 12 units and 2,048 tokens: its size, and how long it takes to open and to answer.

    python -m pytest -m slow -s tests/modeling_mosaic/inspector/test_large_page.py

prints what it measures. Numbers are random, so that they compress badly. Times are those of the page's main
thread on the processor, which do not grow when the machine is busy.
"""

import pytest
import torch

from modeling_mosaic import MEASURES, MemoryRecord, MosaicConfig
from modeling_mosaic.inspector.page import write_page

from .conftest import Shown

L, H, T, D, M, K, SLOTS, PAIRS, HOVERS = 12, 12, 2048, 64, 2688, 1500, 64, 16, 40
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large_record():
    """A record with random tensors, as one of a model of GPT-2's size would have them."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    def choose(end, *shape):
        return torch.randint(end, shape, generator=draw)

    config = MosaicConfig(
        vocab_size=K, hidden_size=H * D, num_hidden_layers=L, num_attention_heads=H, persistent_memory_size=M
    )
    keys, values = (torch.nn.functional.normalize(normal(L, H, time, D), dim=-1) for time in (T, T - 1))
    tensors = {
        "token_ids": choose(K, T),
        "loss": normal(T).abs(),
        "entropy": normal(T).abs(),
        "top_ids": choose(K, T, 10),
        "top_logprobs": -normal(T, 10).abs(),
        "final_scale": normal(T).abs(),
        "contextual.keys": 3 * keys,
        "contextual.values": 0.6 * values,
        "contextual.output": 0.05 * normal(L, H, H * D, D),
        "contextual.mix": normal(L, H),
        "contextual.value_scale": torch.full((L, H), 0.6),
        "contextual.pair_index": choose(T - 1, L, H, T, PAIRS).int(),
        "contextual.pair_weight": torch.rand(L, H, T, PAIRS, generator=draw).half(),
        "readout.token_ids": torch.arange(K),
        "readout.rows": 0.05 * normal(K, H * D),
        "readout.raw_values": normal(H, K, D),
        "persistent.slot_use": torch.rand(L, H, M, generator=draw) / M,
        "persistent.slot_length": normal(L, H, M).abs(),
        "persistent.slot_shift": normal(L, H, M).abs(),
        "persistent.slot_worth": normal(L, H, SLOTS),
        "persistent.slot_most_used": choose(M, L, H, SLOTS),
        "persistent.slot_tokens": choose(K, L, H, SLOTS, 10),
        "persistent.slot_token_logits": normal(L, H, SLOTS, 10),
        "persistent.slot_callers": choose(T, L, H, SLOTS, 4),
        "persistent.slot_caller_weights": torch.rand(L, H, SLOTS, 4, generator=draw).half(),
    }
    for name, measure in MEASURES.items():
        shapes = {"token": (L, H, T), "unit": (L, H), "relation": (L, H, H)}
        tensors[f"measure.{name}"] = normal(*shapes[measure.shape]).abs()
    words = [f" word{number}" for number in range(K)]
    tokens = [words[number] for number in tensors["token_ids"].tolist()]
    details = {
        "tokens": tokens,
        "offsets": [[0, 0]] * T,
        "text": "".join(tokens),
        "sources": [{"first": 0, "name": "text"}],
        "config": config.to_dict(),
        "model_name": "twelve",
        "model_fingerprint": "",
        "self_check": {"answer_max": 0.0},
        "vocabulary": {str(number): word for number, word in enumerate(words)},
        "versions": {},
    }
    return MemoryRecord(tensors, details)


def test_two_thousand_tokens_stay_responsive(browser, large_record, tmp_path, capsys):
    path = write_page(large_record, tmp_path / "page.html")
    shown = Shown(browser, path.as_uri())
    session = shown.context.new_cdp_session(shown.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    before = seconds()
    shown.page.reload()
    shown.page.wait_for_selector("html[data-ready]", state="attached")
    found = {"bytes": path.stat().st_size, "open": seconds() - before}
    shown.page.wait_for_timeout(300)
    before = seconds()
    shown.page.evaluate(
        """async (count) => {
            for (let i = 1500; i < 1500 + count; i++) {
                const move = new PointerEvent("pointermove", { bubbles: true });
                document.getElementById(`r0-t${i}`).dispatchEvent(move);
                await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
            }
        }""",
        HOVERS,
    )
    found["hover"] = (seconds() - before) / HOVERS
    for tab in ("map", "pairs", "curves", "slots", "relations"):
        before = seconds()
        shown.page.click(f"#tab-{tab}")
        shown.page.evaluate(
            "() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))"
        )
        found[tab] = seconds() - before
    shown.context.close()
    with capsys.disabled():
        print("", *(f"{name} {number:.3g}" for name, number in found.items()), sep="\n")
    assert found["bytes"] < 10e6 and found["open"] < 2 and found["hover"] < 0.016
    assert shown.problems == []
