"""Records against the equations as they stand, slow computations, and runs of the edited model."""

import pytest
import torch
from torch.nn import functional as F

from modeling_mosaic import MEASURES, MemoryEdit, record_memories
from modeling_mosaic.inspector import expectation, slots, trace
from modeling_mosaic.inspector.anatomy import layers_of
from modeling_mosaic.inspector.catalogue import LEADING
from modeling_mosaic.inspector.measures import anomaly_correlation

from .conftest import TIME
from .slow_models import slow

VARIANTS = {
    "plain": ("mosaic", {}),
    "banks": ("mosaic", {"num_persistent_heads": 2, "num_persistent_banks": 2, "num_hidden_layers": 1}),
    "biases": (
        "mosaic",
        {"use_bias": True, "tie_word_embeddings": False, "hidden_size": 24, "num_attention_heads": 2},
    ),
    "v2": ("mosaic_v2", {}),
    "v2 of another shape": (
        "mosaic_v2",
        {"hidden_size": 24, "num_attention_heads": 2, "tie_word_embeddings": True, "logit_scale": 0.7}
        | {"short_memory_size": 50, "long_memory_delay": 12, "long_memory_delay_range": (2, 12)},
    ),
    "v2 without long-term memory": ("mosaic_v2", {"use_long_memory": False}),
}


@pytest.fixture(params=VARIANTS)
def variant(request, makers):
    """Builds models of either kind, with several shapes."""
    kind, fields = VARIANTS[request.param]
    return lambda **more: makers[kind](**fields, **more)


