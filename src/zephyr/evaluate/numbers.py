"""Number parsing: numbers in texts as people and models write them, in decimal notation.

Thousands may be grouped by commas (also 1,23,456), blanks of any width, apostrophes, LaTeX's `{,}`
and `\\,`, or full stops where a decimal comma or a second group follows; any other comma between
digits is a decimal comma. So 1,234 is 1234, 1.234 is 1.234, 3,5 is 3.5 and 0,125 is 0.125.
"""

import re
from decimal import Decimal

_THIN_BLANKS = "\u00a0\u2009\u202f"
_BLANKS = f" {_THIN_BLANKS}"
_GROUPED_BY_COMMAS = r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}"
_COMMA_GROUPS = re.compile(_GROUPED_BY_COMMAS)
LATEX_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}(?=\d)|\\[,;:!](?=\d{3}(?!\d)))")
"""LaTeX's separators within a number: `1{,}234` and `1\\,234`."""
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_MIXED_FRACTION = re.compile(r"(?<=\d)(?=\\[dt]?frac\{)")
_FRACTION = re.compile(r"(?<![\d/.,^])(?:(\d+) )?(\d+)[/\u2044](\d+)(?![\d/]|[.,]\d)")
FINAL_ANSWER_MARK = "####"
"""GSM8K's marker before the final answer."""
MINUS = "-−–"
"""Minus signs: hyphen, U+2212 and en dash."""
CURRENCY = r"\\?[$€£¥₹]"


def _number_pattern(blanks: str) -> str:
    """The pattern of an unsigned number whose thousands may be grouped by one of `blanks`."""
    return (
        rf"(?:(?:{_GROUPED_BY_COMMAS})(?!\d)(?:\.\d+)?"
        rf"|[1-9]\d{{0,2}}(?:[{blanks}'’]\d{{3}})+(?!\d)(?:[.,]\d+)?"
        r"|[1-9]\d{0,2}(?:(?:\.\d{3}){2,}(?!\d)(?:,\d+)?|(?:\.\d{3})+,\d+)"
        r"|(?<!\d,)\d+,\d+(?!\d|,\d)"
        r"|\d+(?:\.\d+)?|\.\d+)"
    )


NUMBER = _number_pattern(_BLANKS)
"""The pattern of an unsigned number in a text."""
NUMBER_IN_EQUATION = _number_pattern(_THIN_BLANKS)
"""The same between operators, where a plain blank separates two numbers ("Day 1 200 + 300")."""

_SIGNED = rf"(?:[{MINUS}]{CURRENCY}|{CURRENCY}[{MINUS}]|[{MINUS}]|{CURRENCY})?{NUMBER}"
_ANYWHERE = re.compile(rf"(?<!\^)(?<!\^\{{)(?:(?<![\w)\]]){_SIGNED}|(?<!\d){NUMBER})")
_AT_START = re.compile(rf"[ \t*]*(?:\\boxed\{{)?{_SIGNED}")


def normalize_number(text: str) -> str:
    """A number as `NUMBER` matches it, with digits and at most one decimal point."""
    digits = re.sub(f"[{_BLANKS}'’]", "", text)
    if "," in digits and "." in digits:
        group = "," if digits.rindex(".") > digits.rindex(",") else "."
        return digits.replace(group, "").replace(",", ".")
    if digits.count(".") > 1:
        return digits.replace(".", "")
    return digits.replace(",", "" if _COMMA_GROUPS.fullmatch(digits) else ".")


def normalize_latex(text: str) -> str:
    """Writes LaTeX's separators of thousands as commas, and its fractions as `1/2`."""
    text = _MIXED_FRACTION.sub(" ", LATEX_SEPARATOR.sub(",", text))
    return _LATEX_FRACTION.sub(r"\1/\2", text)


def last_number(text: str) -> Decimal | None:
    """The last number in a text, or None; fractions are divided, exponents don't count.

    A minus after a word, a number or a bracket is a subtraction or a range, not a sign.
    """
    text = normalize_latex(text)
    last = None
    for match in _ANYWHERE.finditer(text):
        last = match
    return None if last is None else _parse_at(text, last)


def number_after_mark(text: str) -> Decimal | None:
    """The number right after the last `####`, which may be bold or boxed; or None.

    Unlike `strict_match`, it is the last mark that counts, and 7.0 is 7.
    """
    _, mark, rest = normalize_latex(text).rpartition(FINAL_ANSWER_MARK)
    match = _AT_START.match(rest) if mark else None
    return None if match is None else _parse_at(rest, match)


def _parse_at(text: str, match: re.Match[str]) -> Decimal:
    number = re.search(NUMBER, match.group())
    assert number is not None, "the pattern of a signed number holds one"
    is_negative = any(sign in match.group()[: number.start()] for sign in MINUS)
    value = Decimal(normalize_number(number.group()))
    for fraction in _FRACTION.finditer(text):
        if fraction.start() <= match.end() - 1 < fraction.end() and int(fraction[3]):
            value = Decimal(fraction[1] or 0) + Decimal(fraction[2]) / Decimal(fraction[3])
            is_negative = (
                re.search(rf"(?<![\w)\]])[{MINUS}]$", text[: fraction.start()]) is not None
            )
    return -value if is_negative else value
