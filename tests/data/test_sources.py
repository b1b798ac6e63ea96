"""Sources of a recipe: where they lie, which split is read, and what is never trained on."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.data.in_memory_sources import read_source
from zephyr.data import hub
from zephyr.data.sources import hub_query
from zephyr.errors import ZephyrError
from zephyr.recipe.data import SourceSpec, Use


@pytest.mark.parametrize(
    ("source", "use", "repo", "pattern", "revision"),
    [
        (
            {"name": "goat"},
            "train",
            "tiedong/goat",
            "default/train/*.parquet",
            "refs/convert/parquet",
        ),
        (
            {"name": "mmlu"},
            "train",
            "cais/mmlu",
            "all/auxiliary_train/*.parquet",
            "refs/convert/parquet",
        ),
        ({"name": "mmlu"}, "exam", "cais/mmlu", "all/test/*.parquet", "refs/convert/parquet"),
        ({"name": "shp_askphysics"}, "train", "stanfordnlp/SHP", "askphysics/train.json", "main"),
        (
            {"name": "gsm8k", "config": "socratic", "revision": "a" * 40},
            "exam",
            "openai/gsm8k",
            "socratic/test/*.parquet",
            "a" * 40,
        ),
        ({"hub": "me/mine"}, "train", "me/mine", "default/train/*.parquet", "refs/convert/parquet"),
        ({"hub": "me/mine", "files": "data/*.csv"}, "train", "me/mine", "data/*.csv", "main"),
    ],
)
def test_where_a_source_lies(
    source: dict[str, str], use: Use, repo: str, pattern: str, revision: str
) -> None:
    found = hub_query(SourceSpec.model_validate(source), use, "here")
    assert found == hub.HubQuery(repo, (pattern,), revision)


@pytest.mark.parametrize(
    "source",
    [
        {"name": "gsm8k", "split": "test"},
        {"name": "hellaswag", "split": "validation"},
        {"name": "arc_easy", "split": "test"},
        {"hub": "openai/gsm8k", "config": "main", "split": "test"},
        {"hub": "Rowan/hellaswag", "split": "validation"},
        {"name": "gsm8k", "hub": "openai/gsm8k", "split": "socratic_test"},
        {"hub": "me/mine", "split": "test"},
    ],
)
def test_what_is_for_tests_is_never_trained_on(source: dict[str, str]) -> None:
    spec = SourceSpec.model_validate(source)
    with pytest.raises(ZephyrError, match="is for tests, and never trained on"):
        hub_query(spec, "train", "here")
    assert hub_query(spec, "exam", "here") is not None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"cap": 3}, "needs a `name`"),
        ({"path": "a.jsonl", "hub": "me/mine"}, "with a `path` has no `hub`"),
        ({"path": "a.jsonl", "files": "x"}, "with a `path` has no `files`"),
        ({"path": "*.jsonl"}, "needs a `name`"),
        ({"name": "goat", "columns": {"a": "b"}}, "belongs to a source with"),
        ({"path": "a.jsonl", "columns": {"a": "c", "b": "c"}}, "two names"),
        ({"hub": "../../etc"}, "pattern"),
    ],
)
def test_what_a_source_cannot_say(source: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SourceSpec.model_validate(source)


def test_a_pattern_names_several_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"part-{name}.jsonl").write_text(
            f'{{"question": "{name}?", "answer": "So."}}\n'
        )
    records, tally = read_source(SourceSpec(name="mine", path="part-*.jsonl"), "chat", tmp_path)
    assert [record.texts[0] for record in records] == ["a?", "b?"]
    assert (tally.item_count, {record.source for record in records}) == (2, {"mine"})
