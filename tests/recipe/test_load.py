"""Recipes: what is wrong is said with its file, line and the nearest key."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import ROOT
from zephyr.errors import ZephyrError
from zephyr.recipe.evaluation import TaskSpec
from zephyr.recipe.load import find_recipe, read_recipe
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Tune

EMBEDDED_RECIPE = ROOT / "recipes" / "embedded.yaml"

GOOD = """\
name: small
origin: embedded
data:
  sft: {kind: chat, sources: [goat, {name: lima, cap: 3}]}
models:
  M0: {base: folder}
  M1:
    from: M0
    tune: {data: sft, lr: 5e-5}
"""


def read_recipe_text(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return read_recipe(path, overrides)


def test_the_default_rate_is_for_what_is_trained() -> None:
    """LoRA takes ten times the rate of full fine-tuning; a rate that is given is kept."""
    assert Tune(data="sft").lr == 5e-4
    assert Tune(data="sft", lora="none").lr == 5e-5
    assert Tune(data="sft", lora="none", lr=1e-5).lr == 1e-5


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_that_comes_with_zephyr_can_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEPHYR_REAL_DATA", "somewhere")
    assert read_recipe(path).name == path.stem


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    tune = read_recipe_text(tmp_path, GOOD).models["M1"].tune
    assert tune is not None
    assert tune.lr == 5e-5


def test_thinking_is_off_or_on_beside_a_base(tmp_path: Path) -> None:
    """YAML reads both words as booleans."""
    for written, thinking in (("off", "off"), ("on", "on"), ("'on'", "on"), ("true", "on")):
        text = GOOD.replace("base: folder", f"base: folder, thinking: {written}")
        assert read_recipe_text(tmp_path, text).models["M0"].thinking == thinking
    with pytest.raises(ZephyrError, match="thinking"):
        read_recipe_text(tmp_path, GOOD, "models.M0.thinking=maybe")
    with pytest.raises(ZephyrError, match="belongs to a `base`"):
        read_recipe_text(tmp_path, GOOD, "models.M1.thinking=on")


def test_overrides_reach_into_mappings_and_lists_by_name(tmp_path: Path) -> None:
    recipe = read_recipe_text(
        tmp_path,
        GOOD,
        "models.M1.tune.lora.rank=4",
        "data.sft.sources.lima.cap=7",
        "data.sft.sources.0=wiki_qa",
        "models.M1.tune.lr=1e-3",
    )
    tune = recipe.models["M1"].tune
    assert tune is not None
    assert (tune.lora.rank, tune.lr) == (4, 1e-3)  # type: ignore[union-attr]  # it is a Lora
    assert [s.name for s in recipe.data["sft"].sources] == ["wiki_qa", "lima"]
    assert recipe.data["sft"].sources[1].cap == 7


def test_defaults_stay_out_of_the_spec(tmp_path: Path) -> None:
    plain = read_recipe_text(tmp_path, GOOD).models["M1"].tune
    explicit = read_recipe_text(tmp_path, GOOD, "models.M1.tune.batch=16").models["M1"].tune
    assert plain is not None
    assert explicit is not None
    assert plain.spec() == explicit.spec() == {"data": "sft"}


PAIRS = """\
name: small
data:
  pairs: {kind: pair, sources: [orca_dpo_pairs]}
models:
  M0: {base: folder}
  M2:
    from: M0
    align: {data: pairs, SETTINGS}
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("loss: kto", "models.M2.align.loss: .*'dpo', 'ipo', 'simpo' or 'orpo'"),
        ("loss: simpo", "`loss: simpo` needs `gamma`"),
        ("gamma: 0.5", "`gamma` belongs to simpo, not to dpo"),
        ("loss: ipo, label_smoothing: 0.1", "`label_smoothing` belongs to dpo, not to ipo"),
        ("label_smoothing: 0.5", "models.M2.align.label_smoothing: .*less than 0.5"),
        ("loss: orpo, length_normalized: yes", "`length_normalized` belongs to dpo or ipo"),
        ("loss: orpo, sft_weight: 1", "`sft_weight` belongs to dpo or ipo or simpo, not to orpo"),
        ("adapter: continue, lora: {rank: 4}", "`lora` is that of the adapter that continues"),
    ],
)
def test_what_a_loss_does_not_know_is_refused(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(ZephyrError, match=message) as caught:
        read_recipe_text(tmp_path, PAIRS.replace("SETTINGS", settings))
    assert "recipe.yaml:8" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        "loss: dpo, label_smoothing: 0.1, length_normalized: yes, sft_weight: 1",
        "loss: ipo, length_normalized: yes",
        "loss: simpo, gamma: 0, beta: 2, sft_weight: 0.5",
        "loss: orpo, adapter: continue",
    ],
)
def test_every_loss_can_be_asked_for(tmp_path: Path, settings: str) -> None:
    align = read_recipe_text(tmp_path, PAIRS.replace("SETTINGS", settings)).models["M2"].align
    assert align is not None
    assert align.loss == settings[6:].partition(",")[0]


