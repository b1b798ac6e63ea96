"""Answer letter parsing: the letter of an option that a written answer names, or None.

The rules are in the docstring of `multiple_choice_generation.evaluate_written_choices`, which makes
docs/tasks.md.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from zephyr.data.readers.answer_key import LETTERS

_THOUGHTS = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STYLE = re.compile(r"\\(?:text\w*|math\w+)\b|\\[()\[\]]|[{}$*`]|(?<!\w)_+|_+(?!\w)")

_LETTER = re.compile(r"(?<![\w'’-])[A-Za-z](?![\w'’-])")
_WORD_FOLLOWS = re.compile(r"\s+(?!(?:because|since|as|is|are|and|or)\b)[a-z]")
_NO_WORD_FOLLOWS = re.compile(r"[.,;:!?)\]\"'”]|\s*(?:\n|$)")
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|neither|nor|except|than)|n['’]t)\s+(?:be\s+)?(?:option|choice)?\W*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]\"'”]*\s+(?:is|was)(?:n['’]t|\s+(?:not|never|incorrect|wrong|false))\b", re.IGNORECASE
)

_NAMED = r"\W*(?:(?:the\s+)?(?:option|choice|letter|answer)\s+)?\W*$"
_STATED_BEFORE = re.compile(
    r"\b(?:answer|option|choice)(?:(?:\s+[a-z]{2,}){0,5}\s+(?:is|would\s+be|should\s+be|must\s+be)"
    rf"|\s*(?:[:=→–—-]|\bis\b)){_NAMED}",
    re.IGNORECASE,
)
_STATED_AFTER = re.compile(
    r"[)\]\"'”]*\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b", re.IGNORECASE
)
_BEGINNING = re.compile(r"\W*(?:(?:option|choice|letter|(?:final\s+)?answer)\b\W*)?", re.IGNORECASE)
_SEPARATED = re.compile(r"[\"'”]*(?:[.):,;\]]|\s+[-–—]\s|\s*(?:\n|$)|\s+(?:because|since|as)\b)")
_LINE_LABEL = re.compile(r"^\s*[(\[]?([A-Za-z])[.):\]]", re.MULTILINE)
_CHOSEN_BEFORE = re.compile(
    r"(?<!not )(?<!n['’]t )\b(?:pick|choose|chose|select|go\s+(?:with|for)|say|think|believe|guess|"
    r"it['’]s|it\s+is|that['’]s|must\s+be|would\s+be|should\s+be|therefore|thus|hence|so)\b\W*"
    rf"(?:that\s+)?(?:it(?:['’]s|\s+is)\b)?{_NAMED}",
    re.IGNORECASE,
)
_CALLED_OPTION = re.compile(r"\b(?:option|choice)\s+\W*$", re.IGNORECASE)
_JOINED = re.compile(
    r"[)\]\"'”.]*\s*(?:[/&]|,?\s*\b(?:and|or)\b|(,))\s*(?:option|choice)?\s*[(\[\"'“]*",
    re.IGNORECASE,
)
_END_OF_LIST = re.compile(r"[)\]\"'”]*\s*(?:$|[.,;\n]|and\b|or\b)")


class _Mention(NamedTuple):
    """A letter in a text that is no word and is not denied, with the text before and after it."""

    letter: str
    before: str
    after: str
    start: int


def parse_letter(text: str, option_count: int) -> int | None:
    """Parses the letter of an answer: the 0-based index of the option, or None."""
    text = _BOXED.sub(r"\nanswer: \1\n", _THOUGHTS.sub("", text))
    text = _STYLE.sub("", text).strip()
    mentions = list(_find_mentions(text))
    chosen = _choose_mention(text, mentions)
    if chosen is None or _is_one_of_several(text, mentions, chosen):
        return None
    letter = mentions[chosen].letter
    return LETTERS.index(letter) if letter in LETTERS[:option_count] else None


def _choose_mention(text: str, mentions: Sequence[_Mention]) -> int | None:
    """The number of the mention that is the answer, by the first rule that finds one."""
    stated = [
        n
        for n, mention in enumerate(mentions)
        if _STATED_BEFORE.search(mention.before) or _STATED_AFTER.match(mention.after)
    ]
    if stated:
        return stated[-1]
    labels = {match[1].upper() for match in _LINE_LABEL.finditer(text)}
    if (
        mentions
        and len(labels) < 2
        and _BEGINNING.fullmatch(text, 0, mentions[0].start)
        and _SEPARATED.match(mentions[0].after)
    ):
        return 0
    chosen = [
        n
        for n, mention in enumerate(mentions)
        if _CHOSEN_BEFORE.search(mention.before) and _SEPARATED.match(mention.after)
    ]
    if chosen:
        return chosen[-1]
    called = [
        n
        for n, mention in enumerate(mentions)
        if _CALLED_OPTION.search(mention.before)
        or (mention.before.endswith("(") and mention.after.startswith(")"))
    ]
    return called[-1] if len({mentions[n].letter for n in called}) == 1 else None


def _find_mentions(text: str) -> Iterator[_Mention]:
    for match in _LETTER.finditer(text):
        letter, after = match.group(), text[match.end() :]
        before = text[max(0, match.start() - 80) : match.start()]
        if letter.islower() and not _NO_WORD_FOLLOWS.match(after):
            continue
        if letter == "I" and re.match(r"\s+[a-z]", after):
            continue
        if letter == "A" and _WORD_FOLLOWS.match(after):
            continue
        if not (_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(after)):
            yield _Mention(letter.upper(), before, after, match.start())


def _is_one_of_several(text: str, mentions: Sequence[_Mention], chosen: int) -> bool:
    """Whether a mention is joined to the one before or after it: "A or B", "A, C"."""
    for first, second in pairwise(mentions):
        if mentions[chosen] not in (first, second) or first.letter == second.letter:
            continue
        joined = _JOINED.fullmatch(text, first.start + 1, second.start)
        if joined and (not joined[1] or _END_OF_LIST.match(second.after)):
            return True
    return False
