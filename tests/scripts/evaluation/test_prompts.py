import html
import re

from mosaic_lab.evaluation.prompts import PROMPTS, format_html, format_markdown

NASTY = 'a <b> | "c"\n& d'


def continuations():
    prompts = [(kind, prompt) for kind, prompts in PROMPTS.items() for prompt in prompts]
    return {
        name: [
            {"kind": kind, "prompt": prompt, "greedy": f"{name} greedy {NASTY}", "sampled": f"{name} sampled"}
            for kind, prompt in prompts
        ]
        for name in ("one", "two")
    }


def test_24_different_prompts():
    prompts = [prompt for prompts in PROMPTS.values() for prompt in prompts]
    assert [len(prompts) for prompts in PROMPTS.values()] == [9, 9, 6]
    assert len(set(prompts)) == 24 and all(prompt == prompt.strip() for prompt in prompts)


def test_markdown_has_a_column_for_each_model_whatever_they_write():
    lines = format_markdown(continuations()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 * (24 + 3 * 2)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    assert sum("one greedy a &lt;b&gt; \\| " in row and "two greedy" in row for row in rows) == 24


def test_html_shows_what_was_written():
    page = format_html(continuations())
    cells = [html.unescape(cell).replace("<br>", "\n") for cell in re.findall(r"<td>(.*?)</td>", page)]
    assert cells.count(f"one greedy {NASTY}") == cells.count("two sampled") == 24
    assert [cell for cell in cells if cell in PROMPTS["facts"]] == [*PROMPTS["facts"]] * 2
