"""Sections of the report: mixtures, training examples, exclusions, answers, cost, environment."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zephyr.data.licences import licence_warnings
from zephyr.data.table import SOURCES
from zephyr.report.node_status import NodeStatus
from zephyr.report.results import Results
from zephyr.runs.store import read_json_lines

_COUNTS = ("seen", "duplicates", "contaminated", "near_duplicates", "capped", "kept", "held_out")

ITEMS_SHOWN_PER_TASK = 10
"""Maximum items of a task whose answers are shown side by side."""


class SourceSummary(NamedTuple):
    """Row counts of one source of a mixture, from its manifest.

    `tokens` are those of the kept rows, for the first model trained on the mixture, or None.
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


class MixtureSummary(NamedTuple):
    """Summary of a mixture: the counts of its sources, or the reason why there are none.

    With `is_cleaned`, duplicate, near-duplicate and contaminated records were removed, not only
    counted; `warnings` are the license warnings by source.
    """

    name: str
    kind: str
    sources: list[SourceSummary]
    missing_reason: str | None
    is_cleaned: bool
    warnings: Mapping[str, Sequence[str]]

    @property
    def total(self) -> SourceSummary:
        """The totals over all sources."""
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
        return SourceSummary(
            "all", unreadable=reasons[0], left_out=reasons[1], tokens=counted, **sums
        )


def summarize_mixtures(results: Results) -> list[MixtureSummary]:
    """Summarizes every mixture of the recipe."""
    found = []
    for name, mixture in results.recipe.data.items():
        node = results.nodes[f"data.{name}"]
        sources = []
        if node.state == "finished":
            manifest = node.run.read("artifact/manifest.json")
            tokens = token_counts(results, name)
            sources = [
                SourceSummary(
                    source,
                    **{key: row.get(key, 0) for key in SourceSummary._fields[1:-1]},
                    tokens=tokens.get(source, {}).get("tokens"),
                )
                for source, row in manifest["sources"].items()
            ]
        warnings = {
            registered.name: licence_warnings(registered)
            for source in mixture.sources
            if results.recipe.origin is None and (registered := SOURCES.get(source.name or ""))
        }
        removed = mixture.clean == "remove"
        found.append(MixtureSummary(name, mixture.kind, sources, node.reason, removed, warnings))
    return found


def token_counts(results: Results, mixture: str) -> Mapping[str, Mapping[str, int]]:
    """Token counts by source, for the first model that was trained on a mixture."""
    for row in results.rows:
        model = results.recipe.models[row.model]
        trained = model.tune or model.align
        if trained and trained.data == mixture and row.node.state == "finished":
            found: Mapping[str, Mapping[str, int]] = row.node.run.read(
                "artifact/examples.json"
            ).get("sources", {})
            return found
    return {}


class TrainingExampleCounts(NamedTuple):
    """Counts of training examples; those longer than `max_length` tokens were excluded, or cut.

    Cut prompts lost messages and tokens (`overlong: cut`).
    """

    model: str
    max_length: int
    train: int
    train_overlong: int
    holdout: int
    holdout_overlong: int
    supervised_tokens: int
    cut: int
    cut_messages: int
    cut_tokens: int


def training_example_counts(results: Results) -> list[TrainingExampleCounts]:
    """The example counts of every finished `tune` (SFT) and `align` (DPO) stage."""
    found = []
    for row in results.rows:
        if row.node.kind in ("tune", "align") and row.node.state == "finished":
            counts = row.node.run.read("artifact/examples.json")
            sources = counts.get("sources", {}).values()
            cuts = {
                key: sum(source.get(key, 0) for source in sources)
                for key in ("cut", "cut_messages", "cut_tokens")
            }
            fields = TrainingExampleCounts._fields
            own = {key: counts[key] for key in fields if key in counts}
            found.append(TrainingExampleCounts(model=row.model, **own, **cuts))
    return found


def excluded_item_counts(results: Results) -> dict[str, dict[str, list[str]]]:
    """Counts of items that were truncated or excluded: models by task and "count reason"."""
    found: dict[str, dict[str, list[str]]] = {}
    for task in results.recipe.evaluate.tasks:
        for row in results.rows:
            node = results.nodes.get(f"{row.model}/{task.key}")
            if node is not None and node.state == "finished":
                for reason, count in node.run.read("artifact/scores.json")["counts"].items():
                    models = found.setdefault(task.key, {}).setdefault(f"{count:,} {reason}", [])
                    models.append(row.model)
    return found


class SampleGenerationsSummary(NamedTuple):
    """Sample generations of a training: answers to fixed prompts at first and last evaluation.

    An answer has its `text`, and whether it `stopped` (finish reason stop).
    """

    model: str
    first_step: int
    last_step: int
    answers: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
    """Prompt, first answer, last answer."""


