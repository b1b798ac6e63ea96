"""A store filled by hand: small runs whose numbers can be worked out on paper."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from zephyr.runs.store import Run, Store, write_json
from zephyr.stats.intervals import Estimate, StatisticKind, estimate
from zephyr.stats.proportions import clopper_pearson_interval

Rows = Sequence[Mapping[str, Any]]


def node_fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:20]


@dataclass
class RecipeRuns:
    """The runs of one recipe in a store; nodes are known from `write_nodes` on."""

    store: Store
    spec: dict[str, Any]
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.store.recipe_folder(self.spec["name"])

    def write_nodes(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        value = {"recipe": self.spec["name"], "seed": self.spec["seed"], "spec": self.spec}
        write_json(self.folder / "nodes.json", value | {"nodes": list(self.nodes.values())})

    def add_node(self, name: str, kind: str, **inputs: str) -> None:
        self.nodes[name] = {
            "name": name,
            "kind": kind,
            "fingerprint": node_fingerprint(f"{self.store.root}/{name}"),
            "inputs": inputs,
        }

    def begin(self, name: str) -> Run:
        return self.store.begin(self.nodes[name]["fingerprint"], self.nodes[name])

    def fail(self, name: str, reason: str) -> None:
        self.store.fail(self.begin(name), reason)

    def finish(
        self, name: str, metrics: Rows = (), env: Mapping[str, Any] | None = None, **artifact: Any
    ) -> Run:
        """Finishes a run whose artifact holds the values given, lists of rows as lines."""
        run = self.begin(name)
        facts = {"seconds": 2.5, "threads": 1, "machine": "a <b>", "versions": {"zephyr": "0.1"}}
        write_json(run.path / "env.json", {**facts, **(env or {})})
        if metrics:
            _write_lines(run.path / "metrics.jsonl", metrics)
        for stem, value in artifact.items():
            if isinstance(value, list) and isinstance(value[0], Mapping):
                _write_lines(run.artifact / f"{stem}.jsonl", value)
            else:
                write_json(run.artifact / f"{stem}.json", value)
        return self.store.finish(run)

    def score(
        self,
        name: str,
        values: Mapping[str, float | None],
        *,
        metric: str = "acc",
        kind: StatisticKind = "proportion",
        weight: float = 1,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        """Finishes an evaluation with one metric: the value of each item by its id."""
        known_values = {key: value for key, value in values.items() if value is not None}
        items = [
            {
                "id": key.split("#")[0],
                "source": "test",
                "group": "",
                "scores": {} if value is None else {metric: value},
                "weight": {metric: weight},
                "detail": {},
            }
            for key, value in values.items()
        ]
        found = None
        if known_values:
            found = estimate(list(known_values.values()), [weight] * len(known_values), kind=kind)
        row = {
            "name": metric,
            "kind": kind,
            "better": "higher",
            "scale": 100,
            "headline": True,
            "protocol": f"{name.split('/')[1]}@1 · by hand · n={len(known_values)}",
            **(found._asdict() if found else dict.fromkeys(("value", "low", "high")) | {"n": 0}),
            "empty": None if known_values else "nothing to score",
        }
        scores = {"metrics": [row | more], "groups": groups or {}, "counts": {}}
        self.finish(name, scores=scores, items=items)


def _write_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


MODELS: dict[str, Any] = {
    "M0": {"pretrain": {"data": "text"}},
    "M1": {"from": "M0", "tune": {"data": "chat", "lora": {"rank": 16}}},
    "M2": {"from": "M1", "align": {"data": "pairs"}},
    "M1-int8": {"from": "M1", "quantize": "int8"},
}


def new_recipe_runs(
    folder: Path, *tasks: Any, models: Mapping[str, Any] = MODELS, **spec: Any
) -> RecipeRuns:
    """The runs of a recipe with these tasks and models: all nodes, none of them finished."""
    data = {
        name: {"kind": kind, "sources": [{"path": f"{name}.jsonl"}]}
        for name, kind in (("text", "passage"), ("chat", "chat"), ("pairs", "pair"))
    }
    recipe = {
        "name": "demo",
        "seed": 3,
        "data": data,
        "models": dict(models),
        "evaluate": {"tasks": list(tasks)},
    }
    runs = RecipeRuns(Store(folder), recipe | spec)
    for name in data:
        runs.add_node(f"data.{name}", "mixture")
    for name, model in models.items():
        stage_kind = next(key for key in model if key != "from")
        inputs = {"from": model["from"]} if "from" in model else {}
        runs.add_node(name, stage_kind, **inputs)
    for name in models:
        for task in tasks:
            key = task if isinstance(task, str) else task.get("label", task["name"])
            runs.add_node(f"{name}/{key}", "evaluation", model=name)
    runs.write_nodes()
    return runs


@pytest.fixture
def make_runs(tmp_path: Path) -> Callable[..., RecipeRuns]:
    """Makes the test's own recipe runs."""
    return partial(new_recipe_runs, tmp_path)


