"""Names in tokens, and in what a model tells."""

import numpy as np
import pytest
import torch

from mosaic_lab.evaluation.models import TrainedModel
from mosaic_lab.evaluation.names import NEW, OTHER, REPEATED, locate_names, measure_names
from mosaic_lab.evaluation.summary import summarise_names
from mosaic_lab.evaluation.texts import Text
from mosaic_lab.training.tokenizer import load_tokenizer

STORY = 'Lily met Tom. "Tom, look!" said Lily. Ben came. Then Tom, Lily and Ben ate. Ben slept.'


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
    named = locate_names(ids_of(tokenizer, "A dog sat"), tokenizer)
    assert (named.kinds_T == OTHER).all() and named.num_repeated == named.num_after == 0


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
