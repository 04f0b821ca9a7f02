"""The page in a real browser: what it shows agrees with Python, and nothing leaves it."""

import csv
import io
import itertools
import os
import re
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_mosaic import MemoryEdit, scan_slots
from modeling_mosaic.inspector.anatomy import layers_of
from modeling_mosaic.inspector.record import record_memories
from modeling_mosaic.inspector.server import make_server

from .conftest import HOSTILE, STORY, Shown, as_number

TABS = ("units", "map", "pairs", "curves", "slots", "relations")
# Half a unit of the last digit that is shown, and as much for values in half precision.
DIGIT = 0.011
# A link to the pairs of a unit at a token.
CHOSEN = "v=pairs&u=0.1&t=60"


def without(record, layer, unit, token, pairs):
    """Prediction error of a unit that has forgotten some pairs, in float64 from its keys and values."""
    names = ("keys", "values", "query_scale")
    keys, values, scale = (record.tensors[f"contextual.{name}"][layer, unit].double() for name in names)
    seen = [pair for pair in seen_by(record, unit, token) if pair not in pairs]
    answer = (scale[token] * keys[seen] @ keys[token]).softmax(0) @ values[seen]
    return ((answer - values[token]).norm() / values[token].norm()).item()


def visible(token):
    """A token as the page writes it: controls show."""
    pictures = {"\n": "↵", "\r": "␍", "\t": "⇥"}
    return re.sub(r"[\0-\x1f\x7f]", lambda c: pictures.get(c[0], f"⟨{ord(c[0]):04X}⟩"), token)


def seen_by(record, unit, token):
    """The pairs that a unit sees at a token, by its config's h and m."""
    config, heads = record.config, record.config["num_attention_heads"]
    if config["model_type"] == "mosaic":
        return list(range(token))
    if unit < heads:
        return list(range(max(0, token - config["short_memory_size"]), token))
    return list(range(token - config["long_memory_delay"] + 1))


@pytest.mark.parametrize(
    ("kind", "width", "scheme"),
    [
        ("mosaic", 1280, "light"),
        ("mosaic", 1280, "dark"),
        ("mosaic", 390, "light"),
        ("mosaic", 390, "dark"),
        ("mosaic_v2", 1280, "light"),
        ("mosaic_v2", 390, "dark"),
    ],
)
def test_every_view_opens_offline_without_a_word(show, record_of, kind, width, scheme):
    record = record_of(kind)
    shown = show(
        record, viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    assert shown.page.locator("html").get_attribute("data-theme") == scheme
    for tab in TABS:
        shown.page.click(f"#tab-{tab}")
        assert shown.page.locator("#views").inner_text().strip()
        assert shown.page.evaluate("document.documentElement.scrollWidth") == width
    assert [url for url in shown.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in shown.requests if url.startswith("file:")]) == 1
    assert shown.problems == []


def test_policy_refuses_the_network(show, record):
    shown = show(record, offline=False)
    refused = "fetch('https://example.org').then(() => 'sent', () => 'refused')"
    assert shown.page.evaluate(refused) == "refused"
    assert shown.page.evaluate("fetch(location.href).then(() => 'read', () => 'refused')") == "refused"


@pytest.mark.parametrize(
    ("kind", "unit", "token"), [("mosaic", "0.1", 60), ("mosaic", "1.2", 33), ("mosaic_v2", "1.4", 60)]
)
def test_hover_lights_the_pairs_that_python_names(show, record_of, kind, unit, token):
    record = record_of(kind)
    shown = show(record, f"u={unit}&t=5")
    shown.page.hover(f"#r0-t{token}")
    shown.page.locator(".said", has_text=f"{token} «").first.wait_for()
    lit = shown.page.locator(".lit").evaluate_all(
        "spans => spans.map(span => [span.dataset.i, span.dataset.pair].map(Number))"
    )
    layer, head = map(int, unit.split("."))
    best = [share.pair for share in record.explain(layer, head, token, most=6).pairs if share.weight >= 0.01]
    assert sorted(lit) == sorted([pair + 1, pair] for pair in best)


