import shutil

import pytest

from mosaic_lab.programs import generate


def write(capsys, *argv):
    capsys.readouterr()
    generate.main([str(argument) for argument in argv])
    return capsys.readouterr().out


def test_streams_the_prompt_and_what_follows(trained, capsys):
    options = ("--max_new_tokens", "12", "--device", "cpu")
    first = write(capsys, trained, "Once upon a time", *options)
    assert first.startswith("Once upon a time") and len(first.strip()) > len("Once upon a time")
    assert write(capsys, trained, "Once upon a time", *options) == first
    assert write(capsys, trained, "Once upon a time", *options, "--seed", "1") != first


def test_greedy_is_sampling_from_the_likeliest_token(trained, capsys):
    options = (trained, "A dog", "--max_new_tokens", "12")
    greedy = write(capsys, *options, "--no-do_sample")
    assert greedy == write(capsys, *options, "--top_k", "1", "--seed", "5")
    assert greedy != write(capsys, *options, "--temperature", "9.0", "--top_k", "0")


@pytest.mark.parametrize("options", ["--num_return_sequences 3", "--num_beams 2 --num_return_sequences 2"])
def test_writes_several_texts(trained, capsys, options):
    texts = write(capsys, trained, "The sun", "--max_new_tokens", "8", *options.split()).split("\n\nThe sun")
    assert len(texts) == int(options[-1])


def test_wrong_input_is_named(trained, tmp_path, read_error):
    assert "prompt: it is empty" in read_error(generate.main, trained, " \n")
    assert f"model {tmp_path / 'none'}: there is no such folder" in read_error(
        generate.main, tmp_path / "none", "A dog"
    )
    error = read_error(generate.main, trained, "A dog", "--no-do_sample", "--num_return_sequences", "2")
    assert "num_return_sequences" in error
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken, ignore=shutil.ignore_patterns("checkpoint-*"))
    weights = (trained / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert f"model {broken}: cannot be loaded" in read_error(generate.main, broken, "A dog")
