"""The graph: what changes a fingerprint and what does not."""

from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import TaskSpec
from zephyr.recipe.schema import Recipe
from zephyr.runs.graph import ContentResolver, Node, build_graph, reference_model

RECIPE: dict[str, Any] = {
    "name": "r",
    "data": {
        "sft": {"kind": "chat", "sources": ["a"]},
        "pairs": {"kind": "pair", "holdout": 0.1, "sources": ["b"]},
    },
    "models": {
        "M2": {"from": "M1", "align": {"data": "pairs"}},
        "M0": {"base": "folder"},
        "M1": {"from": "M0", "tune": {"data": "sft"}},
        "M1-int8": {"from": "M1", "quantize": "int8"},
        "M0-DPO": {"from": "M0", "align": {"data": "pairs"}},
    },
    "evaluate": {"tasks": ["gsm8k", {"name": "preferences", "data": "pairs"}]},
}


def recipe_nodes(
    recipe: dict[str, Any] = RECIPE,
    *,
    versions: dict[str, int] | None = None,
    contents: dict[str, str] | None = None,
) -> dict[str, Node]:
    def task_sources(task: TaskSpec) -> tuple[SourceSpec, ...]:
        return () if task.name in ("preferences", "lessons") else (SourceSpec(name="g"),)

    resolver = ContentResolver(
        version=lambda kind: (versions or {}).get(kind, 1),
        source=lambda source, use, where: {"hash": (contents or {}).get(str(source.name), "")},
        base=lambda name, where: {"files": (contents or {}).get(name, "")},
        task_sources=task_sources,
        task_record_kind=lambda task: "chat" if task.name == "lessons" else "pair",
    )
    return build_graph(Recipe.model_validate(recipe), resolver)


def changed_nodes(**what: Any) -> set[str]:
    before, after = recipe_nodes(), recipe_nodes(**what)
    return {n for n in before if before[n].fingerprint != after[n].fingerprint}


def with_value(path: str, value: Any) -> dict[str, Any]:
    def set_value(here: Any, keys: list[str]) -> Any:
        if not keys:
            return value
        return {**here, keys[0]: set_value(here.get(keys[0], {}), keys[1:])}

    return set_value(RECIPE, path.split("."))


EVALUATIONS_OF_M1 = {f"{m}/{t}" for m in ("M1", "M1-int8", "M2") for t in ("gsm8k", "preferences")}


def test_every_node_stands_after_its_inputs() -> None:
    order = list(recipe_nodes())
    for node in recipe_nodes().values():
        assert all(order.index(used) < order.index(node.name) for used in node.inputs.values())
    assert len(order) == 2 + 5 + 10


def test_beta_touches_only_what_comes_from_it() -> None:
    recipe = with_value("models.M2.align.beta", 0.2)
    assert changed_nodes(recipe=recipe) == {"M2", "M2/gsm8k", "M2/preferences"}


def test_a_sources_content_touches_all_that_was_made_of_it() -> None:
    assert (
        changed_nodes(contents={"a": "new"})
        == {"data.sft", "M1", "M1-int8", "M2"} | EVALUATIONS_OF_M1
    )


def test_a_tasks_version_touches_its_evaluations_alone() -> None:
    assert changed_nodes(versions={"task:gsm8k": 2}) == {
        n for n in recipe_nodes() if n.endswith("/gsm8k")
    }


def test_a_stages_version_touches_what_follows() -> None:
    assert "M1/gsm8k" in changed_nodes(versions={"tune": 2})
    assert changed_nodes(versions={"quantize": 2}) == {
        "M1-int8",
        "M1-int8/gsm8k",
        "M1-int8/preferences",
    }


@pytest.mark.parametrize(
    "same",
    [
        with_value("models.M1.tune.batch", 16),
        with_value("models.M1.tune.lora.dora", value=False),
        with_value("models.M2.align.loss", "dpo"),
        with_value("models.M2.align.gamma", None),
        with_value("run.jobs", 2),
        with_value("run.token_budget", 77),
        with_value("name", "other"),
    ],
)
def test_defaults_and_the_machine_touch_nothing(same: dict[str, Any]) -> None:
    assert changed_nodes(recipe=same) == set()


def test_a_spec_holds_what_a_recipe_says_alone() -> None:
    """A new key with a default leaves every run that is there as it is.

    The rate that LoRA takes where none is given is told, for it once was another.
    """
    assert recipe_nodes()["M2"].spec == {"seed": 42}
    assert recipe_nodes()["M1"].spec == {"seed": 42, "lr": 5e-4}


