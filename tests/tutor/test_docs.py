"""docs/tutor.md: its settings can be read, and it leaves none out."""

import json
import re
from pathlib import Path

import yaml

from tests.conftest import ROOT
from zephyr.recipe.data import MixtureSpec
from zephyr.recipe.models import ModelSpec
from zephyr.recipe.part import RecipePart
from zephyr.recipe.yaml_positions import YamlLoader
from zephyr.tutor.events import Event
from zephyr.tutor.preferences import to_raw_rows
from zephyr.tutor.settings import (
    DEFAULT_HINTS,
    Limits,
    LogSettings,
    QuizSettings,
    TutorSettings,
    read_settings,
)

TEXT = (ROOT / "docs" / "tutor.md").read_text(encoding="utf-8")
SETTINGS, RECIPE = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_can_be_read_and_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "tutor.yaml"
    path.write_text(SETTINGS)
    tutor, _ = read_settings(path)
    assert tutor.model_fields_set == set(TutorSettings.model_fields)
    assert tutor.hints == DEFAULT_HINTS
    parts: list[RecipePart] = [tutor.limits, tutor.quiz, tutor.logs]
    for part in parts:
        assert part.model_fields_set == set(type(part).model_fields)


def test_every_setting_and_its_default_is_described() -> None:
    rows = dict(re.findall(r"\| `([\w.]+)` \|.*\| (.*) \|", TEXT))
    parts: dict[str, type[RecipePart]] = {
        "limits": Limits,
        "quiz": QuizSettings,
        "logs": LogSettings,
    }
    names = [name for name in TutorSettings.model_fields if name not in parts]
    names += [f"{key}.{name}" for key, part in parts.items() for name in part.model_fields]
    assert sorted(rows) == sorted(names)
    tutor = TutorSettings()
    for name in ("limits.message", "limits.tokens", "limits.batch", "limits.queue"):
        assert rows[name] == str(getattr(tutor.limits, name.partition(".")[2]))
    assert rows["logs.keep_days"] == str(tutor.logs.keep_days)
    assert rows["course"] == tutor.course
    assert float(rows["temperature"]) == tutor.temperature


def test_the_votes_are_those_that_are_exported() -> None:
    [row] = json.loads(re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)[0])
    [preferred] = row["preference"]
    criteria = {key: value for key, value in preferred["criteria"].items() if value is not None}
    comparison = {
        "messages": [["user", row["question_complete"]]],
        "answers": {side: preferred[side] for side in "AB"},
        "models": {"A": "M1", "B": "M2"},
    }
    vote = {"overall": criteria.pop("overall"), "criteria": criteria}
    events = [
        Event(1, "", None, "comparison", None, "1", comparison),
        Event(2, "", None, "vote", None, "1", vote),
    ]
    assert to_raw_rows(events, "Mechanics I") == [row]


def test_the_recipe_can_be_read() -> None:
    recipe = yaml.load(RECIPE, Loader=YamlLoader)
    MixtureSpec.model_validate(recipe["data"]["class"])
    ModelSpec.model_validate(recipe["models"]["M3"])
