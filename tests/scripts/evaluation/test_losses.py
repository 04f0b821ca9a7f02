import numpy as np
import pytest
import torch

from mosaic_lab.evaluation.losses import row_losses, sequence_losses


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 32, length) for length in (2, 40, 7, 7, 23, 39, 3)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_sequences_have_the_losses_that_the_model_gives_each_alone(mosaic, sequences, batch_size):
    losses = sequence_losses(mosaic.model, sequences, batch_size, "")
    for sequence, loss in zip(sequences, losses, strict=True):
        assert loss.shape == (len(sequence) - 1,)
        ids = torch.from_numpy(sequence)[None]
        with torch.no_grad():
            alone = mosaic.model(input_ids=ids, labels=ids).loss
        assert loss.mean() == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_rows(mosaic, batch_size):
    rows = np.random.default_rng(1).integers(0, 32, (9, 12))
    losses = row_losses(mosaic.model, rows, batch_size, "")
    one_by_one = sequence_losses(mosaic.model, list(rows), 1, "")
    np.testing.assert_allclose(losses, np.stack(one_by_one), rtol=1e-5, atol=1e-6)