def error_when_run_again(model, record, token, unit, pairs):
    """Prediction error of a unit of the first layer in a run of the model that has forgotten some pairs."""
    heard = []
    part, local = layers_of(model)[0].find("contextual", unit)
    handle = part.o_proj.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    with MemoryEdit().delete(layer=0, unit=unit, pairs=pairs).applied(model), torch.no_grad():
        model(record.tensors["token_ids"][None])
    handle.remove()
    answer, target = (
        heard[0].unflatten(-1, (3, 16))[token, local],
        record.tensors["contextual.values"][0, unit, token],
    )
    return ((answer - target).norm() / target.norm()).item()


@pytest.mark.parametrize(("kind", "unit"), [("mosaic", 1), ("mosaic_v2", 1), ("mosaic_v2", 5)])
def test_pairs_and_deletions_agree_with_python(show, record_of, kind, unit, model, model_v2):
    record, token = record_of(kind), 60
    shown = show(record, f"v=pairs&u=0.{unit}&t={token}")
    shown.page.click("text=/Show \\d+ more/")
    explained = record.explain(0, unit, token, most=token)
    assert shown.fact("error") == pytest.approx(explained.error, abs=DIGIT)
    table = shown.pairs()
    assert sorted(table) == seen_by(record, unit, token)
    for share in explained.pairs:
        row = table[share.pair]
        assert row["weight"] == pytest.approx(share.weight, abs=DIGIT / 2)
        assert row["share"] == pytest.approx(share.share_of_answer, abs=DIGIT)
        assert row["logit"] == pytest.approx(share.share_of_logit, abs=DIGIT)
        assert row["without"] == pytest.approx(without(record, 0, unit, token, [share.pair]), abs=DIGIT / 4)
    gone = [share.pair for share in explained.pairs[:3]]
    for count, pair in enumerate(gone, start=1):
        shown.page.locator(f"tr[data-pair='{pair}'] input").uncheck()
        shown.page.locator(f"text=Restore {count} forgotten").wait_for()
        run_again = error_when_run_again(
            {"mosaic": model, "mosaic_v2": model_v2}[kind], record, token, unit, gone[:count]
        )
        assert shown.fact("error") == pytest.approx(run_again, abs=DIGIT)
        assert run_again == pytest.approx(without(record, 0, unit, token, gone[:count]), abs=1e-5)
    shown.page.click("text=Restore 3 forgotten")
    shown.page.locator("text=Restore 3 forgotten").wait_for(state="detached")
    assert shown.fact("error") == pytest.approx(explained.error, abs=DIGIT)


@pytest.mark.parametrize(("kind", "unit"), [("mosaic", 1), ("mosaic_v2", 2), ("mosaic_v2", 4)])
def test_trivial_predictors_and_expected_tokens_agree_with_python(show, record_of, kind, unit):
    record, token = record_of(kind), 60
    shown, seen = show(record, f"v=pairs&u=0.{unit}&t={token}"), seen_by(record, unit, token)
    values = record.tensors["contextual.values"][0, unit].double()
    ids, raw = record.tensors["readout.token_ids"], record.tensors["readout.raw_values"][unit].double()
    mix = record.tensors["contextual.mix"][0, unit].double()
    known = mix * raw[torch.searchsorted(ids, record.tensors["token_ids"][token])]
    guesses = {
        "mean of the values": values[seen].mean(0),
        "newest value": values[seen[-1]],
        "known part": known * values[0].norm() / known.norm(),
    }
    for name, guess in guesses.items():
        shown_error = as_number(shown.page.locator(".references li", has_text=name).locator("b").inner_text())
        assert shown_error == pytest.approx(
            ((guess - values[token]).norm() / values[token].norm()).item(), abs=DIGIT
        )
    answer = record.answers(0, unit)[token].double()
    would = known + (1 - mix) * raw
    best = (would @ answer / (would.norm(dim=-1) * answer.norm())).topk(8)
    rows = shown.page.locator(".readings > div").first.locator("li")
    named = [f"«{visible(record.token_text(ids[place]))}»" for place in best.indices]
    assert rows.locator(".what").all_inner_texts() == named
    cosines = [as_number(text) for text in rows.locator(".amount").all_inner_texts()]
    assert cosines == pytest.approx(best.values.tolist(), abs=DIGIT)


