"""Equation checker: finds the equations in a text and verifies them with exact fractions.

An equation is the longest expression before an equals sign and the longest one after it, in one
line. `12 + 30 = 42 pens` is one, `a = b = c` two. At least one of its sides must have an operator;
an equation that a text repeats is counted once.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from zephyr.evaluate.normalize_arithmetic import normalize_lines
from zephyr.evaluate.numbers import NUMBER_IN_EQUATION, normalize_number

EquationOutcome = Literal["right", "wrong", "not checkable"]


class EquationCounts(NamedTuple):
    """Counts of the equations of a text that are right, wrong, or not checkable."""

    right: int
    wrong: int
    not_checkable: int


class _Token(NamedTuple):
    kind: str
    text: str
    space_before: bool
    """Whether whitespace precedes it."""
    start: int = 0
    end: int = 0


class _Expression(NamedTuple):
    """One side of an equation; `decimals` is set if it is a plain number."""

    value: Fraction
    operators: str
    units: frozenset[str]
    decimals: int | None
    is_percent: bool
    key: str
    start: int
    end: int


class _CheckedEquation(NamedTuple):
    """A checked equation: its outcome, a key to count it once, and its position in the line."""

    outcome: EquationOutcome
    key: str
    start: int = 0
    end: int = 0


_TOKEN = re.compile(
    r"(?P<space>\s+)"
    rf"|(?P<number>{NUMBER_IN_EQUATION})"
    r"|(?P<relation>={1,2}|≈)"
    r"|(?P<power>\^|²|³|√|(?<=\d)!(?=\s*[-+*/=)]))"
    r"|(?P<times>[xX](?=\s*[$€£(]?\s*[\d.]))"
    r"|(?P<operator>[-+*/×·÷−–])"
    r"|(?P<open>\()|(?P<close>\))|(?P<percent>%)|(?P<money>[$€£])"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)"
    r"|(?P<other>.)"
)
_SIGNS = {"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "−": "-", "–": "-"}
_BINDING_WORDS = {"times", "plus", "minus", "over", "than", "half", "twice", "double", "triple"}
"""Words that make the number after them a part of a longer expression."""
_FRACTION_WORDS = {"half", "third", "thirds", "quarter", "quarters", "fifth", "tenth"}
MAX_LENGTH = 100
"""Maximum tokens of an expression, and maximum digits of a number."""
_END_KINDS = ("number", "close", "percent", "money")
"""Kinds of tokens that may end an expression (except units)."""
_UNIT_FAMILIES = (
    {"second", "sec", "minute", "min", "hour", "hr", "day", "week", "month", "year", "decade"},
    {"cent", "penny", "pennie", "dime", "quarter", "dollar", "euro", "pound"},
    {"mm", "cm", "km", "metre", "meter", "kilometre", "kilometer", "inch", "inche", "foot", "feet"}
    | {"yard", "mile"},
    {"mg", "kg", "gram", "kilogram", "ounce", "oz", "pound", "lb", "ton"},
    {"ml", "liter", "litre", "milliliter", "millilitre", "cup", "pint", "quart", "gallon"},
)
"""Families of units that can be converted into one another, in the singular."""


def check_equations(text: str) -> EquationCounts:
    """Checks every equation of a text, and counts the outcomes.

    It reads + - * x × · / ÷ and their words between numbers, brackets, 1,234, $5, 20% (0.2; "of"
    after it multiplies), units after numbers ("12 miles/hour"), and GSM8K's `<<6*7=42>>`. A result
    with decimals may be rounded or truncated; with `≈`, so may whole numbers. A side that is only a
    percentage may be meant as the plain number.

    An equation that can't be computed is not checkable, never wrong: with a variable, a power, a
    division by zero, a number that belongs to the words before it ("half of 6 + 2"), a label ("3
    nights = 3 x 50"), or sides that differ and have two units of one kind (minutes and hours).
    """
    outcome_by_key: dict[str, EquationOutcome] = {}
    for line in normalize_lines(text):
        outcome_by_key |= {
            equation.key: equation.outcome for equation in _parse_equations(line.text)
        }
    outcomes = list(outcome_by_key.values())
    return EquationCounts(*(outcomes.count(name) for name in ("right", "wrong", "not checkable")))


def find_wrong_equations(text: str) -> list[tuple[int, int]]:
    """The character offsets (start, end) of wrong equations, without units after the result."""
    return sorted(
        (line.offsets[equation.start], line.offsets[equation.end - 1] + 1)
        for line in normalize_lines(text)
        for equation in _parse_equations(line.text)
        if equation.outcome == "wrong"
    )


def _parse_equations(line: str) -> Iterator[_CheckedEquation]:
    """Parses and checks the equations of one line."""
    sides: list[list[_Token]] = [[]]
    relations: list[str] = []
    space_before = False
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup or ""
        if kind == "relation":
            relations.append(match.group())
            sides.append([])
        elif kind != "space":
            kind = "operator" if kind == "times" else kind
            sign = _SIGNS.get(match.group(), match.group())
            sides[-1].append(_Token(kind, sign, space_before, match.start(), match.end()))
        space_before = kind == "space"
    for at, relation in enumerate(relations):
        left, right = _parse_suffix(sides[at]), _parse_prefix(sides[at + 1])
        if left is None or right is None:
            if all(any(token.kind == "number" for token in side) for side in sides[at : at + 2]):
                equation_text = "".join(token.text for side in sides[at : at + 2] for token in side)
                yield _CheckedEquation("not checkable", f"{at} {equation_text}")
        elif left.operators or right.operators:
            outcome = _equation_outcome(left, right, relation == "≈")
            yield _CheckedEquation(outcome, f"{left.key}={right.key}", left.start, right.end)


def _equation_outcome(
    left: _Expression, right: _Expression, is_approximate: bool
) -> EquationOutcome:
    if _matches_value(right, left.value, is_approximate) or _matches_value(
        left, right.value, is_approximate
    ):
        return "right"
    units = left.units | right.units
    is_label = not left.operators and bool(left.units)
    if is_label or any(len(units & family) > 1 for family in _UNIT_FAMILIES):
        return "not checkable"
    return "wrong"


def _matches_value(expression: _Expression, value: Fraction, is_approximate: bool) -> bool:
    """Whether the number on a side equals a value, within rounding."""
    is_plain_number = expression.decimals is not None
    stated_value = (
        expression.value * 100 if is_plain_number and expression.is_percent else expression.value
    )
    values = (value, value * 100) if is_plain_number and expression.is_percent else (value,)
    if stated_value in values:
        return True
    if expression.decimals is None or (expression.decimals == 0 and not is_approximate):
        return False
    step = Fraction(1, 10**expression.decimals)
    return any(
        abs(exact - stated_value) <= step / 2 or 0 <= abs(exact) - abs(stated_value) < step
        for exact in values
        if exact * stated_value >= 0
    )


def _parse_suffix(tokens: Sequence[_Token]) -> _Expression | None:
    """Parses the longest expression at the end, unless the token before belongs to it."""
    for start in range(max(0, len(tokens) - 2 * MAX_LENGTH), len(tokens)):
        parser = _ExpressionParser(tokens, start)
        expression = parser.parse()
        if expression is not None and parser.position == len(tokens):
            return None if _is_part_of_phrase(tokens, start) else expression
    return None


def _is_part_of_phrase(tokens: Sequence[_Token], start: int) -> bool:
    """Whether the tokens before an expression make it a part of a longer phrase."""
    if start == 0:
        return False
    before, number = tokens[start - 1], tokens[start]
    second_before = tokens[start - 2] if start > 1 else _Token("other", "", False)
    word = before.text.lower()
    if word == "of":
        is_share = (
            second_before.kind in ("number", "percent")
            or second_before.text.lower() in _FRACTION_WORDS
        )
        return is_share or second_before.text.lower() in _BINDING_WORDS
    if word == "by":
        return second_before.text.lower() in ("divided", "multiplied")
    if before.kind == "word":
        return (len(word) == 1 and word != "a") or word in _BINDING_WORDS
    if before.text in (":", "."):
        return not number.space_before and second_before.kind == "number"
    return before.kind in ("operator", "number", "open", "close", "power", "percent")


def _parse_prefix(tokens: Sequence[_Token]) -> _Expression | None:
    """Parses the longest expression at the beginning, unless the next token belongs to it."""
    parser = _ExpressionParser(tokens, 0)
    expression = parser.parse()
    rest = tokens[parser.position :]
    if expression is None or not rest:
        return expression
    first = rest[0]
    if first.kind == "word":
        return None if len(first.text) == 1 and not first.space_before else expression
    if first.kind == "operator" and len(rest) > 1:
        second = rest[1]
        is_variable = second.kind == "word" and len(second.text) == 1 and second.text != "a"
        return None if is_variable or not second.space_before else expression
    return None if first.kind in ("number", "open", "power") else expression


class _ExpressionParser:
    """Recursive-descent parser of arithmetic: additions of products of numbers and brackets."""

    def __init__(self, tokens: Sequence[_Token], at: int) -> None:
        self.tokens, self.start, self.position = tokens, at, at
        self.operators = ""
        self.units: set[str] = set()
        self.decimals = 0
        self.is_percent = False
        self.key = ""

    def parse(self) -> _Expression | None:
        try:
            value = self._parse_sum()
        except (_NotAnExpression, ZeroDivisionError):
            return None
        decimals = None if self.operators else self.decimals
        units = frozenset(self.units)
        used = self.tokens[self.start : self.position]
        end = max(token.end for token in used if token.kind in _END_KINDS)
        return _Expression(
            value, self.operators, units, decimals, self.is_percent, self.key, used[0].start, end
        )

    def _parse_sum(self) -> Fraction:
        value = self._parse_product()
        while (operator := self._parse_operator("+-")) is not None:
            other = self._parse_product()
            value = value + other if operator == "+" else value - other
        return value

    def _parse_product(self) -> Fraction:
        value = self._parse_factor()
        while (operator := self._parse_operator("*/")) is not None:
            other = self._parse_factor()
            value = value * other if operator == "*" else value / other
        return value

    def _parse_operator(self, allowed: str) -> str | None:
        """Parses the next operator (after units), if a number may follow it; else None."""
        at = self._index_after_units()
        if at >= len(self.tokens) or self.tokens[at].kind != "operator":
            return None
        sign = self.tokens[at].text
        if sign not in allowed or not self._is_number_next(at + 1):
            return None
        self._skip_units(at)
        self.position = at + 1
        self.operators += sign
        self.key += sign
        return sign

    def _is_number_next(self, at: int) -> bool:
        kinds = [token.kind for token in self.tokens[at : at + 3]]
        while kinds and kinds[0] in ("money", "operator"):
            if kinds[0] == "operator" and (self.tokens[at].text != "-" or len(kinds) < 2):
                return False
            kinds.pop(0)
        return bool(kinds) and kinds[0] in ("number", "open")

    def _parse_factor(self) -> Fraction:
        if self.position - self.start > MAX_LENGTH:
            raise _NotAnExpression
        sign = 1
        if self._current_kind() == "operator" and self.tokens[self.position].text == "-":
            following = self.tokens[self.position + 1 : self.position + 2]
            if not following or following[0].space_before:
                raise _NotAnExpression
            sign, self.position, self.key = -1, self.position + 1, self.key + "-"
        if self._current_kind() == "money":
            self.units.add("dollar")
            self.position += 1
        if self._current_kind() == "open":
            self.position, self.key = self.position + 1, self.key + "("
            value = self._parse_sum()
            self._skip_units(self._index_after_units())
            if self._current_kind() != "close":
                raise _NotAnExpression
            self.position, self.key = self.position + 1, self.key + ")"
        elif self._current_kind() == "number":
            value = self._parse_number()
        else:
            raise _NotAnExpression
        if self._current_kind() == "money":  # 15$, or the end of a formula
            self.position += 1
        if self._current_kind() == "percent":
            value, self.is_percent = value / 100, True
            self.key += "%"
            self.position += 1
        end = self._index_after_units()
        if end == len(self.tokens):
            self._skip_units(end)
        else:
            self._record_units(end)
        return sign * value

    def _parse_number(self) -> Fraction:
        text = normalize_number(self.tokens[self.position].text)
        if len(text) > MAX_LENGTH:
            raise _NotAnExpression
        self.decimals = len(text.partition(".")[2])
        self.key += text
        self.position += 1
        return Fraction(text)

    def _index_after_units(self) -> int:
        """The index after a unit: at most three words (none a single letter), maybe "/ word"."""
        at = self.position
        while at < len(self.tokens) and at - self.position < 3 and self._is_word(at):
            at += 1
        slash = at < len(self.tokens) and self.tokens[at].text == "/"
        return at + 2 if slash and self._is_word(at + 1) else at

    def _is_word(self, at: int) -> bool:
        token = self.tokens[at] if at < len(self.tokens) else None
        return token is not None and token.kind == "word" and len(token.text) > 1

    def _record_units(self, end: int) -> None:
        """Records the words up to an index as units, without their plural."""
        words = [token.text.lower() for token in self.tokens[self.position : end]]
        self.units |= {word.removesuffix("s") for word in words}

    def _skip_units(self, end: int) -> None:
        self._record_units(end)
        self.position = end

    def _current_kind(self) -> str:
        return self.tokens[self.position].kind if self.position < len(self.tokens) else ""


class _NotAnExpression(Exception):
    """Parse error: there is no expression at this position."""