def test_variables_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("folder", "'${ZEPHYR_TEST_PLACE}/model'")
    monkeypatch.setenv("ZEPHYR_TEST_PLACE", "/there")
    assert read_recipe_text(tmp_path, text).models["M0"].base == "/there/model"
    monkeypatch.delenv("ZEPHYR_TEST_PLACE")
    with pytest.raises(ZephyrError, match=r"ZEPHYR_TEST_PLACE is not set(.|\n)*recipe.yaml:6"):
        read_recipe_text(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("kind: chat", "kiind: chat", 4, r"unknown key 'data.sft.kiind'(.|\n)*nearest: kind"),
        ("lr: 5e-5", "lrr: 5e-5", 9, r"unknown key 'models.M1.tune.lrr'(.|\n)*nearest: lr"),
        ("tune:", "tuna:", 9, r"unknown key 'models.M1.tuna'(.|\n)*nearest: tune"),
        ("name: small", "nane: small", 1, r"unknown key 'nane'(.|\n)*nearest: name"),
        ("lr: 5e-5", "lr: -1", 9, r"models.M1.tune.lr: .*greater than 0(.|\n)*found: +-1"),
        ("lr: 5e-5", "batch: 0", 9, "models.M1.tune.batch: .*greater than 0"),
        ("lr: 5e-5", "lora: {rank: 0}", 9, "models.M1.tune.lora.rank: .*greater than 0"),
        ("lr: 5e-5", "lr: .nan", 9, "models.M1.tune.lr"),
        ("lr: 5e-5", "load: nf4, lora: none", 9, "quantized weights can't be trained"),
        ("kind: chat", "kind: chat, holdout: 1.2", 4, "data.sft.holdout: .*less than 1"),
        ("kind: chat", "kind: chatt", 4, "data.sft.kind: .*'chat', 'pair'"),
        ("{base: folder}", "{base: folder, from: M1}", 6, "exactly one of `base`, `pretrain`"),
        ("    from: M0\n", "", 7, "exactly one of `base`, `pretrain`"),
        ("{base: folder}", "{base: folder, quantize: nf4}", 6, "`quantize` needs `from`"),
        ("origin: embedded", "name: small", 2, "stands twice"),
        ("goat", "{cap: 3}", 4, "needs a `name` from the table of sources, a `path` or `hub`"),
        ("data:\n", "data: [\n", 5, "not valid YAML"),
        ("  M0:", "  data.sft: {base: folder}\n  M0:", 1, "may not be called `data.sft`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(ZephyrError, match=message) as caught:
        read_recipe_text(tmp_path, GOOD.replace(old, new, 1))
    assert f"recipe.yaml:{line}" in str(caught.value)


@pytest.mark.parametrize(
    "override",
    ["models.M1.tune.lrr=1", "nonsense", "data.sft.sources.gaot.cap=1", "seed.x=1", "=3"],
)
def test_wrong_overrides_are_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ZephyrError):
        read_recipe_text(tmp_path, GOOD, override)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ZephyrError, match="not there"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(ZephyrError, match="empty"):
        read_recipe_text(tmp_path, "# nothing\n")
    with pytest.raises(ZephyrError, match="a recipe is a mapping"):
        read_recipe_text(tmp_path, "- a\n")


def test_recipes_are_found_by_name() -> None:
    assert find_recipe("embedded").resolve() == EMBEDDED_RECIPE
    with pytest.raises(ZephyrError, match="nearest: embedded"):
        find_recipe("embeded")


@pytest.mark.parametrize(
    "task", [{"name": "preferences", "data": "votes"}, {"name": "lm_eval:arc_easy"}]
)
def test_a_task_without_sources_has_no_unreadable_rows(task: dict[str, Any]) -> None:
    assert TaskSpec.model_validate(task).unreadable == 0.1
    with pytest.raises(ValidationError, match="`unreadable` belongs to tasks that read `sources`"):
        TaskSpec.model_validate(task | {"unreadable": 0.1})
