"""Items of an evaluation: the request, the model's output, and whether it was correct."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.runs.store import Run, read_json_lines

Correctness = Literal["wrong", "right"]
Item = dict[str, Any]


class SelectionMetric(NamedTuple):
    """The metric by which items are selected as right or wrong, or sorted."""

    name: str
    kind: str
    lower_is_better: bool


class SelectedItems(NamedTuple):
    """The selected items, their total number, and the metric of the selection."""

    items: list[Item]
    total: int
    metric: SelectionMetric


def select_items(
    run: Run, correctness: Correctness | None, group: str | None, limit: int
) -> SelectedItems:
    """Selects at most `limit` items of a finished evaluation.

    Right items score 1 in the first headline metric of kind proportion, wrong ones do not. For a
    task without one (perplexity), items are sorted: worst first for `wrong`, best for `right`.

    Raises:
        ZephyrError: no item is of this group.
    """
    metric = _selection_metric(run.read("artifact/scores.json")["metrics"])
    items: list[Item] = read_json_lines(run.artifact / "items.jsonl")
    if group is not None:
        groups = {item["group"] for item in items} | {f"source: {i['source']}" for i in items}
        if group not in groups:
            raise unknown_name_error(
                "group", group, sorted(filter(None, groups)), where=str(run.path)
            )
        items = [i for i in items if group in (i["group"], f"source: {i['source']}")]
    if correctness is not None:
        items = [item for item in items if metric.name in item["scores"]]
        if metric.kind == "proportion":
            items = [
                i for i in items if (i["scores"][metric.name] == 1) == (correctness == "right")
            ]
        else:
            best_first = (correctness == "right") != metric.lower_is_better
            items.sort(key=lambda item: _item_mean(item, metric.name), reverse=best_first)
    return SelectedItems(items[:limit], len(items), metric)


def _selection_metric(metrics: Sequence[Mapping[str, Any]]) -> SelectionMetric:
    candidates = [m for m in metrics if m["headline"]] or list(metrics)
    if not candidates:
        raise ZephyrError("this evaluation has no metric", todo="run it again")
    first = next((m for m in candidates if m["kind"] == "proportion"), candidates[0])
    return SelectionMetric(first["name"], first["kind"], first["better"] == "lower")


def _item_mean(item: Item, metric: str) -> float:
    weight: float = item.get("weight", {}).get(metric, 1)
    value: float = item["scores"][metric]
    return value / weight


def item_sections(item: Item) -> Iterator[tuple[str, str]]:
    """The sections of an item for display: pairs of a heading and a text."""
    detail = item["detail"]
    yield "scores", ", ".join(f"{name} {value:.4g}" for name, value in item["scores"].items())
    for turn in detail.get("turns", ()):
        yield "asked", turn["request"]
        yield "answered", turn["output"]
    if "turns" not in detail:
        request = detail.get("request")
        yield "asked", request if isinstance(request, str) else _pairs_text(request)
        if "output" in detail:
            yield "answered", detail["output"] or "(nothing)"
    if "choices" in detail:
        yield "options", "\n".join(_option_lines(detail))
    if "chosen" in detail and isinstance(detail["chosen"], str):
        for side, value in zip(("chosen", "rejected"), detail["logprobs"], strict=True):
            yield f"{side}, log-probability {value:.2f}", detail[side]
    if "reference" in detail:
        yield "reference", str(detail["reference"])
    if "ended" in detail:
        ended = detail["ended"]
        yield "ended by", ended if isinstance(ended, str) else ", ".join(ended)


def _option_lines(detail: Mapping[str, Any]) -> Iterator[str]:
    """Each option with its log-probability; the right one and the model's are marked."""
    logprobs = detail.get("logprobs") or [None] * len(detail["choices"])
    for at, (option, value) in enumerate(zip(detail["choices"], logprobs, strict=True)):
        labels = [
            mark
            for mark, place in (("right", detail["answer"]), ("model's", detail["chosen"]))
            if place == at
        ]
        by_length = detail.get("chosen_norm")
        if by_length == at != detail["chosen"]:
            labels.append("model's by length")
        prefix = "" if value is None else f"{value:9.2f}  "
        yield f"{prefix}{option}" + (f"   <- {', '.join(labels)}" if labels else "")


def _pairs_text(found: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(found or {}).items())
