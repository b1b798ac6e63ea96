"""Data card of a mixture (Markdown): its sources, row counts, tokens and licenses."""

from collections.abc import Mapping
from typing import Any

from zephyr.data.licences import licence_warnings
from zephyr.data.sources import is_embedded, source_label
from zephyr.data.table import SOURCES
from zephyr.recipe.data import MixtureSpec

_COUNTS = ("seen", "unreadable", "left_out", "duplicates", "contaminated", "near_duplicates")
_SIZE_COLUMNS = ("capped", "kept", "held_out", "characters")


def data_card(
    name: str,
    mixture: MixtureSpec,
    manifest: Mapping[str, Any],
    tokens: Mapping[str, Mapping[str, int]],
    origin: str | None,
) -> str:
    """Renders the data card of a built mixture, as Markdown.

    `tokens` are the token counts of each source for a model trained on the mixture, if any;
    `origin` is the recipe's.
    """
    verb = "removed" if mixture.clean == "remove" else "kept, and only counted"
    summary = (
        f"Records of kind {mixture.kind}, drawn with seed {manifest['seed']}; content"
        f" {manifest['content']}. What a source repeats, what holds a question of the recipe's"
        f" tasks (runs of {manifest['ngram']} words), and near-duplicates are {verb}."
    )
    lines = [
        f"# Data card: {name}",
        "",
        summary,
        "",
        "## What became of the rows",
        "",
        *_markdown_table(
            ("source", *_COUNTS, *_SIZE_COLUMNS),
            [
                (source, *(_format_count(row[key]) for key in (*_COUNTS, *_SIZE_COLUMNS)))
                for source, row in (*manifest["sources"].items(), ("all", manifest["totals"]))
            ],
        ),
        *_bullets(_reason_lines(manifest["sources"])),
        *_bullets(account_lines(manifest)),
    ]
    if tokens:
        keys = (
            *("examples", "overlong", "cut", "cut_messages", "cut_tokens"),
            *("tokens", "supervised_tokens"),
        )
        rows = [(s, *(_format_count(row.get(key, 0)) for key in keys)) for s, row in tokens.items()]
        lines += ["", "## Tokens", "", *_markdown_table(("source", *keys), rows)]
    return "\n".join(
        [*lines, "", "## Sources and licences", "", *licence_lines(mixture, origin), ""]
    )


def licence_lines(mixture: MixtureSpec, origin: str | None) -> list[str]:
    """Lines of a card with the origin, the license and the license warnings of each source."""
    lines = []
    for source in mixture.sources:
        registered = SOURCES.get(source.name or "")
        if is_embedded(source, origin):
            lines.append(f"- **{source_label(source)}**: made by Zephyr.")
            continue
        location = source.hub or source.path
        if registered is None:
            lines.append(
                f"- **{source_label(source)}**: {location}; its licence is not known to Zephyr."
            )
            continue
        if location is None and registered.hub is not None:
            location = f"[{registered.hub.id}]({registered.hub.card_url})"
        uncertainty = registered.uncertain.get("licence")
        licence = f"{registered.licence} ({uncertainty})" if uncertainty else registered.licence
        lines.append(f"- **{registered.name}**: {location}; licence: {licence}.")
        lines += [f"  - {warning}" for warning in licence_warnings(registered)]
    return lines


def account_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Lines with the columns that were not read, and the answers on both sides of the split.

    The manifest of an earlier version has neither.
    """
    lines = []
    for source, columns in manifest.get("unused_columns", {}).items():
        listed = [f"{c} ({n:,} rows)" if n is not None else c for c, n in columns.items()]
        if listed:
            lines.append(f"{source}: columns that were not used: {', '.join(listed)}")
    shared = manifest.get("shared_answers", {})
    if shared.get("records"):
        roles = ", ".join(f"{count:,} {role}" for role, count in shared["answers"].items())
        lines.append(
            f"{shared['records']:,} of {shared['holdout']:,} held-out records have an answer that"
            f" is trained on too ({roles}): hold-out scores may be biased by it"
        )
    return lines


def _reason_lines(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines with the reasons why rows were unreadable or skipped."""
    return [
        f"{source}: {count:,} x {reason}"
        for source, row in sources.items()
        for key in ("unreadable", "left_out")
        for reason, count in row[key].items()
    ]


def _bullets(lines: list[str]) -> list[str]:
    return ["", *(f"- {line}" for line in lines)] if lines else []


def _format_count(value: int | Mapping[str, int]) -> str:
    return f"{value if isinstance(value, int) else sum(value.values()):,}"


def _markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    titles = tuple(name.replace("_", " ") for name in head)
    return [line(titles), "|" + " --- |" * len(head), *map(line, rows)]
