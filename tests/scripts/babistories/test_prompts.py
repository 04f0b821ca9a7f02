import json
import random

import pytest
from transformers import GPT2Tokenizer

from mosaic_lab.babistories.prompts import (
    FEATURES,
    StoryPrompt,
    as_model_input,
    draw_prompt,
    load_words,
    read_prompts,
)
from mosaic_lab.core.errors import InputError

FULL = StoryPrompt("jump", "kite", "red", ("dialogue", "moral"), "Lily", "One day, a")
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} "
    "[/INST]{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_all_that_is_asked_is_in_the_text():
    text = FULL.text
    wanted = 'the character name "Lily", the verb "jump", the noun "kite" and the adjective "red"'
    assert wanted in text
    assert f"{FEATURES['dialogue']} and {FEATURES['moral']}." in text
    assert "One day" not in text and "(" not in text and "[" not in text


def test_nothing_else_is_in_the_text():
    assert "features" not in StoryPrompt(verb="jump").text
    assert "The story should use the verb" in StoryPrompt(verb="jump").text
    assert "should" not in StoryPrompt().text


def test_a_model_without_a_template_gets_the_plain_form():
    tokenizer = GPT2Tokenizer()
    assert as_model_input(tokenizer, "Tell!", "One day") == "[INST] Tell! [/INST] One day"
    assert as_model_input(tokenizer, "Tell!") == "[INST] Tell! [/INST]"


def test_a_chat_template_is_preferred_and_the_answer_stays_open():
    tokenizer = GPT2Tokenizer(chat_template=MISTRAL_TEMPLATE, bos_token="<s>", eos_token="</s>")
    assert as_model_input(tokenizer, "Tell!", "One day") == "<s>[INST] Tell! [/INST] One day"
    assert as_model_input(tokenizer, "Tell!") == "<s>[INST] Tell! [/INST]"


def test_drawn_prompts_vary_and_fill_up_what_is_asked():
    words = load_words()
    prompts = [draw_prompt(random.Random(i), ["Tom", "Mia"], ["Once", "One day"]) for i in range(300)]
    assert all(
        prompt.verb in words["verbs"]
        and prompt.noun in words["nouns"]
        and prompt.adjective in words["adjectives"]
        for prompt in prompts
    )
    assert {feature for prompt in prompts for feature in prompt.features} == set(FEATURES)
    assert {len(prompt.features) for prompt in prompts} == {0, 1, 2, 3}
    assert {(prompt.name, prompt.opening) for prompt in prompts} == {
        (name, opening) for name in ("Tom", "Mia") for opening in ("Once", "One day")
    }
    asked = StoryPrompt("fly", opening="Far away")
    drawn = draw_prompt(random.Random(0), ["Tom"], ["Once"], asked)
    assert drawn == StoryPrompt("fly", opening="Far away", name="Tom")


def test_word_lists_have_some_hundreds_of_distinct_simple_words():
    assert list(load_words()) == ["verbs", "nouns", "adjectives"]
    for words in load_words().values():
        assert len(words) > 200 and len(set(words)) == len(words)
        assert all(word.replace("-", "").isalpha() and word.islower() for word in words)


def test_reads_prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(FULL.as_record()) + '\n\n{"noun": "hot dog"}\n')
    assert read_prompts(path) == [FULL, StoryPrompt(noun="hot dog")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: not JSON: Expecting property name"),
        ("[" * 100_000, "line 2: nested too deeply"),
        ("[1]", "line 2: "),
        ('{"color": "red"}', "line 2: .*'color'"),
        ('{"verb": 3}', "line 2: verb must be a string, not 3"),
        ('{"noun": "<b>"}', "line 2: noun must be made of letters, not '<b>'"),
        ('{"name": "{hero}"}', "line 2: name must be made of letters"),
        ('{"opening": "a \\ud800"}', "line 2: not Unicode: a lone surrogate, character 3"),
        ('{"features": ["poem"]}', "line 2: features must be some of .*; not 'poem'"),
        ('{"features": 3}', "line 2: "),
    ],
)
def test_wrong_prompts_are_named(tmp_path, line, problem):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"verb": "run"}\n' + line)
    with pytest.raises(InputError, match=f"prompts .*prompts.jsonl, {problem}"):
        read_prompts(path)


def test_files_without_prompts_are_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes("é".encode("latin-1"))
    for name, problem in (
        ("empty.jsonl", "holds no prompt"),
        ("latin.jsonl", "not text in UTF-8"),
        ("missing.jsonl", "cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=f"{name}: {problem}"):
            read_prompts(tmp_path / name)
