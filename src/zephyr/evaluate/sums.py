"""The arithmetic that a text writes down, computed again with exact fractions.

An equation is what stands on both sides of an equals sign in one line: the longest expression that
ends there, and the longest one that begins after it. `12 + 30 = 42 pens` is one, `a = b = c` two.
Only what has an operator on one of its sides is an equation; each is counted once, however often a
text repeats it.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from zephyr.evaluate.spoken import lines

Outcome = Literal["right", "wrong", "not checkable"]


class Sums(NamedTuple):
    """How many of a text's equations are right, wrong, or can't be computed."""

    right: int
    wrong: int
    not_checkable: int


class _Token(NamedTuple):
    kind: str
    text: str
    loose: bool
    """Whether a blank stands before it."""
    start: int = 0
    end: int = 0


class _Side(NamedTuple):
    """One side of an equation; `rounded` is its number of decimals, if it is a plain number."""

    value: Fraction
    operators: str
    units: frozenset[str]
    rounded: int | None
    percent: bool
    key: str
    start: int
    end: int


class _Equation(NamedTuple):
    """What comes of an equation, what it says, and where it stands in its line."""

    outcome: Outcome
    key: str
    start: int = 0
    end: int = 0


_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<relation>={1,2}|≈)"
    r"|(?P<power>\^|²|³|√|(?<=\d)!(?=\s*[-+*/=)]))"
    r"|(?P<times>[xX](?=\s*[$€£(]?\s*[\d.]))"
    r"|(?P<operator>[-+*/×·÷−–])"
    r"|(?P<open>\()|(?P<close>\))|(?P<percent>%)|(?P<money>[$€£])"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)"
    r"|(?P<other>.)"
)
_SIGNS = {"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "−": "-", "–": "-"}
_REACHES_BACK = {"times", "plus", "minus", "over", "than", "half", "twice", "double", "triple"}
"""Words before a number that make it a part of something else."""
_SHARES = {"half", "third", "thirds", "quarter", "quarters", "fifth", "tenth"}
LONGEST = 100
"""Signs of an expression, and digits of a number, beyond which neither is read."""
_ENDS = ("number", "close", "percent", "money")
"""Kinds of tokens that may end an expression, units left out."""
_FAMILIES = (
    {"second", "sec", "minute", "min", "hour", "hr", "day", "week", "month", "year", "decade"},
    {"cent", "penny", "pennie", "dime", "quarter", "dollar", "euro", "pound"},
    {"mm", "cm", "km", "metre", "meter", "kilometre", "kilometer", "inch", "inche", "foot", "feet"}
    | {"yard", "mile"},
    {"mg", "kg", "gram", "kilogram", "ounce", "oz", "pound", "lb", "ton"},
    {"ml", "liter", "litre", "milliliter", "millilitre", "cup", "pint", "quart", "gallon"},
)
"""Units that turn into one another, without their plural."""


def check_sums(text: str) -> Sums:
    """Computes every equation of a text.

    It reads + - * x × · / ÷ and their words between numbers, brackets, 1,234, $5, 20% (0.2; "of"
    after it multiplies), units after numbers ("12 miles/hour"), and GSM8K's `<<6*7=42>>`. A result
    with decimals may be rounded or cut off there; `≈` also allows whole numbers. A percentage that
    is all of a side may be meant as the plain number.

    What can't be computed is not checkable, and never wrong: a letter in it, a power, a division by
    zero, a number that words before it belong to ("half of 6 + 2"), a label ("3 nights = 3 x 50")
    and sides that differ where two units of one kind (minutes and hours) stand in them.
    """
    found: dict[str, Outcome] = {}
    for line in lines(text):
        found |= {equation.key: equation.outcome for equation in _equations(line.text)}
    outcomes = list(found.values())
    return Sums(*(outcomes.count(name) for name in ("right", "wrong", "not checkable")))


def wrong_places(text: str) -> list[tuple[int, int]]:
    """Where each wrong equation begins and ends, in characters, units after its result left out."""
    return sorted(
        (line.places[equation.start], line.places[equation.end - 1] + 1)
        for line in lines(text)
        for equation in _equations(line.text)
        if equation.outcome == "wrong"
    )


def _equations(line: str) -> Iterator[_Equation]:
    """The equations of one line."""
    sides: list[list[_Token]] = [[]]
    relations: list[str] = []
    loose = False
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup or ""
        if kind == "relation":
            relations.append(match.group())
            sides.append([])
        elif kind != "space":
            kind = "operator" if kind == "times" else kind
            sign = _SIGNS.get(match.group(), match.group())
            sides[-1].append(_Token(kind, sign, loose, match.start(), match.end()))
        loose = kind == "space"
    for at, relation in enumerate(relations):
        left, right = _ending(sides[at]), _beginning(sides[at + 1])
        if left is None or right is None:
            if all(any(token.kind == "number" for token in side) for side in sides[at : at + 2]):
                said = "".join(token.text for side in sides[at : at + 2] for token in side)
                yield _Equation("not checkable", f"{at} {said}")
        elif left.operators or right.operators:
            outcome = _judge(left, right, relation == "≈")
            yield _Equation(outcome, f"{left.key}={right.key}", left.start, right.end)


def _judge(left: _Side, right: _Side, about: bool) -> Outcome:
    if _tells(right, left.value, about) or _tells(left, right.value, about):
        return "right"
    units = left.units | right.units
    label = not left.operators and bool(left.units)
    if label or any(len(units & family) > 1 for family in _FAMILIES):
        return "not checkable"
    return "wrong"


def _tells(side: _Side, value: Fraction, about: bool) -> bool:
    """Whether what is written on a side may stand for a value."""
    plain = side.rounded is not None
    written = side.value * 100 if plain and side.percent else side.value
    values = (value, value * 100) if plain and side.percent else (value,)
    if written in values:
        return True
    if side.rounded is None or (side.rounded == 0 and not about):
        return False
    step = Fraction(1, 10**side.rounded)
    return any(
        abs(exact - written) <= step / 2 or 0 <= abs(exact) - abs(written) < step
        for exact in values
        if exact * written >= 0
    )


def _ending(tokens: Sequence[_Token]) -> _Side | None:
    """The longest expression at the end, if nothing before it belongs to it."""
    for start in range(max(0, len(tokens) - 2 * LONGEST), len(tokens)):
        parsed = _Parser(tokens, start)
        side = parsed.side()
        if side is not None and parsed.at == len(tokens):
            return None if _belongs(tokens, start) else side
    return None


def _belongs(tokens: Sequence[_Token], start: int) -> bool:
    """Whether what stands before a place makes the expression there a part of something else."""
    if start == 0:
        return False
    before, number = tokens[start - 1], tokens[start]
    further = tokens[start - 2] if start > 1 else _Token("other", "", False)
    word = before.text.lower()
    if word == "of":
        share = further.kind in ("number", "percent") or further.text.lower() in _SHARES
        return share or further.text.lower() in _REACHES_BACK
    if word == "by":
        return further.text.lower() in ("divided", "multiplied")
    if before.kind == "word":
        return (len(word) == 1 and word != "a") or word in _REACHES_BACK
    if before.text in (":", "."):
        return not number.loose and further.kind == "number"
    return before.kind in ("operator", "number", "open", "close", "power", "percent")


def _beginning(tokens: Sequence[_Token]) -> _Side | None:
    """The longest expression at the beginning, if nothing after it belongs to it."""
    parsed = _Parser(tokens, 0)
    side = parsed.side()
    rest = tokens[parsed.at :]
    if side is None or not rest:
        return side
    first = rest[0]
    if first.kind == "word":
        return None if len(first.text) == 1 and not first.loose else side
    if first.kind == "operator" and len(rest) > 1:
        second = rest[1]
        variable = second.kind == "word" and len(second.text) == 1 and second.text != "a"
        return None if variable or not second.loose else side
    return None if first.kind in ("number", "open", "power") else side


class _Parser:
    """An expression read from a place on: sums of products of numbers and brackets."""

    def __init__(self, tokens: Sequence[_Token], at: int) -> None:
        self.tokens, self.first, self.at = tokens, at, at
        self.operators = ""
        self.units: set[str] = set()
        self.decimals = 0
        self.percent = False
        self.key = ""

    def side(self) -> _Side | None:
        try:
            value = self._sum()
        except (_NoNumber, ZeroDivisionError):
            return None
        plain = None if self.operators else self.decimals
        units = frozenset(self.units)
        used = self.tokens[self.first : self.at]
        end = max(token.end for token in used if token.kind in _ENDS)
        return _Side(
            value, self.operators, units, plain, self.percent, self.key, used[0].start, end
        )

    def _sum(self) -> Fraction:
        value = self._product()
        while (operator := self._operator("+-")) is not None:
            other = self._product()
            value = value + other if operator == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while (operator := self._operator("*/")) is not None:
            other = self._factor()
            value = value * other if operator == "*" else value / other
        return value

    def _operator(self, allowed: str) -> str | None:
        """The operator that comes next, units before it skipped, if a number may follow it."""
        at = self._after_units()
        if at >= len(self.tokens) or self.tokens[at].kind != "operator":
            return None
        sign = self.tokens[at].text
        if sign not in allowed or not self._number_follows(at + 1):
            return None
        self._skip(at)
        self.at = at + 1
        self.operators += sign
        self.key += sign
        return sign

    def _number_follows(self, at: int) -> bool:
        kinds = [token.kind for token in self.tokens[at : at + 3]]
        while kinds and kinds[0] in ("money", "operator"):
            if kinds[0] == "operator" and (self.tokens[at].text != "-" or len(kinds) < 2):
                return False
            kinds.pop(0)
        return bool(kinds) and kinds[0] in ("number", "open")

    def _factor(self) -> Fraction:
        if self.at - self.first > LONGEST:
            raise _NoNumber
        sign = 1
        if self._kind() == "operator" and self.tokens[self.at].text == "-":
            following = self.tokens[self.at + 1 : self.at + 2]
            if not following or following[0].loose:
                raise _NoNumber
            sign, self.at, self.key = -1, self.at + 1, self.key + "-"
        if self._kind() == "money":
            self.units.add("dollar")
            self.at += 1
        if self._kind() == "open":
            self.at, self.key = self.at + 1, self.key + "("
            value = self._sum()
            self._skip(self._after_units())
            if self._kind() != "close":
                raise _NoNumber
            self.at, self.key = self.at + 1, self.key + ")"
        elif self._kind() == "number":
            value = self._number()
        else:
            raise _NoNumber
        if self._kind() == "money":  # 15$, or the end of a formula
            self.at += 1
        if self._kind() == "percent":
            value, self.percent = value / 100, True
            self.key += "%"
            self.at += 1
        end = self._after_units()
        if end == len(self.tokens):
            self._skip(end)
        else:
            self._note(end)
        return sign * value

    def _number(self) -> Fraction:
        text = self.tokens[self.at].text.replace(",", "")
        if len(text) > LONGEST:
            raise _NoNumber
        self.decimals = len(text.partition(".")[2])
        self.key += text
        self.at += 1
        return Fraction(text)

    def _after_units(self) -> int:
        """The place after at most three words, of which none is a single letter, and "per" one."""
        at = self.at
        while at < len(self.tokens) and at - self.at < 3 and self._is_word(at):
            at += 1
        slash = at < len(self.tokens) and self.tokens[at].text == "/"
        return at + 2 if slash and self._is_word(at + 1) else at

    def _is_word(self, at: int) -> bool:
        token = self.tokens[at] if at < len(self.tokens) else None
        return token is not None and token.kind == "word" and len(token.text) > 1

    def _note(self, end: int) -> None:
        """Remembers the words up to a place, without their plural."""
        words = [token.text.lower() for token in self.tokens[self.at : end]]
        self.units |= {word.removesuffix("s") for word in words}

    def _skip(self, end: int) -> None:
        self._note(end)
        self.at = end

    def _kind(self) -> str:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""


class _NoNumber(Exception):
    """There is no expression here."""