def test_units_without_keys_show_effects_and_no_switches(show, record):
    shown = show(record, "v=pairs&u=1.0&t=40", units=[(0, 1)])
    rows = shown.pairs()
    assert len(rows) == 8 and shown.page.locator(".pairTable input:enabled").count() == 0
    for pair, row in rows.items():
        assert row["weight"] == pytest.approx(record.weights(1, 0, 40)[0, pair].item(), abs=DIGIT / 2)
        assert row["without"] == pytest.approx(without(record, 1, 0, 40, [pair]), abs=DIGIT)


def test_kinds_of_units_are_told_apart(show, record_v2):
    """Short and long units in one table; an empty long memory says so; no slots, but what they are worth."""
    shown = show(record_v2, "u=0.4&t=5")
    page = shown.page
    kinds = {unit: kind.name for unit, kind in enumerate(record_v2.kinds)}
    rows = page.locator(".units tbody tr:first-child").evaluate_all(
        "rows => rows.map(row => [row.cells[0].innerText, row.cells[1].innerText])"
    )
    assert len(rows) == 12 and all(kinds[int(unit.split(".")[1])] == kind for unit, kind in rows)
    page.fill(".filter input", "long")
    page.locator("text=6 of 12 units").wait_for()
    page.click("#tab-pairs")
    page.locator("text=pairs from 9 tokens ago on").wait_for()
    page.click("#tab-slots")
    worth = record_v2.unit_measure("persistent_ablation_cost")[0, 0].item()
    shown_worth = as_number(page.locator(".slots dd").first.inner_text().split()[0])
    assert shown_worth == pytest.approx(worth, abs=DIGIT)
    for tab in TABS:
        page.click(f"#tab-{tab}")
        # One file each: Chromium drops what comes behind ten in quick succession.
        ElementTree.fromstring(download(shown, "SVG"))
    assert shown.problems == []


def test_a_link_restores_the_view_in_a_fresh_page(show, record):
    shown = show(record, "u=1.1&t=20")
    page = shown.page
    page.locator(".tools select").select_option("certainty")
    page.fill(".search input", "ball")
    page.click("#r0-t44")
    page.click("#tab-pairs")
    page.locator(".pairTable input").first.uncheck()
    page.locator("text=Restore 1 forgotten").wait_for()
    for tab in TABS:
        page.click(f"#tab-{tab}")
        address = page.url
        assert "t=44" in address and "m=certainty" in address
        fresh = show(record, address.partition("#")[2]).page
        for place in ("#views", ".said", ".next", ".legend", ".search", ".about"):
            assert page.locator(place).first.inner_text() == fresh.locator(place).first.inner_text(), tab


def download(shown, label, part=".top"):
    with shown.page.expect_download() as caught:
        shown.page.click(f"{part} button:text-is('{label}')")
    return Path(caught.value.path()).read_bytes()


def test_exports_hold_what_is_shown(show, record):
    shown = show(record, f"{CHOSEN}&m=error")
    words, tables = {}, {}
    for tab in TABS:
        shown.page.click(f"#tab-{tab}")
        assert shown.page.locator("#views").inner_text().strip()
        words[tab] = " ".join(ElementTree.fromstring(download(shown, "SVG")).itertext())
        tables[tab] = list(csv.reader(io.StringIO(download(shown, "CSV").decode("utf-8-sig"))))
        image = Image.open(io.BytesIO(download(shown, "PNG"))).convert("RGB")
        assert len({len(row) for row in tables[tab]}) == 1 and len(tables[tab]) > 1
        assert image.width > 400 and len(image.getcolors(1 << 24)) > 10
    written = csv.reader(io.StringIO(download(shown, "CSV", ".textPanel").decode("utf-8-sig")))
    assert [row[1] for row in written][1:] == record.tokens
    drawn = ElementTree.fromstring(download(shown, "SVG", ".textPanel"))
    assert "".join(drawn.itertext()) == "".join(record.tokens)
    head, *rows = tables["units"]
    for row in rows:
        layer, unit = map(int, row[0].split("."))
        error = record.unit_measure("error")[layer, unit].item()
        assert float(row[head.index("prediction error")]) == pytest.approx(error, rel=1e-3)
        assert row[0] in words["units"]
    seen = torch.tensor([[float(x or "nan") for x in row[2:]] for row in tables["map"][1:]])
    assert torch.allclose(seen, record.measure("error").flatten(0, 1).mT, rtol=2e-3, equal_nan=True)
    best = record.explain(0, 1, 60).pairs[0]
    assert [int(tables["pairs"][1][0]), tables["pairs"][1][2]] == [best.pair, best.came]
    assert float(tables["pairs"][1][3]) == pytest.approx(best.weight, abs=2e-3)
    assert best.came.strip() in words["pairs"]


