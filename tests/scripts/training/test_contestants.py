from mosaic_lab.training.contestants import choices, choose_best, format_values


def test_choices():
    assert choices({}) == [{}]
    axes = {
        "width": [{"hidden_size": 8, "intermediate_size": 9}, {"hidden_size": 16}],
        "learning_rate": [1, 2],
    }
    assert choices(axes) == [
        {"hidden_size": 8, "intermediate_size": 9, "learning_rate": 1},
        {"hidden_size": 8, "intermediate_size": 9, "learning_rate": 2},
        {"hidden_size": 16, "learning_rate": 1},
        {"hidden_size": 16, "learning_rate": 2},
    ]


def test_hyperparameters_are_chosen_by_their_mean_over_seeds():
    """Neither by the best seed, nor by anything but the validation loss."""
    losses = {0.1: (1.0, 3.0), 0.2: (1.5, 1.7), 0.3: (2.0, 2.1)}
    results = [
        {"model": "mosaic", "seed": seed, "chosen": {"rate": rate}, "validation_loss": loss, "accuracy": rate}
        for rate, by_seed in losses.items()
        for seed, loss in enumerate(by_seed)
    ]
    counted = {"model": "2-gram", "seed": None, "chosen": {}, "validation_loss": None}
    best = choose_best([*results, counted], key=lambda result: result["model"])
    assert [(result["seed"], result["chosen"]["rate"]) for result in best["mosaic"]] == [(0, 0.2), (1, 0.2)]
    assert best["2-gram"] == [counted]


def test_values_of_seeds():
    assert format_values([0.5]) == "0.500" and format_values([0.2, 0.5, 0.5], 2) == "0.40 ± 0.15"