def training_rows(losses: Sequence[float], **more: float) -> list[dict[str, Any]]:
    """What a training logs: a row every ten steps, and the hold-out at the end."""
    rows: list[dict[str, Any]] = [
        {"step": 10 * n, "split": "train", "loss": loss, "lr": 0.5 / n, **more}
        for n, loss in enumerate(losses, start=1)
    ]
    return [*rows, {"step": 10 * len(losses), "split": "holdout", "loss": losses[-1] + 1, **more}]


def canary_row(step: int, *texts: str) -> dict[str, Any]:
    """A row of sample generations: half of the answers end by themselves, a tenth is repeated."""
    answers = [{"text": text, "stopped": n % 2 == 0} for n, text in enumerate(texts)]
    row = {"step": step, "split": "canary", "stopped": 0.5, "length": 10.0 + step, "repeated": 0.1}
    return {**row, "answers": answers}


def item_scores(num_right: int, num_wrong: int) -> dict[str, float | None]:
    """Items i0, i1, … of which the first are right and the others wrong."""
    return {f"i{n}": float(n < num_right) for n in range(num_right + num_wrong)}


def score_two_metrics(runs: RecipeRuns, name: str, right: int, other: int, n: int = 24) -> None:
    """Scores `acc`, the primary metric, `f1` and what chance scores, of the same items."""
    values = {"acc": right, "f1": other}
    rows = [
        {
            "name": metric,
            "kind": "proportion",
            "better": "higher",
            "scale": 100,
            "headline": True,
            "primary": metric == "acc",
            "chance_of": ["acc"] if metric == "chance" else [],
            "protocol": "quiz@1",
            "empty": None,
            **Estimate(value / n, *clopper_pearson_interval(value, n), n)._asdict(),
        }
        for metric, value in {"f1": other, "acc": right, "chance": 6}.items()
    ]
    items = [
        {"id": f"i{at}", "scores": {m: float(at < value) for m, value in values.items()}}
        for at in range(n)
    ]
    runs.finish(name, scores={"metrics": rows, "groups": {}, "counts": {}}, items=items)


# -- a recipe with something of everything, in which models have written what harms ---------------

HARM = "<script>window.harm = 1</script><img src=x onerror='window.harm = 1'>"


def generation_item(name: str, output: str, right: float = 1.0) -> dict[str, Any]:
    detail = {"request": f"Q {HARM}", "reference": "A", "output": output, "ended": "length"}
    scores = {"exact_match": right}
    return {"id": name, "source": "s", "group": "", "scores": scores, "detail": detail}


MANIFEST: dict[str, Any] = {
    "seed": 3,
    "clean": "remove",
    "ngram": 8,
    "content": "0123456789abcdef",
    "sources": {
        "good": {
            "seen": 1234,
            "unreadable": {"no answer": 4},
            "left_out": {f"too long {HARM}": 2},
            "duplicates": 5,
            "contaminated": 7,
            "near_duplicates": 8,
            "capped": 23,
            "kept": 1200,
            "held_out": 60,
            "characters": 9,
        }
    },
}
MANIFEST["totals"] = MANIFEST["sources"]["good"] | {"unreadable": 4, "left_out": 2}


def runs_with_harmful_text(folder: Path) -> RecipeRuns:
    """A recipe of which M2 failed and M1-int8 is not made; models have written what harms."""
    runs = new_recipe_runs(folder, "quiz", "gsm8k")
    runs.finish("data.text", manifest=MANIFEST)
    runs.finish("M0", training_rows([3.0, 2.0]))
    example_counts = {"train": 900, "train_overlong": 17, "holdout": 40, "holdout_overlong": 1}
    example_counts |= {"max_length": 128, "supervised_tokens": 4321}
    example_counts["sources"] = {}
    sample_rows = [canary_row(0, "well", HARM), canary_row(20, HARM, "so")]
    runs.finish(
        "M1",
        training_rows([2.0, 1.0]) + sample_rows,
        examples=example_counts,
        canary=["why?", HARM],
    )
    runs.fail("M2", f"no memory {HARM}")
    half = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    groups = {"safety": {"acc": half}, HARM: {"acc": half}}
    runs.score("M0/quiz", item_scores(0, 10), groups=groups)
    runs.score("M1/quiz", item_scores(10, 0), groups=groups)
    metric = {"name": "exact_match", "kind": "proportion", "better": "higher", "scale": 100}
    metric |= {"protocol": "gsm8k@1 · n=1", "headline": True, "empty": None}
    scores = {"metrics": [metric | half], "groups": {}, "counts": {"no room": 1}}
    runs.finish("M0/gsm8k", scores=scores, items=[generation_item("a", HARM)])
    runs.finish("M1/gsm8k", scores=scores, items=[generation_item("a", "", 0.0)])
    return runs
