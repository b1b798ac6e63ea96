"""Model card (README.md) of an export: how it was made, its data, scores and limits.

It is Markdown with the YAML metadata of the hub. All text from files is escaped, and paths of this
machine are stripped.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal

import yaml

from zephyr import __version__
from zephyr.data.sources import is_embedded
from zephyr.data.table import SOURCES
from zephyr.errors import ZephyrError
from zephyr.recipe.data import MixtureSpec, SourceSpec
from zephyr.recipe.schema import Recipe
from zephyr.report.data_card import licence_lines
from zephyr.report.derivation import describe_derivation
from zephyr.report.results import Cell, ModelRow, read_results
from zephyr.report.tables import (
    GENERATED_NOTICE,
    column_label,
    format_number,
    format_signed,
    interval_text,
    verdict_text,
)
from zephyr.runs.store import Store

ExportFormat = Literal["peft", "merged", "gguf", "ollama"]

_LIBRARIES: Mapping[ExportFormat, str] = {
    "peft": "peft",
    "merged": "transformers",
    "gguf": "llama.cpp",
    "ollama": "llama.cpp",
}
_RELATIONS: Mapping[ExportFormat, str] = {
    "peft": "adapter",
    "merged": "finetune",
    "gguf": "quantized",
    "ollama": "quantized",
}


def model_card(
    store: Store,
    recipe: Recipe,
    name: str,
    fingerprint: str,
    *,
    export_format: ExportFormat,
    contents: str,
    notes: Sequence[str],
    base_hub_id: str | None,
    base_licence: str | None = None,
) -> str:
    """Renders the model card of the model with this fingerprint, as Markdown.

    `contents` describes the exported files, `notes` are caveats; `base_hub_id` and `base_licence`
    are its base model's, as far as they are known.
    """
    lineage = _ancestor_names(recipe, name)
    folders = _absolute_folders(recipe.spec())

    def printable(text: str) -> str:
        return _escape_markdown(_strip_folders(text, folders))

    mixtures = {m: recipe.data[m] for n in lineage for m in recipe.models[n].mixtures}
    row = _find_row(store, recipe, name, fingerprint)
    introduction = f"Made with Zephyr {__version__} by the recipe {_escape_markdown(recipe.name)}."
    reproduce_text = (
        f"With Zephyr {__version__} and this recipe, whose seed is {recipe.seed}, saved as"
        " `recipe.yaml` beside the files that it names:"
    )
    parts = [
        f"# {_escape_markdown(name)}",
        introduction + f" This folder holds {printable(contents)}.",
        "## How it was made",
        "\n".join(
            f"{n}. **{_escape_markdown(one)}**: "
            f"{printable(describe_derivation(recipe.models[one]))}"
            for n, one in enumerate(lineage, start=1)
        ),
        "## Data and licences",
        *_data_section(mixtures, recipe, lineage[0], base_hub_id, base_licence),
        "## Scores",
        *_scores_section(row, printable),
        "## Limits",
        "\n".join(
            f"- {line}"
            for line in _limits_section(recipe, mixtures, [printable(text) for text in notes])
        ),
        "## How to make it again",
        reproduce_text,
        _fence_code(_recipe_yaml(recipe), "yaml"),
        _fence_code(
            f"zephyr run recipe.yaml\nzephyr export {name} --recipe recipe.yaml --to "
            f"{export_format}"
            " --out FOLDER\n",
            "",
        ),
    ]
    return (
        f"{_yaml_header(recipe, lineage, mixtures, export_format, base_hub_id)}\n"
        + "\n\n".join(parts)
        + "\n"
    )


def _ancestor_names(recipe: Recipe, name: str) -> list[str]:
    """A model and all its ancestors, the root first."""
    parent = recipe.models[name].from_
    return [*(_ancestor_names(recipe, parent) if parent is not None else ()), name]


def _find_row(store: Store, recipe: Recipe, name: str, fingerprint: str) -> ModelRow | None:
    """The row of exactly this model in the results; None if they are of another run."""
    try:
        results = read_results(store, recipe.name)
    except ZephyrError:
        return None
    wanted = store.find(fingerprint).path
    return next((r for r in results.rows if r.model == name and r.node.run.path == wanted), None)


# -- YAML metadata --------------------------------------------------------------------------------


def _yaml_header(
    recipe: Recipe,
    lineage: Sequence[str],
    data: Mapping[str, MixtureSpec],
    export_format: ExportFormat,
    base_hub_id: str | None,
) -> str:
    is_from_scratch = _is_all_generated(recipe, data) and recipe.models[lineage[0]].base is None
    value: dict[str, Any] = (
        {"license": "apache-2.0"}
        if is_from_scratch
        else {"license": "other", "license_name": "see-data-and-licences"}
    )
    if base_hub_id is not None:
        value |= {"base_model": base_hub_id, "base_model_relation": _RELATIONS[export_format]}
    if is_from_scratch:
        value["language"] = ["en"]  # the language of other texts is not known
    if ids := list(dict.fromkeys(_hub_ids(recipe, data))):
        value["datasets"] = ids
    value["tags"] = _tags(recipe, lineage, export_format)
    value |= {"library_name": _LIBRARIES[export_format], "pipeline_tag": "text-generation"}
    return f"---\n{yaml.safe_dump(value, sort_keys=False, allow_unicode=True)}---\n"


def _is_all_generated(recipe: Recipe, data: Mapping[str, MixtureSpec]) -> bool:
    return all(is_embedded(s, recipe.origin) for m in data.values() for s in m.sources)


def _hub_ids(recipe: Recipe, data: Mapping[str, MixtureSpec]) -> Iterator[str]:
    for mixture in data.values():
        for source in mixture.sources:
            registered = SOURCES.get(source.name or "")
            if source.hub is not None:
                yield source.hub
            elif source.path is not None or is_embedded(source, recipe.origin):
                continue
            elif registered is not None and registered.hub is not None:
                yield registered.hub.id


def _tags(recipe: Recipe, lineage: Sequence[str], export_format: ExportFormat) -> list[str]:
    tags = ["zephyr", "tutor"]
    for model in (recipe.models[name] for name in lineage):
        if model.tune is not None:
            tags += ["sft", *(["lora"] if model.tune.lora != "none" else ())]
        if model.align is not None:
            tags += [model.align.loss, "lora"]
        if model.quantize is not None:
            tags.append(model.quantize.method)
    return list(dict.fromkeys([*tags, *(["gguf"] if export_format in ("gguf", "ollama") else ())]))


# -- sections -------------------------------------------------------------------------------------


def _data_section(
    data: Mapping[str, MixtureSpec],
    recipe: Recipe,
    first: str,
    base_hub_id: str | None,
    base_licence: str | None,
) -> Iterator[str]:
    if recipe.models[first].base is not None:
        origin = "a base model in a local folder"
        if base_hub_id is not None:
            origin = f"[{base_hub_id}](https://huggingface.co/{base_hub_id})"
        named = f" ({_escape_markdown(base_licence)})" if base_licence else ""
        yield f"It comes from {origin}, whose licence{named} holds for it too."
    for name, mixture in data.items():
        shown = mixture.model_copy(
            update={"sources": tuple(_printable_source(source) for source in mixture.sources)}
        )
        lines = "\n".join(licence_lines(shown, recipe.origin))
        yield f"**{_escape_markdown(name)}** ({mixture.kind}):\n\n{lines}"
    yield "This is no legal advice: the card of each source says what holds."


def _printable_source(source: SourceSpec) -> SourceSpec:
    """A source as it may be printed: without the folder of its path, and escaped."""
    if source.path is None:
        return source
    name = source.name or _escape_markdown(
        PurePosixPath(_strip_folders(source.path)).name.split(".")[0]
    )
    return source.model_construct(
        **{**dict(source), "path": _escape_markdown(_strip_folders(source.path)), "name": name}
    )


def _scores_section(row: ModelRow | None, printable: Callable[[str], str]) -> Iterator[str]:
    if row is None or not row.cells:
        yield "It has not been measured under the recipe as it was last run."
        return
    lines = [_score_row(cell, printable) for cell in row.cells if cell.estimate is not None]
    missing = [cell for cell in row.cells if cell.estimate is None]
    if lines:
        heads = ("metric", "value", "95 % interval", "n", f"against {row.parent}", "verdict")
        rows = [heads, ("---",) * len(heads), *lines]
        yield "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        yield (
            "Verdicts of primary metrics are corrected for their number in the recipe's table "
            "(Holm), those of secondary ones are by their own p-value; differences are paired by "
            "item, and have 95 % intervals."
        )
        yield "\n".join(
            f"- {_escape_markdown(column_label(cell.column))}: {printable(cell.protocol or '')}"
            for cell in row.cells
            if cell.estimate is not None
        )
    if missing:
        yield "\n".join(
            f"- {_escape_markdown(column_label(cell.column))} has no value: "
            f"{printable(cell.missing_reason or '')}"
            for cell in missing
        )


def _score_row(cell: Cell, printable: Callable[[str], str]) -> tuple[str, ...]:
    found, scale, difference = cell.estimate, cell.column.scale, cell.difference
    assert found is not None, "only cells with a value have a line"
    difference_text, verdict = "–", "–"
    if difference is not None and difference.estimate is not None:
        difference_text = (
            f"{format_signed(difference.estimate.value, scale)} "
            f"{interval_text(cell.column, difference.estimate)}"
        )
        verdict = verdict_text(cell.column, difference, difference.estimate.n)
    elif difference is not None:
        verdict = f"no difference ({printable(difference.missing_reason or '')})"
    value = format_number(found.value, scale)
    return (
        _escape_markdown(column_label(cell.column)),
        value,
        interval_text(cell.column, found),
        f"{found.n:,}",
        difference_text,
        verdict,
    )


def _limits_section(
    recipe: Recipe, data: Mapping[str, MixtureSpec], notes: Sequence[str]
) -> Iterator[str]:
    yield (
        "It is a small model: it can state what is wrong with confidence. Let nobody rely on an"
        " answer that was not checked."
    )
    yield "The scores are those of the model as Zephyr runs it, before this export."
    yield from notes
    for name, mixture in data.items():
        if mixture.clean == "report":
            yield (
                f"In {_escape_markdown(name)}, records that hold a question of the recipe's "
                "tasks were"
                " counted and not removed."
            )
    if recipe.origin == "embedded":
        yield GENERATED_NOTICE


def _recipe_yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(_without_folders(recipe.spec()), sort_keys=False, allow_unicode=True)


def _without_folders(value: Any) -> Any:
    """A value whose strings have no absolute folders."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return _strip_folders(value) if isinstance(value, str) else value


# -- text -----------------------------------------------------------------------------------------

_ABSOLUTE_PATH = re.compile(r"(?<![\w:/.\\~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;()]+){2,}")


def _strip_folders(text: str, folders: Collection[str] = ()) -> str:
    """Strips the folders from the absolute paths in a text.

    `folders` are known ones: the end of a path with a space can't be detected.
    """
    if _is_absolute(text):
        return PureWindowsPath(text).name or "folder"
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, "")
    return _ABSOLUTE_PATH.sub(lambda found: PureWindowsPath(found[0]).name, text)


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~")) or PureWindowsPath(text).is_absolute()


def _absolute_folders(value: Any) -> set[str]:
    """The folders, each with its trailing separator, of all absolute paths in a value."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return set().union(*map(_absolute_folders, inside))
    if not isinstance(value, str) or not _is_absolute(value):
        return set()
    return {value[: len(value) - len(PureWindowsPath(value).name)]} - {"", "/"}


def _escape_markdown(text: str) -> str:
    """Escapes Markdown, so that a text stays on its line."""
    one_line = " ".join(text.split())
    for mark in "\\`*_[]|#~$":
        one_line = one_line.replace(mark, f"\\{mark}")
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fence_code(text: str, language: str) -> str:
    """A fenced code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"