@pytest.mark.parametrize(
    "implementation",
    ["sdpa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("eager", "flex_attention"))],
)
def test_record_holds_what_the_equations_say(variant, text, implementation):
    model = variant(implementation=implementation)
    record = record_memories(model, None, text, ablate=False)
    plain = slow(model).run(text)
    assert max(record.self_check.values()) < 1e-5
    expected_loss = F.cross_entropy(plain.logits_TV[:-1], torch.tensor(text[1:]), reduction="none")
    torch.testing.assert_close(record.tensors["loss"][:-1].double(), expected_loss, rtol=1e-5, atol=1e-5)
    assert record.tensors["loss"][-1].isnan()
    probs_TV = plain.logits_TV.softmax(-1)
    entropy_T = -(probs_TV * probs_TV.log()).sum(-1)
    torch.testing.assert_close(record.tensors["entropy"].double(), entropy_T, rtol=1e-5, atol=1e-5)
    close = dict(rtol=1e-4, atol=5e-5)
    for layer in range(record.num_layers):
        units = plain.units(layer)
        assert record.num_units == len(units)
        for number, unit in enumerate(units):
            stored = record.stored(layer, number)
            torch.testing.assert_close(stored.keys_HTD[0].double(), unit.key_TD, **close)
            torch.testing.assert_close(stored.queries_HTD[0].double(), unit.query_TD, rtol=1e-4, atol=5e-4)
            torch.testing.assert_close(stored.values_HtD[0].double(), unit.value_TD[:-1], **close)
            torch.testing.assert_close(record.answers(layer, number).double(), unit.answer_TD, **close)
            scores = (unit.query_TD @ unit.key_TD.T).masked_fill(~unit.sees_TT, -torch.inf)
            weights = scores.softmax(-1).nan_to_num(0)
            torch.testing.assert_close(record.weights(layer, number).double(), weights, **close)
            largest = unit.query_TD[-1].norm() * unit.key_TD[-1].norm()
            key_scale = record.measure("key_scale")[layer, number].item()
            assert key_scale == pytest.approx(largest.sqrt().item(), rel=1e-4)


def test_weights_are_those_of_eager_attention(make, text):
    model = make(implementation="eager")
    record = record_memories(model, None, text, ablate=False)
    assert max(record.self_check.values()) < 1e-5
    with torch.no_grad():
        attentions = model(torch.tensor([text]), output_attentions=True).attentions
    for layer in range(2):
        for unit in range(record.num_units):
            weights = record.weights(layer, unit)
            torch.testing.assert_close(weights, attentions[layer][0, unit], rtol=1e-4, atol=1e-5)
            assert weights[7:9].equal(record.weights(layer, unit, slice(7, 9)))
            assert weights[[3, 5]].equal(record.weights(layer, unit, [3, 5]))
            # By what the record keeps of each query, any single weight is one exponential.
            keys, scale, normaliser = (
                record.tensors[f"contextual.{name}"][layer, unit]
                for name in ("keys", "query_scale", "log_normaliser")
            )
            pair = int(weights[20].argmax())
            assert weights[20, pair].item() == pytest.approx(
                (scale[20] * keys[20] @ keys[pair] - normaliser[20]).exp().item(), rel=1e-4
            )
            index = record.tensors["contextual.pair_index"][layer, unit]
            strongest = record.tensors["contextual.pair_weight"][layer, unit].float()
            for t in range(TIME):
                expected = weights[t].sort(descending=True).values[:16]
                torch.testing.assert_close(strongest[t], expected, rtol=1e-3, atol=1e-6)
                there = index[t] >= 0
                assert there.sum() == (weights[t] > 0).sum().clamp(max=16)
                found = weights[t, index[t, there].long()]
                torch.testing.assert_close(found, strongest[t, there], rtol=1e-3, atol=1e-6)
            rest = 1 - strongest.sum(-1)
            rest[weights.sum(-1) == 0] = 0
            torch.testing.assert_close(
                record.tensors["contextual.rest_weight"][layer, unit], rest, rtol=0, atol=2e-3
            )


def test_measures_of_targets_are_in_the_right_places(make, text):
    """Index t is query t: its target is the value it will be stored with, its weights see pairs before it."""
    model = make()
    record = record_memories(model, None, text, ablate=False)
    for number, unit in enumerate(slow(model).run(text).units(1)):
        errors, references = [], {"mean": [], "newest": []}
        for t in range(TIME):
            names = ("error", "cosine", "age", "known_error")
            measured = [record.measure(name)[1, number, t] for name in names]
            seen = unit.sees_TT[t].nonzero()[:, 0].tolist()
            v, y, w = unit.value_TD[t], unit.answer_TD[t], record.weights(1, number, t)[0]
            if not seen or t == TIME - 1:
                assert all(measured[place].isnan() for place in (0, 1, 3))
            else:
                errors.append(float((y - v).square().sum()))
                assert measured[0].item() == pytest.approx(((y - v).norm() / v.norm()).item(), rel=1e-4)
                direction = (y @ v / y.norm() / v.norm()).item()
                assert measured[1].item() == pytest.approx(direction, abs=1e-4)
                known = unit.known_TD[t] * v.norm() / unit.known_TD[t].norm()
                assert measured[3].item() == pytest.approx(((known - v).norm() / v.norm()).item(), abs=1e-4)
                references["mean"].append(float((unit.value_TD[seen].mean(0) - v).square().sum()))
                references["newest"].append(float((unit.value_TD[max(seen)] - v).square().sum()))
            if seen:
                expected = sum(float(w[i]) * (t - i) for i in seen)
                assert measured[2].item() == pytest.approx(expected, rel=1e-4)
            else:
                assert measured[2].isnan()
        for name, missed in references.items():
            skill = record.measure(f"skill_over_{name}")[1, number].item()
            assert skill == pytest.approx(1 - sum(errors) / sum(missed), abs=1e-4)


def test_relations_are_those_of_the_queries_that_both_see_pairs(make, text):
    model = make(num_hidden_layers=1)
    record = record_memories(model, None, text, ablate=False)
    units = slow(model).run(text).units(0)
    seen = [[t for t in range(TIME - 1) if unit.sees_TT[t].any()] for unit in units]
    error, cka, retrieval = (
        record.measure(name)[0] for name in ("error_correlation", "residual_cka", "cross_retrieval")
    )

    def missed(unit, both):
        return (unit.value_TD - unit.answer_TD)[both]

    for a, first in enumerate(units):
        for b, second in enumerate(units):
            both = [t for t in seen[a] if t in seen[b]]
            errors = [missed(u, both).norm(dim=-1) / u.value_TD[both].norm(dim=-1) for u in (first, second)]
            expected = torch.corrcoef(torch.stack(errors))[0, 1]
            assert error[a, b].item() == pytest.approx(expected.item(), abs=1e-4)
            x, y = (z - z.mean(0) for z in (missed(first, both), missed(second, both)))
            grams = x @ x.T, y @ y.T
            expected = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
            assert cka[a, b].item() == pytest.approx(expected.item(), abs=1e-4)
            weights = record.weights(0, a)[seen[a]].double()
            expected = anomaly_correlation(weights @ second.value_TD, second.value_TD[seen[a]])
            assert retrieval[a, b].item() == pytest.approx(expected.item(), abs=1e-4)
        # All units of its kind as one memory, and uniform weights.
        kind = [number for number, other in enumerate(units) if record.kinds[number] == record.kinds[a]]
        scores = sum(units[number].query_TD @ units[number].key_TD.T for number in kind)
        for row, joint in enumerate((scores, torch.zeros_like(scores))):
            weights = joint.masked_fill(~first.sees_TT, -torch.inf).softmax(-1)[seen[a]]
            expected = anomaly_correlation(weights @ first.value_TD, first.value_TD[seen[a]])
            assert retrieval[len(units) + row, a].item() == pytest.approx(expected.item(), abs=1e-4)


def test_direct_logits(variant, text):
    """What a unit adds to a logit is what the logit loses without it, with the last norm's sigma frozen."""
    model = variant()
    record = record_memories(model, None, text, ablate=False)
    plain = slow(model).run(text)
    for layer in range(record.num_layers):
        for parts, prefix in zip(plain.parts(layer), ("", "persistent_"), strict=True):
            direct = record.measure(f"{prefix}direct_logit")[layer]
            assert len(direct) == len(parts)
            for unit, (answers, columns) in enumerate(parts):
                logits = plain.added_logits(answers @ columns.T)
                expected = logits[range(TIME - 1), text[1:]] - logits[:-1].mean(-1)
                torch.testing.assert_close(direct[unit, :-1].double(), expected, rtol=1e-4, atol=1e-5)
    # Read from the record alone: what a value adds to any token's logit.
    pair = record.explain(0, 1, 30).pairs[0]
    value = record.tensors["contextual.values"][0, 1, pair.pair]
    row = record.tensors["readout.rows"][record.tensors["readout.token_ids"].tolist().index(text[31])]
    added = record.tensors["contextual.output"][0, 1] @ value
    assert pair.share_of_logit == pytest.approx(
        (pair.weight * added @ row * record.tensors["final_scale"][30]).item(), rel=1e-4
    )
    total = sum(share.share_of_logit for share in record.explain(0, 1, 30, most=TIME).pairs)
    assert total == pytest.approx(record.measure("direct_logit")[0, 1, 30].item(), abs=1e-6)


def test_expectations_are_those_of_texts_that_go_on_otherwise(make, text):
    """AUC and rank from targets that the model computes for each other next token."""
    model = make()
    record = record_memories(model, None, text, ablate=False)
    plain = slow(model)
    auc, rank = record.measure("next_token_auc"), record.measure("next_token_rank")
    for unit, kind in enumerate(record.kinds):
        assert auc[0, unit].isfinite().nonzero()[:, 0].tolist() == list(range(kind.youngest, TIME - 1))
    tried = auc[1, -1].isfinite().nonzero()[:, 0].tolist()
    assert len(tried) > 20 and tried[0] >= record.kinds[-1].youngest and not rank[1].isfinite().any()
    t = tried[len(tried) // 2]
    targets = []
    for candidate in range(61):
        plain.run([*text[: t + 1], candidate, *text[t + 2 :]])
        targets.append([[unit.value_TD[t] for unit in plain.units(layer)] for layer in range(2)])
    counts = [text.count(candidate) for candidate in range(61)]
    for layer in range(2):
        for unit in range(record.num_units):
            answer = record.answers(layer, unit)[t].double()
            scores = [F.cosine_similarity(answer, v[layer][unit], dim=0).item() for v in targets]
            mine = scores[text[t + 1]]
            others = [b for b in range(61) if b != text[t + 1]]
            below = sum(counts[b] for b in others if scores[b] < mine) / sum(counts[b] for b in others)
            if layer == 0:
                assert rank[0, unit, t].item() == 1 + sum(scores[b] > mine for b in others)
                assert auc[0, unit, t].item() == pytest.approx(below)
            else:
                # Of 31 that were drawn: five standard errors around what all of them give.
                assert abs(auc[1, unit, t].item() - below) < 5 * (0.25 / 31) ** 0.5


def test_ablation_and_deletion_are_those_of_edits(make, text):
    model = make()
    record = record_memories(model, None, text)
    plain = slow(model).run(text)
    tokens = torch.tensor([text])

    def losses(edit):
        with edit.applied(model), torch.no_grad():
            return F.cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none")

    for memory, prefix in (("contextual", ""), ("persistent", "persistent_")):
        cost = record.measure(f"{prefix}ablation_cost")
        for layer in range(2):
            parts = plain.parts(layer)[memory == "persistent"]
            for unit, (answers, _) in enumerate(parts):
                answer = record.ablated_answer(layer, unit, memory)
                # The mean of what it answers, where it answers.
                youngest = record.kinds[unit].youngest if memory == "contextual" else 0
                mean = answers[youngest:].mean(0).expand(TIME - youngest, -1)
                torch.testing.assert_close(answer[youngest:].double(), mean, rtol=1e-4, atol=1e-5)
                assert not answer[:youngest].any()
                edit = MemoryEdit().ablate(layer=layer, unit=unit, answer=answer, memory=memory)
                expected = losses(edit) - losses(MemoryEdit())
                torch.testing.assert_close(cost[layer, unit, :-1], expected, rtol=1e-3, atol=1e-5)


def test_forgetting_a_pair_is_a_run_without_it(make, text):
    """In closed form, by a sum over the other pairs, and by the answer of a model that hides the slot."""
    model = make()
    record = record_memories(model, None, text, ablate=False)
    units = slow(model).run(text).units(1)
    tokens = torch.tensor([text])
    for number, token in ((1, 30), (2, 9), (record.num_units - 1, 30)):
        part, local = layers_of(model)[1].find("contextual", number)
        unit, target = units[number], units[number].value_TD[token]
        for pair in record.explain(1, number, token).pairs[:3]:
            heard = []
            handle = part.o_proj.register_forward_pre_hook(
                lambda module, args, heard=heard: heard.append(args[0].unflatten(-1, (4, 8)))
            )
            with MemoryEdit().delete(layer=1, unit=number, pairs=[pair.pair]).applied(model), torch.no_grad():
                model(tokens)
            handle.remove()
            expected = unit.answer_without(token, pair.pair)
            torch.testing.assert_close(heard[0][token, local].double(), expected, rtol=1e-3, atol=1e-5)
            error = ((expected - target).norm() / target.norm()).item()
            assert pair.error_if_forgotten == pytest.approx(error, rel=1e-3)
            change = abs(error - record.measure("error")[1, number, token].item())
            assert change > 1e-4 or pair.weight < 0.01


def test_persistent_slots(make_model, text):
    model = make_model(num_persistent_banks=2)
    record = record_memories(model, None, text)
    plain = slow(model).run(text)
    name = "model.layers.1.persistent_memory"
    query = plain.key_scale(f"{name}.key_extractor") * plain.kept[f"{name}.key_extractor.keys"]
    keys, values = (plain.parameters[f"{name}.memory_{part}"] for part in ("keys", "values"))
    weights = torch.cat([(query @ keys[bank].mT).softmax(-1) / 2 for bank in range(2)], -1)
    use = record.tensors["persistent.slot_use"][1]
    torch.testing.assert_close(use.double(), weights.mean(1), rtol=1e-4, atol=1e-6)
    dead = (weights.mean(1) < 0.1 / 40).double().mean(1)
    torch.testing.assert_close(record.measure("persistent_dead_slots")[1].double(), dead)
    effective = (-(weights * weights.log()).sum(-1)).exp()
    torch.testing.assert_close(
        record.measure("persistent_effective_slots")[1].double(), effective, rtol=1e-4, atol=1e-4
    )
    shares = record.explain_slots(1, 3, 25)
    assert [share.slot for share in shares] == weights[3, 25].topk(16).indices.tolist()
    assert shares[0].weight == pytest.approx(weights[3, 25].max().item(), rel=1e-3)
    most = record.tensors["persistent.slot_most_used"][1, 3]
    assert most.tolist() == use[3].argsort(descending=True, stable=True).tolist()
    callers = weights[3][:, most].T.topk(4)
    assert record.tensors["persistent.slot_callers"][1, 3].tolist() == callers.indices.tolist()
    found = record.tensors["persistent.slot_caller_weights"][1, 3].double()
    torch.testing.assert_close(found, callers.values, rtol=1e-4, atol=1e-6)
    scale = (10 * plain.parameters[f"{name}.log_value_norm"]).exp()[:, None]
    answers = sum(scale[:, None] * weights[..., b * 20 : b * 20 + 20] @ values[b] for b in range(2))
    shift = record.tensors["persistent.slot_shift"][1]
    for unit, slot in ((0, 3), (2, 27), (3, use[3].argmax().item())):
        bank = slot // 20
        others = [m for m in range(20) if m != slot % 20]
        alone = (query[unit] @ keys[bank, unit, others].mT).softmax(-1) @ values[bank, unit, others]
        own = 2 * weights[unit, :, bank * 20 : bank * 20 + 20] @ values[bank, unit]
        moved = scale[unit] * (alone - own) / 2
        expected = (moved.norm(dim=-1) / answers[unit].norm(dim=-1)).mean().item()
        assert shift[unit, slot].item() == pytest.approx(expected, rel=1e-4)
    worth = record.tensors["persistent.slot_worth"]
    assert worth.isfinite().sum(-1).eq(slots.NUM_WEIGHED).all()
    for layer, unit, number in ((0, 1, 0), (0, 3, slots.NUM_WEIGHED - 1), (1, 2, 1)):
        slot = record.tensors["persistent.slot_most_used"][layer, unit, number].item()
        with MemoryEdit().delete_slots(layer=layer, unit=unit, slots=[slot]).applied(model), torch.no_grad():
            logits = model(torch.tensor([text])).logits[0]
        cost = F.cross_entropy(logits[:-1], torch.tensor(text[1:])) - record.tensors["loss"].nanmean()
        assert worth[layer, unit, number].item() == pytest.approx(cost.item(), rel=1e-3, abs=1e-6)
    # The tokens of the most used slot: its value through what comes after it.
    slot = use[3].argmax().item()
    assert record.tensors["persistent.slot_most_used"][1, 3, 0] == slot
    columns = plain.parameters[f"{name}.o_proj.weight"][:, 24:]
    added = columns @ (scale[3] * values[slot // 20, 3, slot % 20])
    logits = plain.parameters["lm_head.weight"] @ (
        (added - added.mean()) * plain.parameters["model.norm.weight"]
    )
    assert record.tensors["persistent.slot_tokens"][1, 3, 0].tolist() == logits.topk(10).indices.tolist()


def test_every_measure_is_there_and_says_what_it_is(make, text):
    model, text = make(hidden_size=16, num_attention_heads=2), text * 2
    record = record_memories(model, None, text)
    assert set(LEADING) < set(MEASURES)
    of_slots = {"persistent_effective_slots", "persistent_dead_slots"}
    has_slots = model.config.model_type == "mosaic"
    assert set(record.measures) == set(MEASURES) - (set() if has_slots else of_slots)
    if not has_slots:
        with pytest.raises(ValueError, match="no trained pairs"):
            record.explain_slots(0, 0, 3)
    for name in record.measures:
        measure = MEASURES[name]
        units = record.num_units if measure.memory == "contextual" else record.num_persistent_units
        shapes = {"unit": (2, units), "token": (2, units, 2 * TIME), "relation": (2, units, units)}
        shape = (2, units + 2, units) if name == "cross_retrieval" else shapes[measure.shape]
        values = record.measure(name)
        assert values.shape == shape and measure.description.endswith((".", "?"))
        finite = values[values.isfinite()]
        assert len(finite) or name == "context_gain", name
        if measure.range == (0, 1) and name != "predictability":
            assert finite.min() > -1e-4 and finite.max() < 1 + 1e-4, name
    assert not any(
        "ablation_cost" in name for name in record_memories(model, None, text, ablate=False).measures
    )
    with pytest.raises(ValueError, match="has no measure 'worth'; it has .*error"):
        record.measure("worth")
    with pytest.raises(ValueError, match="'target_cka' relates units"):
        record.unit_measure("target_cka")
    for wrong in ((2, 0, 0), (0, record.num_units, 0), (0, 0, 2 * TIME)):
        with pytest.raises(ValueError, match="0 to"):
            record.explain(*wrong)


def test_blocks_change_nothing(make, text, monkeypatch):
    model = make()
    whole = record_memories(model, None, text, ablate=False)
    sizes = {
        (slots, "NUM_SCORES"): 7 * 4 * TIME,
        (expectation, "QUERY_BLOCK"): 7,
        (expectation, "VOCABULARY_BLOCK"): 9,
        (trace, "LOGIT_BLOCK"): 5,
        (trace, "CANDIDATE_BYTES"): 100_000,
    }
    for (module, name), size in sizes.items():
        monkeypatch.setattr(module, name, size)
    blocks = record_memories(model, None, text, ablate=False)
    for name, tensor in whole.tensors.items():
        if "index" not in name:
            # Where one pair has nearly all the weight, the error that is stated is nearly 0.
            rtol = 0.05 if "surprise" in name else 1e-3
            torch.testing.assert_close(blocks.tensors[name], tensor, equal_nan=True, rtol=rtol, atol=1e-4)


def test_bfloat16_and_training_mode(make, text):
    model = make(num_hidden_layers=1).bfloat16().train()
    record = record_memories(model, None, text, ablate=False)
    assert model.training and record.tensors["contextual.keys"].dtype == torch.float32
    assert record.self_check["answer_max"] < 0.05
    exact = record_memories(model.float().eval(), None, text, ablate=False)
    difference = record.measure("error") - exact.measure("error")
    assert difference.abs().nanmean() < 0.02
