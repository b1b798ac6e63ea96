"""The model card: how it was made, what it scored, what holds for its data; and no one's paths."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.report.conftest import new_recipe_runs
from zephyr.recipe.schema import Recipe
from zephyr.report.model_card import (
    ExportFormat,
    _escape_markdown,
    _fence_code,
    _strip_folders,
    model_card,
)

HOME = "/home/somebody/private models"
DATA = {
    "text": {"kind": "passage", "sources": [{"path": f"{HOME}/te|xt<b>.jsonl"}]},
    "chat": {
        "kind": "chat",
        "clean": "report",
        "sources": ["lima", {"hub": "org/set", "files": "*.json"}],
    },
    "pairs": {"kind": "pair", "sources": [{"path": "pairs.jsonl"}]},
}


def make_card(
    folder: Path, name: str = "M2", form: ExportFormat = "merged", **overrides: Any
) -> str:
    models = {
        "M0": {"base": f"{HOME}/Base-1B"},
        "M1": {"from": "M0", "tune": {"data": "chat"}},
        "M2": {"from": "M1", "align": {"data": "pairs"}},
    }
    spec = {"models": models, "data": DATA} | overrides
    runs = new_recipe_runs(folder, "mcqa", "gsm8k", **spec)
    for model in spec["models"]:
        runs.finish(model)
    right = {"M0": 20, "M1": 60, "M2": 62}
    for model in spec["models"]:
        items = {str(i): float(i < right[model]) for i in range(100)}
        runs.score(f"{model}/mcqa", items, protocol=f"mcqa@1 · {HOME}/quiz.csv")
    runs.score("M2/gsm8k", {"a": None})
    return model_card(
        runs.store,
        Recipe.model_validate(runs.spec),
        name,
        runs.nodes[name]["fingerprint"],
        export_format=form,
        contents=f"an adapter for {HOME}/Base-1B",
        notes=["3 of its matrices stay in *f16*."],
        base_hub_id=None,
    )


def card_header(text: str) -> dict[str, Any]:
    _, head, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_the_header_is_what_the_hub_reads(tmp_path: Path) -> None:
    text = make_card(tmp_path)
    assert text.startswith("---\n")
    assert card_header(text) == {
        "license": "other",
        "license_name": "see-data-and-licences",
        "datasets": ["GAIR/lima", "org/set"],
        "tags": ["zephyr", "tutor", "sft", "lora", "dpo"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }


@pytest.mark.parametrize(
    ("form", "relation", "library"),
    [("peft", "adapter", "peft"), ("merged", "finetune", "transformers"), ("gguf",) * 3],
)
def test_the_header_names_a_base_of_the_hub(
    tmp_path: Path, form: ExportFormat, relation: str, library: str
) -> None:
    runs = new_recipe_runs(tmp_path, models={"M0": {"base": "org/base"}})
    runs.write_nodes()
    recipe = Recipe.model_validate(runs.spec)
    text = model_card(
        runs.store,
        recipe,
        "M0",
        "0",
        export_format=form,
        contents="it",
        notes=[],
        base_hub_id="org/base",
        base_licence="apache-2.0",
    )
    relation, library = ("quantized", "llama.cpp") if form == "gguf" else (relation, library)
    head = card_header(text)
    assert (head["base_model"], head["base_model_relation"]) == ("org/base", relation)
    assert head["library_name"] == library
    assert ("gguf" in head["tags"]) == (form == "gguf")
    assert "[org/base](https://huggingface.co/org/base), whose licence (apache-2.0) holds" in text
    assert "It has not been measured" in text


def test_scores_stand_with_interval_n_verdict_and_protocol(tmp_path: Path) -> None:
    text = make_card(tmp_path, "M1")
    assert re.search(
        r"^\| mcqa acc % ↑ \| 60\.0 \| \[49\.7, 69\.7\] \| 100 \| \+40\.0 \[.*\] \| better \|$",
        text,
        re.MULTILINE,
    )
    assert "- mcqa acc % ↑: mcqa@1 · " in text
    other = make_card(tmp_path / "2")
    assert "cannot tell; n=100, about" in other
    assert "- gsm8k acc % ↑ has no value: nothing to score" in other


def test_scores_of_another_model_of_the_same_name_are_not_shown(tmp_path: Path) -> None:
    make_card(tmp_path, "M1")
    runs = new_recipe_runs(tmp_path, "mcqa", "gsm8k", data=DATA)
    recipe = Recipe.model_validate(runs.spec)
    text = model_card(
        runs.store,
        recipe,
        "M1",
        "0" * 20,
        export_format="peft",
        contents="",
        notes=[],
        base_hub_id=None,
    )
    assert "It has not been measured under the recipe as it was last run." in text
    assert "mcqa acc" not in text


def test_data_have_their_licences_and_what_these_forbid(tmp_path: Path) -> None:
    text = make_card(tmp_path)
    assert "licence: CC-BY-NC-SA-4.0" in text
    assert "commercial use is not allowed" in text
    assert "- **set**: org/set; its licence is not known to Zephyr." in text
    assert "It comes from a base model in a local folder" in text
    assert "In chat, records that hold a question of the recipe's tasks were counted" in text
    assert "\n- 3 of its matrices stay in \\*f16\\*.\n" in text


def test_what_zephyr_made_itself_is_free_and_said_to_be_generated(tmp_path: Path) -> None:
    data = {
        "text": {"kind": "passage", "sources": ["primer"]},
        "chat": {"kind": "chat", "sources": ["lima"]},
        "pairs": {"kind": "pair", "sources": ["truthy_dpo"]},
    }
    models = {"M0": {"pretrain": {"data": "text"}}, "M1": {"from": "M0", "tune": {"data": "chat"}}}
    models["M2"] = {"from": "M1", "align": {"data": "pairs"}}
    text = make_card(tmp_path, data=data, models=models, origin="embedded")
    head = card_header(text)
    assert (head["license"], head["language"]) == ("apache-2.0", ["en"])
    assert "datasets" not in head
    assert "**lima**: made by Zephyr." in text
    assert "The texts of this recipe are generated" in text


def test_it_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    text = make_card(tmp_path)
    for part in ("/home", "somebody", "private", str(tmp_path)):
        assert part not in text
    assert "an adapter for Base-1B" in text
    assert "1. **M0**: base Base-1B" in text


def test_the_recipe_in_it_makes_the_same_models(tmp_path: Path) -> None:
    text = make_card(tmp_path)
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    recipe = Recipe.model_validate(yaml.safe_load(found[1]))
    assert recipe.seed == 3
    assert recipe.models["M0"].base == "Base-1B"
    assert (
        recipe.data["chat"]
        == Recipe.model_validate({"name": "n", "data": DATA, "models": {"M0": {"base": "b"}}}).data[
            "chat"
        ]
    )
    assert "zephyr export M2 --recipe recipe.yaml --to merged --out FOLDER" in text


def test_text_from_files_stays_text() -> None:
    assert _escape_markdown("a|b <img> [x](y) *z*\n# h `c`") == (
        "a\\|b &lt;img&gt; \\[x\\](y) \\*z\\* \\# h \\`c\\`"
    )
    assert _fence_code("a\n````\nb\n", "") == "`````\na\n````\nb\n`````"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("/home/a b/c.jsonl", "c.jsonl"),
        ("~/c.jsonl", "c.jsonl"),
        ("C:\\Users\\a\\c.jsonl", "c.jsonl"),
        ("asked of /home/a/c.jsonl, twice", "asked of c.jsonl, twice"),
        ("data/c.jsonl", "data/c.jsonl"),
        ("../c.jsonl", "../c.jsonl"),
        ("https://a.b/c/d", "https://a.b/c/d"),
        ("Human: / Assistant: 1/2/3", "Human: / Assistant: 1/2/3"),
        ("org/name@main", "org/name@main"),
    ],
)
def test_absolute_paths_lose_where_they_lie(text: str, bare: str) -> None:
    assert _strip_folders(text) == bare
