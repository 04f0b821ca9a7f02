"""The 24 short prompts of Eldan and Li's TinyStories paper, and what models make of them (tables 1 and 5)."""

import html

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, set_seed

from mosaic_lab.evaluation.models import Contestant

FACTS = (
    "Alice was so tired when she got back home so she went",
    "Jack and Lily saw a rainbow after a rainy day. They were amazed by the colors. Jack said, "
    '"Look, Lily. A rainbow has',
    "Jack and Lily liked to watch the moon at night. They noticed that the moon changed its shape every "
    "night. Sometimes the moon was big and round, and sometimes it was",
    "Jack wanted to read a book, so he went to",
    '"Can cows fly?", Alice asked her mother.',
    '"What do birds like to eat?", Tom asked his mother.',
    '"What language do they speak in France?", Tom asked his mother',
    "If I throw a ball up in the air, eventually it will",
    'It was winter and cold outside so his mother told him, "You should',
)
REASONING = (
    "Lily likes cats and dogs. She asked her mom for a dog and her mom said no, so instead she asked",
    'Jack told Mary, "If you give me your banana, I\'ll give you my apple". Mary gave Jack her Banana so',
    "On weekends Jack went to visit his grandmother whereas on weekdays he would go to school. Last "
    "weekend, when Jack was on his way to",
    "Lily and Ben were having an argument. Ben said that cake is much better than ice cream and Lily said "
    "that",
    "Lily and Ben are having an argument. They are trying to decide between the park and the swimming pool. "
    'Ben says, "I want to go to the park". Lily says',
    "Jack's mother was not home, and his father was at home. When Jack came home, he said hello to",
    "Lily doesn't like swimming. When her father wants to take her to the swimming pool, she says",
    "Both Ben and Lily wanted cake. Father said that there was only one piece of cake left. They",
    "Ben went to visit Lily in her house, but she was not at home. Ben knocked on the door,",
)
CONTEXT = (
    '"Hi Jane, have you seen Alice? I can\'t find her anywhere", said Jack. Jane',
    "Max had two dogs. One was white and the other was black. Max walked up the street and saw a kid with a "
    'dog. He told the kid, "I see you have a Brown dog. I also have',
    "Anne had a piece of candy in her left pocket and a piece of chocolate in her right pocket. Anne's mom "
    'asked her, "Anne, what is that you have in your left pocket?"',
    "Alice had both an apple and a carrot in her bag. She took the apple out of the bag and gave it to Jack. "
    "She reached into the bag again and took",
    "Alice and Jack walked up the street and met a girl in a red dress. The girl said to them, \"Hi, I'm "
    'Jane. What are your names?"',
    "Diva was hungry, and wanted to bake a cake, but she didn't have any sugar at home, so she decided to go "
    'ask around. She started walking and met a squirrel. She asked the squirrel, "Would you happen',
)
PROMPTS = {"facts": FACTS, "reasoning": REASONING, "context tracking": CONTEXT}


@torch.no_grad()
def continue_prompts(
    contestant: Contestant,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[dict[str, str]]:
    """One record for each prompt: `kind`, `prompt`, and the model's `greedy` and `sampled` continuation."""
    set_seed(seed)
    records = []
    for kind, prompts in PROMPTS.items():
        for prompt in tqdm(prompts, desc=f"{contestant.name}, {kind}", leave=False):
            inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(
                contestant.model.device
            )
            options = {"max_new_tokens": max_new_tokens, "pad_token_id": tokenizer.eos_token_id}
            greedy = contestant.model.generate(**inputs, do_sample=False, **options)
            sampled = contestant.model.generate(
                **inputs, do_sample=True, temperature=temperature, top_k=0, **options
            )
            texts = (
                tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                for ids in (greedy, sampled)
            )
            records.append(
                {"kind": kind, "prompt": prompt} | dict(zip(("greedy", "sampled"), texts, strict=True))
            )
    return records


def format_markdown(continuations: dict[str, list[dict[str, str]]]) -> str:
    """A table for each kind of prompts and way to choose tokens, one column for each model."""
    names = list(continuations)
    lines = []
    for way in ("greedy", "sampled"):
        for kind in PROMPTS:
            lines += [f"## {kind}, {way}", "", f"| prompt | {' | '.join(names)} |"]
            lines.append("|" + " --- |" * (len(names) + 1))
            for records in zip(*continuations.values(), strict=True):
                if records[0]["kind"] == kind:
                    cells = [records[0]["prompt"], *(record[way] for record in records)]
                    lines.append(f"| {' | '.join(map(_markdown_cell, cells))} |")
            lines.append("")
    return "\n".join(lines)


def _markdown_cell(text: str) -> str:
    return html.escape(text.strip(), quote=False).replace("|", "\\|").replace("\n", "<br>")


def format_html(continuations: dict[str, list[dict[str, str]]]) -> str:
    """The same as `format_markdown`, as a page of HTML."""
    names = list(continuations)
    parts = []
    for way in ("greedy", "sampled"):
        for kind in PROMPTS:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in ("prompt", *names))
            rows = "".join(
                "<tr>"
                + "".join(
                    f"<td>{_html_cell(text)}</td>"
                    for text in (records[0]["prompt"], *(record[way] for record in records))
                )
                + "</tr>\n"
                for records in zip(*continuations.values(), strict=True)
                if records[0]["kind"] == kind
            )
            parts.append(f"<h2>{kind}, {way}</h2>\n<table><tr>{head}</tr>\n{rows}</table>\n")
    return _PAGE.format(body="".join(parts))


def _html_cell(text: str) -> str:
    return html.escape(text.strip()).replace("\n", "<br>")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Continued prompts</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; margin-bottom: 2em; }}
td, th {{ border: 1px solid #bbb; padding: 0.4em 0.6em; text-align: left; vertical-align: top; }}
</style>
</head>
<body>
{body}</body>
</html>
"""
