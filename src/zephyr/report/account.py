"""What a report tells beside the scores: the data, what was left out, answers, cost, machines."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zephyr.data.licences import licence_warnings
from zephyr.data.table import SOURCES
from zephyr.report.ledger import Entry, Ledger
from zephyr.runs.store import read_json_lines

_COUNTS = ("seen", "duplicates", "contaminated", "near_duplicates", "capped", "kept", "held_out")

EXAMPLES = 10
"""Questions of a task whose answers are shown side by side."""


class SourceAccount(NamedTuple):
    """What became of the rows of one source of a mixture. Reasons are counted.

    `tokens` are those of what was kept, for the first model that was trained on the mixture; None
    where none has been.
    """

    name: str
    seen: int
    unreadable: Mapping[str, int]
    left_out: Mapping[str, int]
    duplicates: int
    contaminated: int
    near_duplicates: int
    capped: int
    kept: int
    held_out: int
    characters: int
    tokens: int | None


class MixtureAccount(NamedTuple):
    """A mixture: its sources, or the reason why there is no account of them.

    `removed` says whether repeated, contaminated and near-duplicate records were, or only counted;
    `warnings` are what licences forbid, by source.
    """

    name: str
    kind: str
    sources: list[SourceAccount]
    empty: str | None
    removed: bool
    warnings: Mapping[str, Sequence[str]]

    @property
    def total(self) -> SourceAccount:
        """The sum over all sources."""
        reasons: list[Counter[str]] = []
        for column in ("unreadable", "left_out"):
            reasons.append(Counter())
            for source in self.sources:
                reasons[-1].update(getattr(source, column))
        sums = {
            column: sum(getattr(source, column) for source in self.sources)
            for column in (*_COUNTS, "characters")
        }
        tokens = [source.tokens for source in self.sources if source.tokens is not None]
        counted = sum(tokens) if tokens else None
        return SourceAccount(
            "all", unreadable=reasons[0], left_out=reasons[1], tokens=counted, **sums
        )


def mixtures(ledger: Ledger) -> list[MixtureAccount]:
    """The account of every mixture of the recipe."""
    found = []
    for name, mixture in ledger.recipe.data.items():
        entry = ledger.entries[f"data.{name}"]
        sources = []
        if entry.state == "finished":
            manifest = entry.run.read("artifact/manifest.json")
            tokens = tokens_of(ledger, name)
            sources = [
                SourceAccount(
                    source,
                    **{key: row.get(key, 0) for key in SourceAccount._fields[1:-1]},
                    tokens=tokens.get(source, {}).get("tokens"),
                )
                for source, row in manifest["sources"].items()
            ]
        warnings = {
            registered.name: licence_warnings(registered)
            for source in mixture.sources
            if ledger.recipe.origin is None and (registered := SOURCES.get(source.name or ""))
        }
        removed = mixture.clean == "remove"
        found.append(MixtureAccount(name, mixture.kind, sources, entry.reason, removed, warnings))
    return found


def tokens_of(ledger: Ledger, mixture: str) -> Mapping[str, Mapping[str, int]]:
    """Counts of tokens by source, by the first model that was trained on a mixture."""
    for row in ledger.rows:
        model = ledger.recipe.models[row.model]
        trained = model.tune or model.align
        if trained and trained.data == mixture and row.entry.state == "finished":
            found: Mapping[str, Mapping[str, int]] = row.entry.run.read(
                "artifact/examples.json"
            ).get("sources", {})
            return found
    return {}


class Examples(NamedTuple):
    """What a training read of its mixture; what is longer than `max_length` tokens was left out."""

    model: str
    max_length: int
    train: int
    train_overlong: int
    holdout: int
    holdout_overlong: int
    supervised_tokens: int


def examples(ledger: Ledger) -> list[Examples]:
    """What every finished `tune` and `align` read."""
    return [
        Examples(row.model, *(account[key] for key in Examples._fields[1:]))
        for row in ledger.rows
        if row.entry.kind in ("tune", "align") and row.entry.state == "finished"
        for account in [row.entry.run.read("artifact/examples.json")]
    ]


def left_out(ledger: Ledger) -> dict[str, dict[str, list[str]]]:
    """What evaluations cut or left out: by task, "count reason", and the models for which."""
    found: dict[str, dict[str, list[str]]] = {}
    for task in ledger.recipe.evaluate.tasks:
        for row in ledger.rows:
            entry = ledger.entries.get(f"{row.model}/{task.key}")
            if entry is not None and entry.state == "finished":
                for reason, count in entry.run.read("artifact/scores.json")["counts"].items():
                    said = found.setdefault(task.key, {}).setdefault(f"{count:,} {reason}", [])
                    said.append(row.model)
    return found


class Canary(NamedTuple):
    """What a training's fixed prompts were answered with, at its first and its last evaluation.

    An answer is a mapping with its `text`, and whether it `stopped` by itself.
    """

    model: str
    first_step: int
    last_step: int
    answers: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
    """Prompt, first answer, last answer."""


def canaries(ledger: Ledger) -> list[Canary]:
    """The answers of every training that was watched so, finished or not."""
    found = []
    for row in ledger.rows:
        run = row.entry.run
        asked = [r for r in run.metrics if r["split"] == "canary"]
        if asked and row.entry.state != "damaged" and (run.artifact / "canary.json").exists():
            first, last = asked[0], asked[-1]
            prompts = run.read("artifact/canary.json")
            answers = list(zip(prompts, first["answers"], last["answers"], strict=True))
            found.append(Canary(row.model, first["step"], last["step"], answers))
    return found


class Answer(NamedTuple):
    """What one model wrote, how it ended, and whether its number or its option is right.

    None where neither is asked for.
    """

    model: str
    output: str
    ended: str
    right: bool | None


class Question(NamedTuple):
    """An item that models answered in their own words; `request` is the whole prompt."""

    request: str
    reference: str
    answers: list[Answer]


def questions(ledger: Ledger) -> dict[str, list[Question]]:
    """By task in which models write: `EXAMPLES` items that all were asked, and all answers.

    The seed chooses them, whatever the answers are.
    """
    found = {}
    for task in ledger.recipe.evaluate.tasks:
        written = {
            row.model: items
            for row in ledger.rows
            if (entry := ledger.entries.get(f"{row.model}/{task.key}")) is not None
            and entry.state == "finished"
            and (items := _written(entry))
        }
        first, *others = written.values() or [{}]
        common = [name for name in first if all(name in items for items in others)]
        drawn = sorted(common, key=lambda name: _rank(ledger.recipe.seed, name))[:EXAMPLES]
        if drawn:
            found[task.key] = [
                _question({model: items[name] for model, items in written.items()})
                for name in sorted(drawn, key=common.index)
            ]
    return found


def _written(entry: Entry) -> dict[str, Any]:
    """The items of an evaluation that were answered in words, by their id."""
    items = read_json_lines(entry.run.artifact / "items.jsonl")
    return {item["id"]: item for item in items if "output" in item["detail"]}


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _question(items: Mapping[str, Any]) -> Question:
    detail = next(iter(items.values()))["detail"]
    answers = [
        Answer(model, item["detail"]["output"], item["detail"]["ended"], _right(item["scores"]))
        for model, item in items.items()
    ]
    return Question(detail["request"], _reference(detail), answers)


def _reference(detail: Mapping[str, Any]) -> str:
    """The answer that was expected; of a multiple choice, the right option."""
    if "reference" in detail:
        return str(detail["reference"])
    return f"{chr(ord('A') + detail['answer'])}. {detail['choices'][detail['answer']]}"


def _right(scores: Mapping[str, float]) -> bool | None:
    told = scores.get("exact_match", scores.get("acc"))
    return None if told is None else bool(told)


class Cost(NamedTuple):
    """Seconds, bytes and joules of the finished runs of one kind of node.

    `metered` are the runs whose joules are known.
    """

    kind: str
    runs: int
    seconds: float
    made: int
    kept: int
    joules: float
    metered: int


def costs(ledger: Ledger) -> list[Cost]:
    """What each kind of node cost, and all of them together."""
    done = [entry for entry in ledger.entries.values() if entry.state == "finished"]
    kinds = dict.fromkeys(entry.kind for entry in done)
    return [
        *(_cost(kind, (entry for entry in done if entry.kind == kind)) for kind in kinds),
        _cost("all", done),
    ]


def _cost(kind: str, entries: Iterable[Entry]) -> Cost:
    runs = list(entries)
    joules = [entry.joules for entry in runs if entry.joules is not None]
    return Cost(
        kind,
        len(runs),
        sum(entry.seconds or 0 for entry in runs),
        sum(entry.made or 0 for entry in runs),
        sum(entry.kept or 0 for entry in runs),
        sum(joules),
        len(joules),
    )


def environment(ledger: Ledger) -> dict[str, dict[str, list[str]]]:
    """What the runs were made with: by fact, each value and the nodes that it holds for."""
    facts: dict[str, dict[str, list[str]]] = {}
    for name, entry in ledger.entries.items():
        if entry.state != "finished":
            continue
        env = entry.run.read("env.json")
        versions = env.pop("versions", {})
        for key, value in (env | versions).items():
            if key not in ("seconds", "started", "joules"):
                facts.setdefault(key, {}).setdefault(_said(value), []).append(name)
    return facts


def _said(value: Any) -> str:
    """A fact in words; of several facts, each with its name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_said(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