def read_sample_generations(results: Results) -> list[SampleGenerationsSummary]:
    """The sample generations of every training that has them, finished or not."""
    found = []
    for row in results.rows:
        run = row.node.run
        evaluations = [r for r in run.metrics if r["split"] == "canary"]
        if evaluations and row.node.state != "damaged" and (run.artifact / "canary.json").exists():
            first, last = evaluations[0], evaluations[-1]
            prompts = run.read("artifact/canary.json")
            answers = list(zip(prompts, first["answers"], last["answers"], strict=True))
            found.append(SampleGenerationsSummary(row.model, first["step"], last["step"], answers))
    return found


class ModelAnswer(NamedTuple):
    """The answer of one model, its finish reason, and whether its number or option is correct.

    `is_correct` is None if the task has neither.
    """

    model: str
    output: str
    finish_reason: str
    is_correct: bool | None


class AnsweredItem(NamedTuple):
    """An item that models answered by generation; `prompt` is the whole prompt."""

    prompt: str
    reference: str
    answers: list[ModelAnswer]


def sample_answered_items(results: Results) -> dict[str, list[AnsweredItem]]:
    """Samples, by generation task, items that all models answered, with all answers.

    They are chosen by the seed, independently of the answers.
    """
    found = {}
    for task in results.recipe.evaluate.tasks:
        generated = {
            row.model: items
            for row in results.rows
            if (node := results.nodes.get(f"{row.model}/{task.key}")) is not None
            and node.state == "finished"
            and (items := _generated_items(node))
        }
        first, *others = generated.values() or [{}]
        common = [name for name in first if all(name in items for items in others)]
        sampled = sorted(common, key=lambda name: _sample_key(results.recipe.seed, name))[
            :ITEMS_SHOWN_PER_TASK
        ]
        if sampled:
            found[task.key] = [
                _answered_item({model: items[name] for model, items in generated.items()})
                for name in sorted(sampled, key=common.index)
            ]
    return found


def _generated_items(node: NodeStatus) -> dict[str, Any]:
    """The items of an evaluation that have a generated output, by their id."""
    items = read_json_lines(node.run.artifact / "items.jsonl")
    return {item["id"]: item for item in items if "output" in item["detail"]}


def _sample_key(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _answered_item(items: Mapping[str, Any]) -> AnsweredItem:
    detail = next(iter(items.values()))["detail"]
    answers = [
        ModelAnswer(
            model, item["detail"]["output"], item["detail"]["ended"], _is_correct(item["scores"])
        )
        for model, item in items.items()
    ]
    return AnsweredItem(detail["request"], _reference(detail), answers)


def _reference(detail: Mapping[str, Any]) -> str:
    """The expected answer; for multiple choice, the right option."""
    if "reference" in detail:
        return str(detail["reference"])
    return f"{chr(ord('A') + detail['answer'])}. {detail['choices'][detail['answer']]}"


def _is_correct(scores: Mapping[str, float]) -> bool | None:
    score = scores.get("exact_match", scores.get("acc"))
    return None if score is None else bool(score)


class StageCost(NamedTuple):
    """The cost of all finished runs of one kind of stage: seconds, bytes and joules.

    `runs_with_energy` is the number of runs whose energy was measured.
    """

    kind: str
    runs: int
    seconds: float
    artifact_bytes: int
    run_bytes: int
    joules: float
    runs_with_energy: int


def costs_by_stage(results: Results) -> list[StageCost]:
    """The cost of each kind of stage, and of all together."""
    finished = [node for node in results.nodes.values() if node.state == "finished"]
    kinds = dict.fromkeys(entry.kind for entry in finished)
    return [
        *(_stage_cost(kind, (entry for entry in finished if entry.kind == kind)) for kind in kinds),
        _stage_cost("all", finished),
    ]


def _stage_cost(kind: str, nodes: Iterable[NodeStatus]) -> StageCost:
    runs = list(nodes)
    joules = [node.joules for node in runs if node.joules is not None]
    return StageCost(
        kind,
        len(runs),
        sum(entry.seconds or 0 for entry in runs),
        sum(entry.artifact_bytes or 0 for entry in runs),
        sum(entry.run_bytes or 0 for entry in runs),
        sum(joules),
        len(joules),
    )


def environment_facts(results: Results) -> dict[str, dict[str, list[str]]]:
    """The environment of the runs: each fact, its values, and the nodes of each value."""
    facts: dict[str, dict[str, list[str]]] = {}
    for name, node in results.nodes.items():
        if node.state != "finished":
            continue
        env = node.run.read("env.json")
        versions, notes = env.pop("versions", {}), env.pop("told", ())
        for key, value in [*(env | versions).items(), *(("notes", text) for text in notes)]:
            if key not in ("seconds", "started", "joules"):
                facts.setdefault(key, {}).setdefault(_fact_text(value), []).append(name)
    return facts


def _fact_text(value: Any) -> str:
    """Formats the value of an environment fact; for a mapping, each that is known with its name."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key.replace('_', ' ')} {_fact_text(each)}"
            for key, each in value.items()
            if each is not None
        )
    if isinstance(value, list):
        return ", ".join(map(_fact_text, value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
