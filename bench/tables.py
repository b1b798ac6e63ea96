"""Figures and tables as the pages of benchmarks show them."""

from collections.abc import Callable

from bench.figures import Spread


def cell(found: Spread) -> str:
    """The median, and the least and the most in brackets where they differ from it."""
    form = _form(found.median)
    if found.least == found.most:
        return form(found.median)
    return f"{form(found.median)} ({form(found.least)} – {form(found.most)})"


def _form(size: float) -> Callable[[float], str]:
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return lambda value: f"{value:,.{digits}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    return line(head) + "|" + " --- |" * len(head) + "\n" + "".join(map(line, rows))