def test_keyboard_alone(show, record):
    shown = show(record, "u=0.0&t=10")
    page = shown.page

    def focus(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"no way to {selector}")

    focus(".prose")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.locator("#r0-t11[aria-selected=true]").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    page.locator(".about", has_text="Unit 0.1").wait_for()
    focus("[role=tab]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.locator("#tab-pairs[aria-selected=true]").wait_for()
    focus(".pairTable input")
    page.keyboard.press("Space")
    page.locator("text=Restore 1 forgotten").wait_for()
    assert page.evaluate("document.activeElement.matches('.pairTable input')"), "the switch keeps the focus"
    page.keyboard.press("Space")
    page.keyboard.press("/")
    page.keyboard.type("ball")
    page.keyboard.press("Enter")
    page.locator(".token[aria-selected=true].found").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    assert shown.problems == []


def test_hostile_text_is_text(show, model, tokenizer):
    record = record_memories(model, tokenizer, HOSTILE)
    record.model_name = record._details["model_name"] = "</title><script>alert(3)</script>{{packs}}"
    shown = show(record)
    assert shown.page.locator("#app img, #app script").count() == 0
    text = shown.page.locator(".prose").inner_text().replace("�", "")
    assert (
        "</script><script>alert(1)</script>" in text
        and "שלום" in text
        and "\u202e" not in text
        and "⟨202E⟩" in text
    )
    for tab in TABS:
        shown.page.click(f"#tab-{tab}")
    download(shown, "SVG")
    assert shown.problems == []


@pytest.mark.parametrize("count", [1, 2])
def test_shortest_texts(show, model, model_v2, tokenizer, count):
    """The second one has long-term memories that hold nothing yet."""
    ids = tokenizer(STORY)["input_ids"][:count]
    shown = show(record_memories(model, tokenizer, ids), compare=record_memories(model_v2, tokenizer, ids))
    for tab in TABS:
        shown.page.click(f"#tab-{tab}")
        assert shown.page.locator("#views").inner_text().strip()
    assert shown.problems == []


def test_a_record_file_opens(show, record, model, tokenizer, tmp_path):
    shown = show(record_memories(model, tokenizer, "a cat"))
    record.save(tmp_path / "story.safetensors")
    shown.page.set_input_files("input[type=file]", tmp_path / "story.safetensors")
    shown.page.locator(f"text={len(record.tokens)} tokens").wait_for()
    shown.page.goto(f"{shown.page.url.partition('#')[0]}#{CHOSEN}")
    shown.page.locator("h2", has_text="Unit 0.1 at 60").wait_for()
    assert shown.fact("error") == pytest.approx(record.measure("error")[0, 1, 60].item(), abs=DIGIT)
    (tmp_path / "other.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}              ")
    shown.page.set_input_files("input[type=file]", tmp_path / "other.safetensors")
    shown.page.locator(".notice", has_text="cannot be shown").wait_for()
    assert shown.problems == []


def test_two_records_share_their_scales(show, record, model, tokenizer):
    other = record_memories(model, tokenizer, STORY[::-1])
    shown = show(record, "v=map&m=error", compare=other)
    legends = shown.page.locator(".textPanel .ends").all_inner_texts()
    assert len(legends) == 2 and legends[0] == legends[1]
    assert shown.page.locator(".map canvas").count() == 4
    shown.page.click("#r1-t7")
    assert "t2=7" in shown.page.url
    assert shown.problems == []


def test_in_a_notebook(browser, record, tmp_path):
    (tmp_path / "cell.html").write_text(
        f"<!doctype html><title>cell</title>{record._repr_html_()}", encoding="utf-8"
    )
    page = browser.new_page()
    page.goto((tmp_path / "cell.html").as_uri())
    page.frame_locator("iframe").locator("#tab-map").click()
    page.frame_locator("iframe").locator(".map canvas").first.wait_for()
    page.close()


@pytest.fixture
def serve(browser, record, model):
    """Opens the served page of the record at a link."""
    server = make_server(model, record)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shown = []

    def serve(link, **options):
        address = f"http://127.0.0.1:{server.server_address[1]}/#{link}"
        shown.append(Shown(browser, address, offline=False, **options))
        return shown[-1]

    yield serve
    for one in shown:
        one.context.close()
    server.shutdown()
    server.server_close()


def test_accessibility(show, serve, record):
    """axe-core finds nothing, in either scheme: AXE_CORE=node_modules/axe-core/axe.min.js."""
    if not (path := os.environ.get("AXE_CORE")):
        pytest.skip("needs axe-core (npm): its axe.min.js in AXE_CORE")
    link = f"{CHOSEN}&w=1&a=12:{record.tensors['token_ids'][3]}"
    for scheme, opened in itertools.product(("light", "dark"), ("file", "server")):
        options = {"color_scheme": scheme, "bypass_csp": True}
        shown = show(record, link, **options) if opened == "file" else serve(link, **options)
        shown.page.add_script_tag(path=path)
        for tab in TABS:
            shown.page.click(f"#tab-{tab}")
            found = shown.page.evaluate("axe.run().then(result => result.violations)")
            assert [(one["id"], [node["failureSummary"] for node in one["nodes"]]) for one in found] == [], (
                scheme,
                opened,
                tab,
            )


def mean_loss(model, record, edit):
    ids = record.tensors["token_ids"][None]
    with edit.applied(model), torch.no_grad():
        return model(ids, labels=ids).loss.item()


def test_runs_the_model_again_where_it_is_served(serve, record, model):
    shown = serve(CHOSEN)
    pair = record.explain(0, 1, 60).pairs[0].pair
    shown.page.locator(f"tr[data-pair='{pair}'] input").uncheck()
    shown.page.click("text=Forgotten in all memories")
    said = shown.page.locator(".answer p", has_text="mean loss").inner_text()
    assert f"mean loss {mean_loss(model, record, MemoryEdit().delete(pairs=[pair])):.3f}" in said
    shown.page.click("text=Likely next tokens, by this unit")
    shown.page.locator(".answer li", has_text="came").wait_for()
    assert shown.problems == []


def test_pairs_are_added_by_keyboard(serve, record, model, tokenizer):
    """What a unit would have stored after a token, had another one come: as Python computes it."""
    shown, after = serve(CHOSEN), 12
    page, ids = shown.page, record.tensors["token_ids"].tolist()
    came = ids[3]
    page.locator(".added input[list]").focus()
    # Letters and digits write, and do not change the view.
    page.keyboard.type("1]nothing")
    page.keyboard.press("Enter")
    page.locator(".added .problem", has_text="«1]nothing» is no token").wait_for()
    page.locator(".added input[list]").fill("")
    page.keyboard.type(record.tokens[3])
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type(str(after))
    page.locator(".added form q", has_text=record.tokens[after].strip()).wait_for()
    page.keyboard.press("Enter")
    page.locator(".added li", has_text=f"came «{record.tokens[3]}»").wait_for()
    assert f"a={after}%3A{came}" in page.url and page.locator("#tab-pairs[aria-selected=true]").count()
    other = record_memories(model, tokenizer, [*ids[: after + 1], came], ablate=False)

    def pair(layer, unit):
        return {part: other.tensors[f"contextual.{part}s"][layer, unit, after] for part in ("key", "value")}

    everywhere = MemoryEdit().delete(pairs=[7])
    for layer, unit in ((layer, unit) for layer in range(2) for unit in range(3)):
        everywhere.add(layer=layer, unit=unit, **pair(layer, unit))
    one = MemoryEdit().add(layer=0, unit=1, **pair(0, 1))
    # Before the server runs the model, whose edits exclude each other.
    losses = [mean_loss(model, record, edit) for edit in (one, everywhere)]
    with one.applied(model), torch.no_grad():
        best = model(torch.tensor([ids])).logits[0, 60].argmax().item()
    page.get_by_role("button", name="Remembered by this unit").focus()
    page.keyboard.press("Enter")
    page.locator(".answer p", has_text=f"mean loss {losses[0]:.3f}").wait_for()
    likely = page.locator("[data-fact=likely]").inner_text()
    assert likely.startswith(f"Likeliest after token 60: «{record.token_text(best)}»".replace("\n", "↵"))
    page.goto(page.url.replace("a=", "x=7&a="))
    page.locator("text=Restore 1 forgotten").wait_for()
    page.click("text=Remembered by all memories")
    page.locator(".answer p", has_text=f"mean loss {losses[1]:.3f}").wait_for()
    page.click("text=Remove")
    page.locator(".added li").wait_for(state="detached")
    assert page.get_by_role("button", name="Remembered by this unit").is_disabled()
    assert shown.problems == []


def test_slots_show_what_they_are_worth(serve, record, model):
    shown = serve("v=slots&p=1.2")
    parts = {
        name: record.tensors[f"persistent.slot_{name}"][1, 2] for name in ("most_used", "shift", "worth")
    }
    cards = shown.page.locator(".slotList li")
    for place, slot in enumerate(parts["most_used"][:4].tolist()):
        card = cards.nth(place)
        assert card.get_attribute("data-slot") == str(slot)
        facts = {
            name: as_number(card.locator(f"[data-fact={name}]").inner_text())
            for name in parts
            if name != "most_used"
        }
        assert facts["shift"] == pytest.approx(parts["shift"][slot].item(), abs=DIGIT / 2)
        assert facts["worth"] == pytest.approx(parts["worth"][place].item(), abs=6e-5)
    slot = parts["most_used"][7].item()
    edited = mean_loss(model, record, MemoryEdit().delete_slots(layer=1, unit=2, slots=[slot]))
    shown.page.get_by_role("button", name=f"Run without slot {slot}").focus()
    shown.page.keyboard.press("Enter")
    fact = shown.page.locator(f"[data-slot='{slot}'] [data-fact=worth]")
    fact.wait_for()
    expected = edited - record.tensors["loss"].nanmean().item()
    assert as_number(fact.inner_text()) == pytest.approx(expected, abs=6e-5)
    assert shown.problems == []


def test_slots_over_many_texts(show, record, model, tokenizer):
    found = scan_slots(model, tokenizer, ["The cat smiled.", "A dog, a dog and the sun", HOSTILE])
    shown = show(record, "v=slots&p=0.1", slots=found)
    cards = shown.page.locator(".slotList li")
    for card, one in zip(cards.all(), found.slots(0, 1), strict=False):
        assert card.get_attribute("data-slot") == str(one.slot)
        assert as_number(card.locator("header > span").last.inner_text()) == pytest.approx(
            one.use, abs=DIGIT / 2
        )
        assert card.locator("p").last.locator(".chip").count() == len(one.contexts) == 4
    assert cards.count() == 16 and shown.page.locator("text=3 texts").count()
    assert shown.page.locator("#app img, #app script").count() == 0
    first = shown.page.locator("#views").inner_text()
    shown.page.get_by_label("Counted over").focus()
    shown.page.keyboard.press("ArrowDown")
    slot = record.tensors["persistent.slot_most_used"][0, 1, 0].item()
    shown.page.locator(f".slotList li:first-child[data-slot='{slot}'] .call").first.wait_for()
    assert "c=text" in shown.page.url
    assert shown.page.evaluate("document.activeElement.matches('select')"), "the menu keeps the focus"
    shown.page.get_by_label("Counted over").select_option("")
    shown.page.locator(".slotList li .chip", has_text="→").first.wait_for()
    assert shown.page.locator("#views").inner_text() == first
    assert shown.problems == []
    stranger = record_memories(model, tokenizer, "a cat", ablate=False)
    stranger.model_fingerprint = "another"
    with pytest.raises(ValueError, match="counted with another model"):
        stranger.write_page("never.html", slots=found)


def test_the_known_part_beside_the_error_in_deeper_layers(show, record):
    shown = show(record, "v=pairs&u=1.1&t=40")
    seen = shown.page.locator(".references li", has_text="known part").locator("b").inner_text()
    expected = record.measure("known_error")[1, 1, 40].item()
    assert as_number(seen) == pytest.approx(expected, abs=DIGIT)
    shown.page.click("#tab-curves")
    table = list(csv.DictReader(io.StringIO(download(shown, "CSV").decode("utf-8-sig"))))
    curve = [row for row in table if row["predictor"] == "known part"]
    measure = record.measure("known_error")[1, 1, 9:13].mean().item()
    [found] = [row for row in curve if float(row["pairs so far"]) == pytest.approx((9 * 12) ** 0.5)]
    assert float(found["mean error"]) == pytest.approx(measure, abs=1e-3)
