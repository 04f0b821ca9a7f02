"""Files of the original code are read whatever their form, and refused by name where they are damaged."""

import zipfile

import pytest
import torch
from safetensors.torch import save_file

from modeling_mosaic.conversion import load_original_checkpoint
from modeling_mosaic.original_checkpoint import read_original_checkpoint
from original_reference import KINDS, checkpoint_file, cut, largest_difference, random_checkpoint


class Malicious:
    def __reduce__(self):
        return print, ("this must not be printed",)


@pytest.mark.parametrize("kind", KINDS)
def test_bare_state_dict(kind, tmp_path):
    state_dict, config = random_checkpoint(kind)
    torch.save(state_dict, tmp_path / "a.pt")
    assert read_original_checkpoint(tmp_path / "a.pt")[1] == {}
    model = load_original_checkpoint(tmp_path / "a.pt", config)
    assert largest_difference(model, state_dict, config, 9) < 1e-6


def test_old_format(tmp_path):
    state_dict, config = random_checkpoint("regular")
    torch.save(state_dict, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert largest_difference(load_original_checkpoint(tmp_path / "a.pt"), state_dict, config, 9) < 1e-6


def test_arguments_of_the_training_script(tmp_path):
    _, config = checkpoint_file(tmp_path / "a.pt")
    assert read_original_checkpoint(tmp_path / "a.pt")[1] == config
    torch.save({"model": random_checkpoint("nano")[0], "config": {"dropout": 0.2}}, tmp_path / "b.pt")
    assert load_original_checkpoint(tmp_path / "b.pt").config.hidden_dropout == 0.2


def test_given_configuration_completes_that_of_the_file(tmp_path):
    checkpoint_file(tmp_path / "a.pt", "regular", model_args={"ic_dropout": 0.1, "block_size": None})
    config = load_original_checkpoint(tmp_path / "a.pt", {"block_size": 33, "ic_dropout": 0.1}).config
    assert (config.max_position_embeddings, config.attention_dropout) == (33, 0.1)
    with pytest.raises(ValueError, match="ic_dropout is 0.2 in the configuration, but 0.1 in"):
        load_original_checkpoint(tmp_path / "a.pt", {"ic_dropout": 0.2})


@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_truncated(tmp_path, suffix, part):
    path = tmp_path / f"a.{suffix}"
    if suffix == "pt":
        checkpoint_file(path)
    else:
        save_file({key: tensor.clone() for key, tensor in random_checkpoint("eft")[0].items()}, path)
    cut(path, part)
    with pytest.raises(ValueError, match=f"a.{suffix} is truncated or no"):
        load_original_checkpoint(path)


def test_flipped_bits(tmp_path):
    """In a weight, where torch.load does not notice them."""
    path = tmp_path / "a.pt"
    checkpoint_file(path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[content.index(zipfile.ZipFile(path).read(largest)) + 5] ^= 64
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    with pytest.raises(ValueError, match=f"a.pt is damaged: {largest.filename} in it does not match"):
        load_original_checkpoint(path)


@pytest.mark.parametrize("old_format", [False, True])
def test_code_is_not_run(tmp_path, capsys, old_format):
    path = tmp_path / "a.pt"
    torch.save({"model": Malicious()}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(ValueError, match="refused: unpickling it would run code .*print"):
        load_original_checkpoint(path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "holds a Tensor, not a checkpoint"),
        ({"model": {}, "model_args": [1]}, "model_args in .* are a list"),
        ({"iter_num": 3}, "'iter_num' holds a int"),
        ({"model": {}}, "none at all"),
    ],
)
def test_other_content(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        load_original_checkpoint(tmp_path / "a.pt")


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="there is no file .*a.pt"):
        load_original_checkpoint(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="there is no file"):
        load_original_checkpoint(tmp_path)
