"""Names in tokens, and in what a model tells."""

import numpy as np
import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM
from mosaic_lab.core.errors import InputError
from mosaic_lab.evaluation import name_units
from mosaic_lab.evaluation.models import TrainedModel
from mosaic_lab.evaluation.names import NEW, OTHER, REPEATED, NamesInTokens, locate_names, measure_names
from mosaic_lab.evaluation.summary import summarise_names
from mosaic_lab.evaluation.texts import Text
from mosaic_lab.training.tokenizer import load_tokenizer

STORY = 'Lily met Tom. "Tom, look!" said Lily. Ben came. Then Tom, Lily and Ben ate. Ben slept.'
# Tokens 1, 3, 6 and 8 of a text are two names, each of them twice.
NAMED = NamesInTokens(np.array([0, 1, 0, 1, 0, 0, 2, 0, 2]), 2, 4, 2, frozenset())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(None, 300, [[STORY]])[0]


class Teller:
    """Tells the same story to the end, whatever the beginning, and predicts all tokens alike."""

    device = torch.device("cpu")

    def __init__(self, story, vocab_size):
        self.story, self.vocab_size = story, vocab_size

    def __call__(self, input_ids, use_cache):
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, self.vocab_size)})

    def generate(self, input_ids, attention_mask, **options):
        assert (attention_mask[:, -1] == 1).all() and len(self.story) <= options["max_new_tokens"]
        return torch.cat([input_ids, self.story.expand(len(input_ids), -1)], 1)


def ids_of(tokenizer, text):
    return np.array([tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id])


def test_names_are_found_token_by_token(tokenizer):
    ids = ids_of(tokenizer, STORY)
    named = locate_names(ids, tokenizer)
    spelt = {kind: "".join(tokenizer.batch_decode(ids[named.kinds_T == kind])) for kind in (NEW, REPEATED)}
    assert spelt[NEW].replace(" ", "") == "LilyTomBen"
    assert spelt[REPEATED].replace(" ", "") == "TomLilyTomLilyBenBen"
    assert named.num_repeated == 6 and named.known == {"Lily", "Tom", "Ben"}
    introduction = tokenizer.decode(ids[: named.introduction], skip_special_tokens=True)
    assert introduction == STORY[: STORY.index(" Then")] and named.num_after == 4


def test_text_without_names(tokenizer):
    ids = ids_of(tokenizer, "A dog sat")
    named = locate_names(ids, tokenizer)
    assert (named.kinds_T == OTHER).all() and named.num_repeated == named.num_after == 0
    text = Text("stories", [ids], np.zeros((2, 64), int), 1, "")
    with pytest.raises(InputError, match="num_tellings 3: no story of stories has a name"):
        measure_names(TrainedModel("m", "m", None), tokenizer, text, 3, 1.0, batch_size=1, seed=0)


def test_share_of_names_that_belong(tokenizer):
    """A model that tells of Tom, who belongs to both stories, and of Mia, who belongs to none."""
    documents = [ids_of(tokenizer, STORY), ids_of(tokenizer, "Tom sat. Tom ran. Tom fell.")]
    told = torch.tensor(tokenizer(" Tom ate. Mia ran. Tom slept.")["input_ids"])
    model = TrainedModel("teller", "teller", Teller(told, len(tokenizer)))
    text = Text("stories", documents, np.zeros((2, 400), int), 1, "")
    options = {"num_tellings": 5, "temperature": 1.0, "batch_size": 2, "seed": 0}
    result, arrays = measure_names(model, tokenizer, text, **options)
    assert [telling["told"] for telling in result["tellings"]] == 2 * [" Tom ate. Mia ran. Tom slept."]
    assert arrays["num_belonging"].tolist() == [2, 2] and arrays["num_told"].tolist() == [3, 3]
    figures = summarise_names(arrays, seed=0)
    assert figures["belonging"]["mean"] == pytest.approx(2 / 3)
    # All tokens cost the same; a name may be several.
    chance = np.log(len(tokenizer))
    for kind in ("other", "new"):
        assert figures[kind]["mean"] == pytest.approx(chance, rel=1e-5)
    tokens = sum((locate_names(document, tokenizer).kinds_T == REPEATED).sum() for document in documents)
    assert figures["repeated"]["mean"] == pytest.approx(chance * tokens / 8, rel=1e-5)
    assert measure_names(model, tokenizer, text, **{**options, "num_tellings": 1})[1][
        "num_told"
    ].tolist() == [3]


def test_units_that_carry_names(tokenizer, monkeypatch):
    """Weights against attention of the model itself; a projection that undoes the values' copies names."""
    monkeypatch.setattr(name_units, "single_tokens", lambda _: np.array([7, 8, 9]))
    monkeypatch.setattr(name_units, "locate_names", lambda ids, _: NAMED)
    config = MosaicConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    network = MosaicForCausalLM(config).eval()
    ids = np.array([1, 7, 2, 8, 3, 4, 7, 5, 8])
    model, text = TrainedModel("m", "m", network), Text("stories", [ids], np.zeros((2, 9), int), 1, "")
    result, arrays = name_units.measure_name_units(model, tokenizer, text)
    network.set_attn_implementation("eager")
    with torch.no_grad():
        weights = network(torch.from_numpy(ids)[None], output_attentions=True).attentions
    # Before the second 7, at token 5, pairs 0 and 2 peek at 7 and 8; before the second 8, pair 5 at 7 too.
    for layer, maps in enumerate(weights):
        right = (maps[0, :, 5, 0] + maps[0, :, 7, 2]) / 2
        name = (maps[0, :, 5, [0, 2]].sum(-1) + maps[0, :, 7, [0, 2, 5]].sum(-1)) / 2
        np.testing.assert_allclose(arrays["right"][layer], right, rtol=1e-5)
        np.testing.assert_allclose(arrays["name"][layer], name, rtol=1e-5)
    assert result["num_places"] == 2 and result["even_right"] == pytest.approx((1 / 5 + 1 / 7) / 2)
    assert result["even_name"] == pytest.approx((2 / 5 + 3 / 7) / 2)
    memory = network.model.layers[0].contextual_memory
    before = name_units.copying_of(network, network.model.layers[0], np.array([7, 8, 9]))
    with torch.no_grad():
        memory.o_proj.weight.copy_(memory.v_proj.weight.T)
        after = name_units.copying_of(network, network.model.layers[0], np.array([7, 8, 9]))
    assert (after > 0.1).all() and (after > before).all()
