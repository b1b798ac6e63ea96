"""The model card of an export: how a model was made, of what, what it scored, and its limits.

It is Markdown with the header that the hub reads. Whatever comes from files is escaped, and no path
of the machine on which it was made stands in it.
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
from zephyr.report.card import licences
from zephyr.report.ledger import Cell, Row, done, read_ledger
from zephyr.report.tables import GENERATED, interval, label, number, said, signed
from zephyr.runs.store import Store

Form = Literal["peft", "merged", "gguf", "ollama"]

_LIBRARIES: Mapping[Form, str] = {
    "peft": "peft",
    "merged": "transformers",
    "gguf": "llama.cpp",
    "ollama": "llama.cpp",
}
_RELATIONS: Mapping[Form, str] = {
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
    form: Form,
    what: str,
    said: Sequence[str],
    hub: str | None,
) -> str:
    """The card of a model with this fingerprint.

    `what` is what was exported, `said` what must be said of that; `hub` is the id of the base.
    """
    chain = _chain(recipe, name)
    folders = _folders(recipe.spec())

    def say(text: str) -> str:
        return _escaped(_bare(text, folders))

    known = {m: recipe.data[m] for n in chain for m in recipe.models[n].mixtures}
    row = _row(store, recipe, name, fingerprint)
    by = f"Made with Zephyr {__version__} by the recipe {_escaped(recipe.name)}."
    again = (
        f"With Zephyr {__version__} and this recipe, whose seed is {recipe.seed}, saved as"
        " `recipe.yaml` beside the files that it names:"
    )
    whole = [
        f"# {_escaped(name)}",
        by + f" This folder holds {say(what)}.",
        "## How it was made",
        "\n".join(
            f"{n}. **{_escaped(one)}**: {say(done(recipe.models[one]))}"
            for n, one in enumerate(chain, start=1)
        ),
        "## Data and licences",
        *_data(known, recipe, chain[0], hub),
        "## Scores",
        *_scores(row, say),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(recipe, known, [say(text) for text in said])),
        "## How to make it again",
        again,
        _fenced(_recipe_yaml(recipe), "yaml"),
        _fenced(
            f"zephyr run recipe.yaml\nzephyr export {name} --recipe recipe.yaml --to {form}"
            " --out FOLDER\n",
            "",
        ),
    ]
    return f"{_header(recipe, chain, known, form, hub)}\n" + "\n\n".join(whole) + "\n"


def _chain(recipe: Recipe, name: str) -> list[str]:
    """A model and all that it comes from, the first of them first."""
    parent = recipe.models[name].from_
    return [*(_chain(recipe, parent) if parent is not None else ()), name]


def _row(store: Store, recipe: Recipe, name: str, fingerprint: str) -> Row | None:
    """What the ledger says of the very model; None where it speaks of another of its name."""
    try:
        ledger = read_ledger(store, recipe.name)
    except ZephyrError:
        return None
    wanted = store.find(fingerprint).path
    return next((r for r in ledger.rows if r.model == name and r.entry.run.path == wanted), None)


# -- the header -----------------------------------------------------------------------------------


def _header(
    recipe: Recipe,
    chain: Sequence[str],
    data: Mapping[str, MixtureSpec],
    form: Form,
    hub: str | None,
) -> str:
    made_here = _is_all_generated(recipe, data) and recipe.models[chain[0]].base is None
    value: dict[str, Any] = (
        {"license": "apache-2.0"}
        if made_here
        else {"license": "other", "license_name": "see-data-and-licences"}
    )
    if hub is not None:
        value |= {"base_model": hub, "base_model_relation": _RELATIONS[form]}
    if made_here:
        value["language"] = ["en"]  # of other texts nobody has said it
    if ids := list(dict.fromkeys(_hub_ids(recipe, data))):
        value["datasets"] = ids
    value["tags"] = _tags(recipe, chain, form)
    value |= {"library_name": _LIBRARIES[form], "pipeline_tag": "text-generation"}
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


def _tags(recipe: Recipe, chain: Sequence[str], form: Form) -> list[str]:
    tags = ["zephyr", "tutor"]
    for model in (recipe.models[name] for name in chain):
        if model.tune is not None:
            tags += ["sft", *(["lora"] if model.tune.lora != "none" else ())]
        if model.align is not None:
            tags += [model.align.loss, "lora"]
        if model.quantize is not None:
            tags.append(model.quantize.method)
    return list(dict.fromkeys([*tags, *(["gguf"] if form in ("gguf", "ollama") else ())]))


# -- the parts ------------------------------------------------------------------------------------


def _data(
    data: Mapping[str, MixtureSpec], recipe: Recipe, first: str, hub: str | None
) -> Iterator[str]:
    if hub is not None:
        yield (
            f"It comes from [{hub}](https://huggingface.co/{hub}), whose licence holds for it too."
        )
    elif recipe.models[first].base is not None:
        yield "It comes from a base model in a local folder, whose licence holds for it too."
    for name, mixture in data.items():
        shown = mixture.model_copy(
            update={"sources": tuple(_shown(source) for source in mixture.sources)}
        )
        lines = "\n".join(licences(shown, recipe.origin))
        yield f"**{_escaped(name)}** ({mixture.kind}):\n\n{lines}"
    yield "This is no legal advice: the card of each source says what holds."


def _shown(source: SourceSpec) -> SourceSpec:
    """A source as it may be printed: its path without where that lies, and without markup."""
    if source.path is None:
        return source
    name = source.name or _escaped(PurePosixPath(_bare(source.path)).name.split(".")[0])
    return source.model_construct(
        **{**dict(source), "path": _escaped(_bare(source.path)), "name": name}
    )


def _scores(row: Row | None, say: Callable[[str], str]) -> Iterator[str]:
    if row is None or not row.cells:
        yield "It has not been measured under the recipe as it was last run."
        return
    lines = [_line(cell, say) for cell in row.cells if cell.estimate is not None]
    missing = [cell for cell in row.cells if cell.estimate is None]
    if lines:
        heads = ("metric", "value", "95 % interval", "n", f"against {row.parent}", "verdict")
        rows = [heads, ("---",) * len(heads), *lines]
        yield "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        yield (
            "Verdicts are corrected for the number of comparisons in the recipe's table (Holm);"
            " differences are paired by item, and have 95 % intervals."
        )
        yield "\n".join(
            f"- {_escaped(label(cell.column))}: {say(cell.protocol or '')}"
            for cell in row.cells
            if cell.estimate is not None
        )
    if missing:
        yield "\n".join(
            f"- {_escaped(label(cell.column))} has no value: {say(cell.empty or '')}"
            for cell in missing
        )


def _line(cell: Cell, say: Callable[[str], str]) -> tuple[str, ...]:
    found, scale, gap = cell.estimate, cell.column.scale, cell.difference
    assert found is not None, "only cells with a value have a line"
    by, verdict = "–", "–"
    if gap is not None and gap.estimate is not None:
        by = f"{signed(gap.estimate.value, scale)} {interval(gap.estimate, scale)}"
        verdict = said(gap)
    elif gap is not None:
        verdict = f"no difference ({say(gap.empty or '')})"
    value, between = number(found.value, scale), interval(found, scale)
    return _escaped(label(cell.column)), value, between, f"{found.n:,}", by, verdict


def _limits(recipe: Recipe, data: Mapping[str, MixtureSpec], said: Sequence[str]) -> Iterator[str]:
    yield (
        "It is a small model: it can state what is wrong with confidence. Let nobody rely on an"
        " answer that was not checked."
    )
    yield "The scores are those of the model as Zephyr runs it, before this export."
    yield from said
    for name, mixture in data.items():
        if mixture.clean == "report":
            yield (
                f"In {_escaped(name)}, records that hold a question of the recipe's tasks were"
                " counted and not removed."
            )
    if recipe.origin == "embedded":
        yield GENERATED


def _recipe_yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(_without_places(recipe.spec()), sort_keys=False, allow_unicode=True)


def _without_places(value: Any) -> Any:
    """A value whose texts name no place of a machine."""
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return _bare(value) if isinstance(value, str) else value


# -- text -----------------------------------------------------------------------------------------

_PLACE = re.compile(r"(?<![\w:/.\\~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;()]+){2,}")


def _bare(text: str, folders: Collection[str] = ()) -> str:
    """A text with the last parts of the absolute paths in it alone.

    `folders` are known ones, for a path with a space in it has no end that can be seen.
    """
    if _is_absolute(text):
        return PureWindowsPath(text).name or "folder"
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, "")
    return _PLACE.sub(lambda found: PureWindowsPath(found[0]).name, text)


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~")) or PureWindowsPath(text).is_absolute()


def _folders(value: Any) -> set[str]:
    """The folders, each with the mark at its end, of all absolute paths in a value."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return set().union(*map(_folders, inside))
    if not isinstance(value, str) or not _is_absolute(value):
        return set()
    return {value[: len(value) - len(PureWindowsPath(value).name)]} - {"", "/"}


def _escaped(text: str) -> str:
    """Text that stays in its line and is read as text."""
    one_line = " ".join(text.split())
    for mark in "\\`*_[]|#~$":
        one_line = one_line.replace(mark, f"\\{mark}")
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fenced(text: str, language: str) -> str:
    """A block of code whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"
