import pytest

from mosaic_lab.three_moons.report import format_summary, summarise


def make_result(num_memories, optimizer, seed, error, purity=None):
    errors = {"before_max": 2 * error, "midway": 3 * error, "before_lcm": 4 * error, "after_lcm": error}
    result = {"num_memories": num_memories, "optimizer": optimizer, "seed": seed, "seconds": 1.0}
    result |= {"train_loss": error, "validation_loss": error, "purity": purity}
    result["errors"] = {split: {**errors, "repeated": 4.0} for split in ("train", "validation")}
    return result if purity is None else {**result, "disentangled": purity > 0.9}


RESULTS = [
    *(make_result(1, "adam", seed, error) for seed, error in enumerate((1, 2, 30))),
    *(make_result(3, "adam", seed, 0.5, purity) for seed, purity in enumerate((0.99, 0.2, 1.0))),
    make_result(3, "uncorrected_adam", 0, 9, 0.4),
]


def test_counts_medians_and_ratios():
    summary = summarise(RESULTS)
    one, three, other = summary["groups"]
    assert (one["num_memories"], three["num_memories"], other["optimizer"]) == (1, 3, "uncorrected_adam")
    assert one["errors"]["validation"]["midway"] == 6 and one["runs"] == 3 and "purities" not in one
    assert three["disentangled"] == 2 and three["purities"] == [0.99, 0.2, 1.0]
    # Of torch's Adam, though the other comes last.
    assert summary["ratios"] == {
        "one_after_to_before_lcm": pytest.approx(0.25),
        "one_before_max_to_repeated": pytest.approx(1.0),
        "three_to_one_midway": pytest.approx(0.25),
    }
    text = format_summary(summary)
    assert "2 of 3 | 0.200" in text and "0 of 1 | 0.400" in text and "midway: 0.25" in text


def test_one_network_has_no_ratios():
    assert "ratios" not in summarise(RESULTS[:3]) and "Ratios" not in format_summary(summarise(RESULTS[:3]))
