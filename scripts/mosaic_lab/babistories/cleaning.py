"""Cleans the stories of a language model: cuts what is not story, and drops some stories altogether."""

import re
from collections import Counter


def _heading(names: str) -> re.Pattern:
    """One of the names and a colon, at the beginning of a line or after a sentence."""
    before = r"(?:^|(?<=[.!?]\s)|(?<=[.!?][\"”]\s)|(?<=\())"
    return re.compile(rf"{before}(?:{names}):", re.IGNORECASE | re.MULTILINE)


# A match is cut with all that follows it.
CUTS = {
    "##": re.compile("##"),
    "note": _heading("(?:author's )?notes?"),
    "words": _heading("(?:(?:used|key|simple|new) )?words(?: used)?|vocabulary"),
    "the end": re.compile(r"\bT(?:he End|HE END)\b|\bThe end(?=[.!]|\s*$)"),
    "moral of the story": re.compile(
        r"\b(?:the )?(?:moral|lesson)(?: value| lesson)? (?:of|in|from) (?:the|this) (?:story|tale)\b",
        re.IGNORECASE,
    ),
    "moral": _heading("(?:the )?(?:moral|lesson)(?: value| lesson)?"),
    "feature": _heading("conflict|(?:bad )?ending|(?:plot )?twist|dialogue|foreshadowing|features?|theme"),
    "prompt": _heading("prompt|instructions?|summary|title|questions?"),
    "user": re.compile(r"\bUser \d+:"),
    "next request": re.compile(r"\[INST\]|</?s>|<\|"),
}
# A story with a match is dropped.
DROPS = {
    "link": re.compile("http"),
    "rule ==": re.compile("=="),
    "rule ---": re.compile("---"),
    "HTML": re.compile("&quot|&nbsp"),
    "sign": re.compile(r"[\\*#<>%^/@+]"),
    "bracket": re.compile(r"[()\[\]{}]"),
}

_REQUEST_END = "[/INST]"
_SENTENCE_END = re.compile(r"[.!?…][\"'”’]*(?=\s|$)")


def clean_story(raw: str) -> tuple[str | None, list[str]]:
    """Cuts all that is not story from a model's answer, or drops it.

    Args:
        raw (`str`): the answer, possibly preceded by the request and its end, "[/INST]".

    Returns:
        `tuple[str | None, list[str]]`: the story, `None` if it is dropped; and the rules that changed it, the
        last of which dropped it.
    """
    text, used = after_request(raw), []
    for name, pattern in CUTS.items():
        if match := pattern.search(text):
            text = text[: match.start()]
            used.append(f"cut at {name}")
    text = join_paragraphs(text).strip()
    if not text:
        return None, [*used, "dropped: empty"]
    for name, pattern in DROPS.items():
        if pattern.search(text):
            return None, [*used, f"dropped: {name}"]
    whole = cut_to_sentence(text)
    if whole != text:
        used.append("cut to whole sentences" if whole else "dropped: no sentence")
    return whole or None, used


def clean_stories(raw: list[str]) -> tuple[list[str | None], Counter]:
    """Applies `clean_story` to each, and counts the stories that each rule changed."""
    stories, counts = [], Counter()
    for text in raw:
        story, used = clean_story(text)
        stories.append(story)
        counts.update(used)
    return stories, counts


def after_request(text: str) -> str:
    """Cuts off the request and its end, if they are there."""
    return text.split(_REQUEST_END, 1)[-1].strip()


def join_paragraphs(text: str) -> str:
    """Replaces blank lines by spaces."""
    return re.sub(r"\n\s*\n\s*", " ", text)


def cut_to_sentence(text: str) -> str:
    """Cuts after the last sentence end outside quotation marks, unless the text ends with a sentence."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if ends and ends[-1] == len(text):
        return text
    whole = (end for end in reversed(ends) if text.count('"', 0, end) % 2 == 0)
    return text[: next(whole, 0)]
