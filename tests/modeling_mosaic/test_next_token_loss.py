import pytest
import torch
from transformers.loss.loss_utils import ForCausalLMLoss

from modeling_mosaic import next_token_loss as module
from modeling_mosaic.next_token_loss import next_token_loss

VOCAB = 23


def draw_inputs(dtype, shape=(3, 17)):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(*shape, VOCAB, generator=generator)
    labels = torch.randint(VOCAB, shape, generator=generator)
    return logits.to(dtype).requires_grad_(), labels


@pytest.fixture(params=[1, 100, 10**6])
def chunk_size(request, monkeypatch):
    """One token at a time, a few with a shorter last chunk, all at once."""
    monkeypatch.setitem(module.CHUNK_SIZE, "cpu", request.param)


@pytest.mark.usefixtures("chunk_size")
@pytest.mark.parametrize("options", ["plain", "ignored", "all but one ignored", "items", "shifted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_that_of_transformers(dtype, options):
    logits, labels = draw_inputs(dtype)
    kwargs = {}
    if options == "ignored":
        labels = labels.masked_fill(torch.arange(17) % 3 == 0, -100)
    if options == "all but one ignored":
        labels[:, 2:], labels[1:] = -100, -100
    if options == "items":
        kwargs["num_items_in_batch"] = torch.tensor(7)
    if options == "shifted":
        kwargs["shift_labels"] = labels.roll(-1, 1)
    results = []
    for loss_function in (next_token_loss, ForCausalLMLoss):
        loss = loss_function(logits=logits, labels=labels, vocab_size=VOCAB, **kwargs)
        # Not 1: as under gradient accumulation or a loss scaler.
        results.append((loss, *torch.autograd.grad(3.5 * loss, logits)))
    (loss, gradient), (expected_loss, expected_gradient) = results
    # A sum of as many float32 terms, added up in another order.
    rtol = labels.numel() * torch.finfo(torch.float32).eps
    torch.testing.assert_close(loss, expected_loss, rtol=rtol, atol=0)
    assert gradient.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-4}
    torch.testing.assert_close(gradient, expected_gradient, **tolerance)


def test_without_labels_that_count_it_is_not_a_number():
    logits, labels = draw_inputs(torch.float32)
    assert next_token_loss(logits, torch.full_like(labels, -100), VOCAB).isnan()


def test_gradients_also_come_through_the_logits(make_model, random_tokens):
    """As of a second loss on the logits that the model returns with its own loss."""
    model, tokens = make_model(), random_tokens(2, 9)
    outputs = model(tokens, labels=tokens)
    joint = torch.autograd.grad(outputs.loss + outputs.logits.square().mean(), model.model.norm.weight)
    logits = model(tokens).logits
    expected_loss = ForCausalLMLoss(logits, tokens, model.config.vocab_size) + logits.square().mean()
    torch.testing.assert_close(joint, torch.autograd.grad(expected_loss, model.model.norm.weight))


def test_keeps_nothing_for_the_gradient_but_logits_and_labels():
    logits, labels = draw_inputs(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        next_token_loss(logits, labels, VOCAB)
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() >= labels.numel() * VOCAB}
    assert large == {logits.data_ptr()}


def test_another_loss_function_can_be_set(make_model, random_tokens):
    model, tokens = make_model(), random_tokens(2, 9)
    model.loss_function = lambda logits, labels, **kwargs: logits.sum() + labels.sum()
    outputs = model(tokens, labels=tokens)
    torch.testing.assert_close(outputs.loss, outputs.logits.sum() + tokens.sum())


def test_gradients_of_torch_func(make_model, random_tokens):
    """Those of a loss as a function of the parameters, as people take them for meta-learning."""
    model, tokens = make_model(), random_tokens(2, 40)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (tokens,), {"labels": tokens}).loss

    gradients = torch.func.grad(loss)(parameters)
    model(tokens, labels=tokens).loss.backward()
    torch.testing.assert_close(gradients, {name: value.grad for name, value in model.named_parameters()})