def test_the_seed_touches_all_that_draws() -> None:
    assert changed_nodes(recipe=with_value("seed", 7)) == set(recipe_nodes()) - {"M0"}


def test_renaming_a_model_keeps_its_run() -> None:
    models = {("tutor" if n == "M1-int8" else n): m for n, m in RECIPE["models"].items()}
    renamed = recipe_nodes({**RECIPE, "models": models})
    assert renamed["tutor"].fingerprint == recipe_nodes()["M1-int8"].fingerprint


def test_references() -> None:
    models = Recipe.model_validate(RECIPE).models
    found = {name: reference_model(models, name) for name in models}
    assert found == {"M0": None, "M1": "M0", "M2": "M1", "M1-int8": "M0", "M0-DPO": "M0"}
    assert recipe_nodes()["M1-int8/preferences"].inputs["reference"] == "M0/preferences"
    assert "reference" not in recipe_nodes()["M0/preferences"].inputs
    assert "reference" not in recipe_nodes()["M1/gsm8k"].inputs


def test_thinking_touches_all_that_is_made_of_a_base_and_off_is_the_default() -> None:
    base = {"base": "folder"}
    models = {"M0": base, "M0-int8": {"from": "M0", "quantize": "int8"}}
    plain = recipe_nodes(RECIPE | {"models": models})
    off = recipe_nodes(RECIPE | {"models": models | {"M0": base | {"thinking": "off"}}})
    on = recipe_nodes(RECIPE | {"models": models | {"M0": base | {"thinking": "on"}}})
    assert off == plain
    assert all(on[name].fingerprint != plain[name].fingerprint for name in models)


def test_a_reference_is_scored_even_if_its_model_is_not_evaluated() -> None:
    graph = recipe_nodes(with_value("evaluate.models", ["M2"]))
    assert {n for n in graph if "/" in n} == {
        "M2/gsm8k",
        "M2/preferences",
        "M1/preferences",
        "M0/preferences",
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("models.M1.from", "M9", "unknown model 'M9'"),
        ("models.M1.tune.data", "sfd", "unknown mixture 'sfd'(.|\n)*nearest: sft"),
        ("models.M1.tune.data", "pairs", "wrong kind(.|\n)*found: +pair\n +allowed: chat"),
        ("evaluate.models", ["M7"], "unknown model 'M7'"),
        ("evaluate.tasks", ["gsm8k", "gsm8k"], "named twice"),
        ("evaluate.tasks", ["preferences"], "needs to know what to ask"),
        ("evaluate.tasks", ["lessons"], "needs to know what to ask"),
        (
            "evaluate.tasks",
            [{"name": "lessons", "data": "pairs"}],
            "wrong kind(.|\n)*allowed: chat",
        ),
        (
            "evaluate.tasks",
            [{"name": "lessons", "data": "sft"}],
            "no hold-out for task 'lessons' to ask(.|\n)*data.sft.holdout",
        ),
        ("models.M1.from", "M2", "in a circle(.|\n)*M1"),
        ("models.M0.thinking", "on", "that thinks can't be trained(.|\n)*models.M"),
        (
            "models.M1.tune",
            {"data": "sft", "keep": "best loss", "evaluate_every": 5},
            "without a hold-out(.|\n)*models.M1.tune(.|\n)*data.sft.holdout",
        ),
    ],
)
def test_what_is_wrong_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ZephyrError, match=message):
        recipe_nodes(with_value(path, value))


def test_a_task_of_the_harness_is_what_its_folder_holds_and_not_where_that_lies() -> None:
    def fingerprint(path: str, content: str) -> str:
        task = {"name": "lm_eval:sums", "path": path}
        resolver = ContentResolver(
            version=lambda kind: 1,
            source=lambda source, use, where: {},
            base=lambda name, where: {},
            task_sources=lambda task: (),
            task_record_kind=lambda task: None,
            task_content=lambda task: {"files": content},
        )
        graph = build_graph(
            Recipe.model_validate({**RECIPE, "evaluate": {"tasks": [task]}}), resolver
        )
        return graph["M1/lm_eval:sums"].fingerprint

    assert fingerprint("here", "a") == fingerprint("there", "a") != fingerprint("here", "b")
