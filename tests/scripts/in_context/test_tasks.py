"""Rows of the tasks: what is asked for can be read from the row, and from nothing else."""

import numpy as np
import pytest
import torch

from mosaic_lab.in_context import facts, labels
from mosaic_lab.in_context.options import TASKS
from mosaic_lab.in_context.rows import IGNORED, NO_ANSWER, draw_rows

SETTINGS = [("recall", 40, 3), ("recall", 128, 32), ("facts", 60, 1), ("facts", 200, 12), ("labels", 160, 4)]


@pytest.mark.parametrize(("name", "length", "count"), SETTINGS)
def test_rows_depend_on_seed_and_index_alone(name, length, count):
    rows, fewer = (draw_rows(TASKS[name](), [5, 1], number, length, [count]) for number in (8, 3))
    other = draw_rows(TASKS[name](), [5, 2], 3, length, [count])
    assert rows.ids_NT.shape == (8, length) and len(rows) == 8
    assert torch.equal(rows.ids_NT[:3], fewer.ids_NT) and torch.equal(rows.place_NT[:3], fewer.place_NT)
    assert not (other.ids_NT == fewer.ids_NT).all(1).any()
    assert 0 <= rows.ids_NT.min() and rows.ids_NT.max() < TASKS[name]().vocab_size


@pytest.mark.parametrize(("name", "length", "count"), SETTINGS)
def test_loss_counts_answers_only(name, length, count):
    rows = draw_rows(TASKS[name](), [0], 4, length, [count])
    for index in range(4):
        row = rows[index]
        is_answer = rows.place_NT[index] != NO_ANSWER
        assert torch.equal(row["labels"][is_answer], row["input_ids"][is_answer]) and is_answer.any()
        assert (row["labels"][~is_answer] == IGNORED).all() and not is_answer[0]


def answers_of(rows):
    for ids, places in zip(rows.ids_NT.tolist(), rows.place_NT.tolist(), strict=True):
        yield ids, {index: place for index, place in enumerate(places) if place != NO_ANSWER}


def test_recall_is_answered_by_looking_the_key_up():
    for length, count in ((40, 3), (128, 32), (128, 1)):
        for ids, answers in answers_of(draw_rows(TASKS["recall"](), [0], 30, length, [count])):
            assert len(answers) == count and max(answers) == length - 1
            for index, distance in answers.items():
                key = ids[index - 1]
                # Once among the pairs, and once in the questions.
                first, second = (place for place, token in enumerate(ids) if token == key)
                assert second == index - 1 and ids[first + 1] == ids[index]
                assert distance == index - (first + 1)


def test_facts_are_answered_by_looking_both_words_up():
    task = TASKS["facts"]()
    fact, ask = task.vocab_size - 2, task.vocab_size - 1
    for length, count in ((60, 1), (200, 3), (200, 12)):
        for ids, answers in answers_of(draw_rows(task, [0], 30, length, [count])):
            planted = {tuple(ids[i + 1 : i + 3]): i + 3 for i, token in enumerate(ids) if token == fact}
            assert len(planted) == count and len(answers) == min(count, facts.NUM_QUESTIONS)
            assert [i + 3 for i, token in enumerate(ids) if token == ask] == list(answers)
            for index, distance in answers.items():
                place = planted[tuple(ids[index - 2 : index])]
                assert ids[place] == ids[index] and distance == index - place


def test_text_of_facts_is_a_chain_over_all_words():
    task = TASKS["facts"]()
    text = task.draw_text(np.random.default_rng(0), 20_000)
    followers = {}
    for word, follower in zip(text, text[1:], strict=False):
        followers.setdefault(word, set()).add(follower)
    # Words of facts occur in it, too, and markers do not.
    assert set(text) == set(range(task.vocab_size - 2))
    assert max(map(len, followers.values())) == facts.NUM_FOLLOWERS


def test_labels_follow_from_earlier_examples_and_from_nothing_else():
    """Counting symbols under each label of a row finds most labels, and of another row, few."""
    task, size = TASKS["labels"](), labels.EXAMPLE_SIZE
    rows = [*answers_of(draw_rows(task, [0], 100, 160, [4]))]
    right = dict.fromkeys(("same", "other"), 0)
    total = 0
    for number, (ids, answers) in enumerate(rows):
        for index, shots in answers.items():
            examples = np.array(ids[: index + 1]).reshape(-1, size + 1)
            earlier, asked = examples[:-1], examples[-1]
            assert shots == (earlier[:, -1] == asked[-1]).sum() > 0
            total += 1
            other = np.array(rows[number - 1][0]).reshape(-1, size + 1)[: len(earlier)]
            for name, known in (("same", earlier), ("other", other)):
                right[name] += guess(known, asked[:-1], task) == asked[-1]
    assert right["same"] > 0.85 * total and right["other"] < 0.2 * total


def guess(examples, symbols, task):
    """The label under which the symbols are likeliest, from smoothed counts."""
    found = {}
    for *known, label in examples.tolist():
        found.setdefault(label, []).extend(known)
    scores = {}
    for label, known in found.items():
        counts = 0.2 + np.bincount(known, minlength=task.num_symbols)
        scores[label] = np.log(counts / counts.sum())[symbols].sum()
    return max(scores, key=scores.get)


@pytest.mark.parametrize(
    ("name", "length", "count"), [("recall", 11, 3), ("facts", 47, 4), ("labels", 20, 4)]
)
def test_what_does_not_fit_is_refused(name, length, count):
    with pytest.raises(ValueError, match=f"{count} .*{length} tokens"):
        TASKS[name]().check(length, count)
