import json

import datasets
import huggingface_hub.constants
import pytest

from mosaic_lab.programs import train


@pytest.fixture(scope="session", autouse=True)
def offline(tmp_path_factory):
    """No network, and nobody's cache of datasets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        cache = tmp_path_factory.mktemp("datasets")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        # For processes that tests start.
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(cache))
        yield


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """A recipe of a few seconds: embedded stories, a tiny mosaic with dropout, a checkpoint half way."""
    folder = tmp_path_factory.mktemp("recipe")
    config = {"model_type": "mosaic", "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "logit_scale": 32**-0.5}
    (folder / "model.json").write_text(json.dumps(config))
    options = f"""
        dataset: stories
        num_stories: 100
        validation_fraction: 0.1
        train_tokenizer: 320
        model: {folder / "model.json"}
        block_size: 64
        learning_rate: 3e-2
        per_device_train_batch_size: 64
        max_steps: 12
        logging_steps: 2
        logging_first_step: true
        eval_strategy: steps
        eval_steps: 6
        save_steps: 6
        use_cpu: true
        disable_tqdm: true
    """
    path = folder / "recipe.yaml"
    path.write_text("\n".join(line.strip() for line in options.splitlines()))
    return path


@pytest.fixture(scope="session")
def short_recipe(recipe):
    """The same for six steps of two micro-batches of 4 rows, with a checkpoint after every other one."""
    changes = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "eval_strategy": "no",
        "save_steps": 2,
        "save_total_limit": 1,
    }
    lines = (line for line in recipe.read_text().splitlines() if line.split(":")[0] not in changes)
    path = recipe.with_name("short.yaml")
    path.write_text("\n".join([*lines, *(f"{name}: {value}" for name, value in changes.items())]))
    return path


@pytest.fixture(scope="session")
def trained(recipe, tmp_path_factory):
    """The folder that the recipe leaves behind."""
    folder = tmp_path_factory.mktemp("trained")
    train.main([str(recipe), "--output_dir", str(folder)])
    return folder


@pytest.fixture
def read_error(capsys):
    """Runs a program that must fail, and returns the one line that says why."""

    def run(main, *argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in argv])
        assert stop.value.code == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        lines = [line for line in printed.err.splitlines() if ": error: " in line]
        assert len(lines) == 1
        return lines[0]

    return run
