"""The items of an evaluation: what was asked, what came back, and whether it was right."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from zephyr.errors import ZephyrError, unknown
from zephyr.runs.store import Run, read_json_lines

Side = Literal["wrong", "right"]
Item = dict[str, Any]


class Judge(NamedTuple):
    """The metric by which items are told apart; those of a mean are only put in order."""

    metric: str
    kind: str
    lower: bool


class Chosen(NamedTuple):
    """Items to be shown, how many there are of them, and the metric by which they were chosen."""

    items: list[Item]
    found: int
    judge: Judge


def choose(run: Run, side: Side | None, group: str | None, limit: int) -> Chosen:
    """At most `limit` items of a finished evaluation.

    Right is what the first headline metric of right and wrong answers gives a whole point, wrong
    what it does not. A task without one (perplexity) has its worst items first for `wrong`, its
    best for `right`.

    Raises:
        ZephyrError: no item is of this group.
    """
    judge = _judge(run.read("artifact/scores.json")["metrics"])
    items: list[Item] = read_json_lines(run.artifact / "items.jsonl")
    if group is not None:
        groups = {item["group"] for item in items} | {f"source: {i['source']}" for i in items}
        if group not in groups:
            raise unknown("group", group, sorted(filter(None, groups)), where=str(run.path))
        items = [i for i in items if group in (i["group"], f"source: {i['source']}")]
    if side is not None:
        items = [item for item in items if judge.metric in item["scores"]]
        if judge.kind == "proportion":
            items = [i for i in items if (i["scores"][judge.metric] == 1) == (side == "right")]
        else:
            best_first = (side == "right") != judge.lower
            items.sort(key=lambda item: _mean(item, judge.metric), reverse=best_first)
    return Chosen(items[:limit], len(items), judge)


def _judge(metrics: Sequence[Mapping[str, Any]]) -> Judge:
    judged = [m for m in metrics if m["headline"]] or list(metrics)
    if not judged:
        raise ZephyrError("this evaluation has no metric", todo="run it again")
    first = next((m for m in judged if m["kind"] == "proportion"), judged[0])
    return Judge(first["name"], first["kind"], first["better"] == "lower")


def _mean(item: Item, metric: str) -> float:
    weight: float = item.get("weight", {}).get(metric, 1)
    value: float = item["scores"][metric]
    return value / weight


def lines(item: Item) -> Iterator[tuple[str, str]]:
    """What a person reads of an item: a heading and a text, again and again."""
    detail = item["detail"]
    yield "scores", ", ".join(f"{name} {value:.4g}" for name, value in item["scores"].items())
    for turn in detail.get("turns", ()):
        yield "asked", turn["request"]
        yield "answered", turn["output"]
    if "turns" not in detail:
        asked = detail.get("request")
        yield "asked", asked if isinstance(asked, str) else _pairs(asked)
        if "output" in detail:
            yield "answered", detail["output"] or "(nothing)"
    if "choices" in detail:
        yield "options", "\n".join(_options(detail))
    if "chosen" in detail and isinstance(detail["chosen"], str):
        for side, value in zip(("chosen", "rejected"), detail["logprobs"], strict=True):
            yield f"{side}, log-probability {value:.2f}", detail[side]
    if "reference" in detail:
        yield "reference", str(detail["reference"])
    if "ended" in detail:
        ended = detail["ended"]
        yield "ended by", ended if isinstance(ended, str) else ", ".join(ended)


def _options(detail: Mapping[str, Any]) -> Iterator[str]:
    """Each option with what it weighs; the right one and the model's are marked."""
    weighed = detail.get("logprobs") or [None] * len(detail["choices"])
    for at, (option, value) in enumerate(zip(detail["choices"], weighed, strict=True)):
        marks = [
            mark
            for mark, place in (("right", detail["answer"]), ("model's", detail["chosen"]))
            if place == at
        ]
        by_length = detail.get("chosen_norm")
        if by_length == at != detail["chosen"]:
            marks.append("model's by length")
        told = "" if value is None else f"{value:9.2f}  "
        yield f"{told}{option}" + (f"   <- {', '.join(marks)}" if marks else "")


def _pairs(found: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(found or {}).items())
