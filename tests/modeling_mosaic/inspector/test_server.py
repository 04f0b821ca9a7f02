"""The server of the inspector's page: answers are those of Python, and nobody else may ask."""

import http.client
import json
import math
import threading

import pytest
import torch
from torch.nn import functional as F

from modeling_mosaic import MemoryEdit, record_memories
from modeling_mosaic.inspector.server import make_server

TIME = 20


@pytest.fixture
def served(make, random_tokens):
    """A model, its record, and a function that asks the server of the record's page."""
    model = make()
    record = record_memories(model, None, random_tokens(TIME).tolist())
    server = make_server(model, record)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]

    def ask(path, question=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        body = question if isinstance(question, bytes | None) else json.dumps(question)
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    yield model, record, ask
    server.shutdown()
    server.server_close()


def ask_json(ask, path, question):
    status, answer = ask(path, question)
    assert status == 200, answer
    return json.loads(answer)


def test_page_and_status(served):
    _, record, ask = served
    status, page = ask("/")
    assert status == 200 and "connect-src 'self'" in page
    assert json.loads(ask("/api/status")[1]) == {"model": record.model_name, "tokens": TIME}


@torch.no_grad()
def test_edits_are_those_of_python(served):
    model, record, ask = served
    ids = record.tensors["token_ids"]
    last, persistent = record.num_units - 1, record.num_persistent_units - 1
    means = [record.ablated_answer(1, last, "contextual"), record.ablated_answer(1, persistent, "persistent")]
    # What units would have stored after token 8, had token 11 come.
    other = record_memories(model, None, [*ids[:9].tolist(), 11], ablate=False)
    added = MemoryEdit()
    for layer, unit in [(1, 0), *((0, unit) for unit in range(record.num_units))]:
        key, value = (other.tensors[f"contextual.{part}"][layer, unit, 8] for part in ("keys", "values"))
        added.add(layer=layer, unit=unit, key=key, value=value)
    edits = {
        "additions": added,
        "deletions": MemoryEdit().delete(layer=0, unit=1, pairs=[3, 4]).delete(pairs=[6]),
        "ablations": MemoryEdit()
        .ablate(layer=0, unit=1)
        .ablate(layer=1, unit=last, answer=means[0])
        .ablate(layer=1, unit=persistent, answer=means[1], memory="persistent"),
        "without": MemoryEdit(),
    }
    if "persistent.slot_use" in record.tensors:
        edits["removals"] = MemoryEdit().delete_slots(layer=1, unit=3, slots=[5, 2])
    else:
        status, answer = ask("/api/edit", {"removals": [{"layer": 1, "unit": 0, "slots": [2]}]})
        assert status == 400 and "feed-forward" in answer
    questions = {
        "additions": [
            {"layer": 0, "unit": None, "after": 8, "came": 11},
            {"layer": 1, "unit": 0, "after": 8, "came": 11},
        ],
        "removals": [{"layer": 1, "unit": 3, "slots": [2, 5]}],
        "deletions": [{"layer": 0, "unit": 1, "pairs": [3, 4]}, {"layer": None, "unit": None, "pairs": [6]}],
        "ablations": [
            {"memory": "contextual", "layer": 0, "unit": 1, "how": "zero"},
            {"memory": "contextual", "layer": 1, "unit": last, "how": "mean"},
            {"memory": "persistent", "layer": 1, "unit": persistent, "how": "mean"},
        ],
        "without": [0, 5],
    }
    for name, edit in edits.items():
        answer = ask_json(ask, "/api/edit", {name: questions[name]})
        kept = [place for place in range(TIME) if name != "without" or place not in (0, 5)]
        with edit.applied(model):
            logits = model(ids[None, kept]).logits[0]
        losses = F.cross_entropy(logits[:-1], ids[kept][1:], reduction="none").tolist()
        assert losses[6] != pytest.approx(record.tensors["loss"][6].item(), abs=1e-4), "the edit matters"
        assert answer["positions"] == kept and answer["loss"][-1] is None
        assert answer["loss"][:-1] == pytest.approx(losses, abs=1e-5)
        assert answer["mean_loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        assert answer["top_ids"][7] == logits[7].topk(10).indices.tolist()
        assert answer["top_texts"][7][0] == f"[{answer['top_ids'][7][0]}]"
    # Pairs keep the numbers that they have in the recorded text.
    both = ask_json(
        ask, "/api/edit", {"without": [2], "deletions": [{"layer": 0, "unit": 0, "pairs": [2, 9]}]}
    )
    with MemoryEdit().delete(layer=0, unit=0, pairs=[8]).applied(model):
        logits = model(torch.cat([ids[:2], ids[3:]])[None]).logits[0]
    assert both["top_logprobs"][15][0] == pytest.approx(logits[15].log_softmax(-1).max().item(), abs=1e-5)


def test_candidates(served):
    _, record, ask = served
    for layer in (0, 1):
        answer = ask_json(ask, "/api/candidates", {"layer": layer, "unit": 2, "token": 9, "count": 61})
        actual = record.tensors["token_ids"][10].item()
        assert answer["actual"] == actual and len(answer["candidates"]) == 61
        scores = {candidate["id"]: candidate["score"] for candidate in answer["candidates"]}
        assert scores[actual] == pytest.approx(record.measure("cosine")[layer, 2, 9].item(), abs=1e-5)
        assert sum(candidate["probability"] for candidate in answer["candidates"]) == pytest.approx(1)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        if layer == 0:
            rank = record.measure("next_token_rank")[0, 2, 9].item()
            assert list(scores).index(actual) + 1 == rank and math.isfinite(rank)
    last = ask_json(ask, "/api/candidates", {"layer": 0, "unit": 0, "token": TIME - 1, "count": 5})
    assert last["actual"] is None and len(last["candidates"]) == 5


def test_others_may_not_ask(served):
    *_, ask = served
    for headers in ({"Host": "example.com"}, {"Origin": "http://example.com"}, {"Origin": "null"}):
        for path, question in (("/", None), ("/api/edit", {})):
            status, answer = ask(path, question, **headers)
            assert status == 403 and "only pages of this server" in answer
    assert ask("/../etc/passwd")[0] == 404
    status, answer = ask("/api/edit", {}, **{"Content-Type": "text/plain"})
    assert status == 400 and "must be JSON" in answer


@pytest.mark.parametrize(
    ("path", "question", "message"),
    [
        ("edit", b"{", "JSONDecodeError"),
        ("edit", b"[]", "AttributeError"),
        (
            "edit",
            {"deletions": [{"layer": 7, "unit": 0, "pairs": [0]}]},
            "layer 7: the model has layers 0 to 1",
        ),
        ("edit", {"deletions": [{"layer": 0}]}, "'pairs'"),
        ("edit", {"ablations": [{"memory": "x", "layer": 0, "unit": 0, "how": "zero"}]}, "memory"),
        ("edit", {"ablations": [{"memory": "contextual", "layer": 0, "unit": 9, "how": "mean"}]}, "unit 9"),
        (
            "edit",
            {"additions": [{"layer": 0, "unit": 0, "after": TIME, "came": 0}]},
            "after must lie in [0, 20)",
        ),
        ("edit", {"additions": [{"layer": 0, "unit": 8, "after": 3, "came": 0}]}, "unit 8"),
        ("edit", {"additions": [{"layer": 0, "unit": 0, "after": 3}]}, "came"),
        (
            "edit",
            {"removals": [{"layer": 0, "unit": 0, "slots": [20]}]},
            "slot",
        ),
        ("edit", {"without": [TIME]}, f"token {TIME}: the text has tokens 0 to {TIME - 1}"),
        ("edit", {"without": list(range(TIME))}, "nothing is left"),
        ("candidates", {"layer": 0, "unit": 0, "token": 0, "count": 5}, "token must lie in"),
        ("candidates", {"layer": 0, "unit": 0, "token": 5}, "'count'"),
    ],
)
def test_wrong_questions_are_named(served, path, question, message):
    *_, ask = served
    status, answer = ask(f"/api/{path}", question)
    assert status == 400 and message in json.loads(answer)["error"]
    assert ask_json(ask, "/api/edit", {})["mean_loss"], "the model is as it was"
