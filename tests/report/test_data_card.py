"""The data card: every count, every licence, and what it forbids."""

from pathlib import Path

import pytest

from tests.report.conftest import new_recipe_runs, training_rows
from zephyr.report.data_card import data_card
from zephyr.report.page import write_report
from zephyr.report.results import read_results
from zephyr.report.sections import summarize_mixtures

ROW = {
    "seen": 1030,
    "unreadable": {"column 'conversations' is not a list": 4},
    "left_out": {"both answers | are the same": 2},
    "duplicates": 5,
    "contaminated": 7,
    "near_duplicates": 8,
    "capped": 0,
    "kept": 1004,
    "held_out": 60,
    "characters": 123456,
}
MANIFEST = {
    "seed": 3,
    "clean": "report",
    "ngram": 9,
    "content": "0123456789abcdef",
    "sources": {"lima": ROW, "mine": ROW},
    "unused_columns": {"lima": {}, "mine": {"embedding": None, "topic": 1004}},
    "shared_answers": {"holdout": 60, "records": 12, "answers": {"answer": 12}},
    "totals": {key: 2 * (sum(v.values()) if isinstance(v, dict) else v) for key, v in ROW.items()},
}
MODELS = {"M0": {"base": "b"}, "M1": {"from": "M0", "tune": {"data": "chat"}}}
TOKENS = {"examples": 900, "overlong": 3, "cut": 12, "cut_messages": 5, "cut_tokens": 1678}
TOKENS |= {"tokens": 6789, "supervised_tokens": 4321}


@pytest.fixture
def card(tmp_path: Path) -> str:
    sources = ["lima", {"path": "mine.jsonl"}]
    data = {"chat": {"kind": "chat", "clean": "report", "sources": sources}}
    runs = new_recipe_runs(tmp_path, models=MODELS, data=data)
    runs.finish("data.chat", manifest=MANIFEST)
    example_counts = {"train": 900, "train_overlong": 3, "holdout": 60, "holdout_overlong": 0}
    example_counts |= {"max_length": 128, "supervised_tokens": 4321, "sources": {"lima": TOKENS}}
    runs.finish("M1", training_rows([2.0, 1.0]), examples=example_counts)
    results = read_results(runs.store, "demo")
    [account] = summarize_mixtures(results)
    assert [source.tokens for source in account.sources] == [6789, None]
    assert account.total.tokens == 6789
    assert not account.is_cleaned
    page = write_report(runs.store, "demo")
    lost = "the prompts of 12 examples were cut; they lost 5 messages and 1,678 tokens"
    assert lost in page.read_text()
    path = page.with_name("data-chat.md")
    card = path.read_text()
    mixture = results.recipe.data["chat"]
    assert data_card("chat", mixture, MANIFEST, {"lima": TOKENS}, None) == card
    return card


def test_a_card_tells_all_counts(card: str) -> None:
    assert "| lima | 1,030 | 4 | 2 | 5 | 7 | 8 | 0 | 1,004 | 60 | 123,456 |" in card
    assert "| all | 2,060 | 8 | 4 | 10 | 14 | 16 | 0 | 2,008 | 120 | 246,912 |" in card
    assert "- lima: 2 x both answers | are the same" in card
    assert "| lima | 900 | 3 | 12 | 5 | 1,678 | 6,789 | 4,321 |" in card
    assert "(runs of 9 words), and near-duplicates are kept, and only counted" in card


def test_a_card_tells_unused_columns_and_answers_on_both_sides(card: str) -> None:
    assert "- mine: columns that were not used: embedding, topic (1,004 rows)\n" in card
    assert "- lima: columns" not in card
    assert (
        "- 12 of 60 held-out records have an answer that is trained on too (12 answer): "
        "hold-out scores may be biased by it\n"
    ) in card


def test_a_card_tells_licences_and_what_they_forbid(card: str) -> None:
    assert "[GAIR/lima](https://huggingface.co/datasets/GAIR/lima)" in card
    assert "CC-BY-NC-SA-4.0" in card
    assert "commercial" in card
    assert "- **mine**: mine.jsonl; its licence is not known to Zephyr." in card


def test_a_mixture_of_an_earlier_version_has_no_card(tmp_path: Path) -> None:
    """Its account is shown as far as it goes."""
    old = ("seen", "unreadable", "left_out", "duplicates", "capped", "kept", "held_out")
    row = {key: ROW[key] for key in (*old, "characters")}
    runs = new_recipe_runs(
        tmp_path, data={"chat": {"kind": "chat", "sources": ["lima"]}}, models=MODELS
    )
    runs.finish("data.chat", manifest={"seed": 3, "sources": {"lima": row}})
    example_counts = {"train": 9, "train_overlong": 3, "holdout": 6, "holdout_overlong": 0}
    example_counts |= {"max_length": 128, "supervised_tokens": 4321}
    runs.finish("M1", training_rows([2.0, 1.0]), examples=example_counts)
    page = write_report(runs.store, "demo")
    assert "1,004" in page.read_text()
    assert not page.with_name("data-chat.md").exists()
