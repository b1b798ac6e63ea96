"""The readers on real files: every row is a record, or counted with the reason why it is none."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.data.in_memory_sources import read_source
from zephyr.data.read_stats import ReadStats
from zephyr.recipe.data import SourceSpec
from zephyr.records import Chat, Choice, Pair, Passage, Record, RecordKind


class RealFile(NamedTuple):
    """A file, how it is read, and what must come of it."""

    path: str
    kind: RecordKind
    rows: int
    name: str | None = None
    columns: dict[str, str] | None = None
    unreadable: dict[str, int] = {}  # noqa: RUF012  # never changed
    left_out: dict[str, int] = {}  # noqa: RUF012


EMPTY_OUTPUT = {"column 'output' is empty": 2}
FILES = [
    RealFile("gsm8k/train.jsonl.gz", "chat", 7_473, "gsm8k"),
    RealFile("gsm8k/test.jsonl.gz", "chat", 1_319, "gsm8k"),
    RealFile("gsm8k/test_socratic.jsonl.gz", "chat", 1_319, "gsm8k"),
    RealFile("hellaswag/validation_first_5000.jsonl.gz", "choice", 5_000, "hellaswag"),
    RealFile("wikitext2/wiki.test.raw.txt.gz", "passage", 1, "wikitext2"),
    RealFile("wikitext2/wiki.valid.tokens.txt.gz", "passage", 1, "wikitext2"),
    RealFile("mmlu/mmlu_test.jsonl.gz", "choice", 14_042, "mmlu"),
    RealFile("mmlu/mmlu_dev.jsonl.gz", "choice", 285, "mmlu"),
    RealFile("arc/ARC-Challenge-Train.jsonl.gz", "choice", 1_119, "arc_challenge"),
    RealFile("arc/ARC-Challenge-Dev.jsonl.gz", "choice", 299, "arc_challenge"),
    RealFile("sft/open_platypus.jsonl.gz", "chat", 19_035, "open_platypus"),
    RealFile("sft/lima.json.gz", "chat", 1_029, "lima"),
    RealFile("sft/code_alpaca_2k.json.gz", "chat", 2_017, "code_alpaca", unreadable=EMPTY_OUTPUT),
    RealFile("sft/alpaca_5000.json.gz", "chat", 5_000, unreadable=EMPTY_OUTPUT),
    RealFile("sft/alpaca_en_demo.json.gz", "chat", 999),
    RealFile(
        "sft/WikiQA-dev.tsv.gz",
        "chat",
        1_130,
        "wiki_qa",
        {"question": "Question", "answer": "Sentence", "label": "Label"},
        left_out={"the answer is marked as wrong": 990},
    ),
    RealFile("preference/orca_dpo_pairs_sample.jsonl.gz", "pair", 284, "orca_dpo_pairs"),
    RealFile(
        "preference/hh_rlhf_harmless_base_test.jsonl.gz",
        "pair",
        2_312,
        unreadable={
            "column 'chosen' does not end with an answer, or a turn is empty": 4,
            "two turns of the assistant in a row": 4,
            "the last turn is the assistant's, not the user's": 4,
            "the conversations part before the last answer": 1,
        },
    ),
    RealFile("preference/dpo_en_demo.json.gz", "pair", 300),
    RealFile("tutoring/mathdial_test.jsonl.gz", "chat", 599, None, {"answer": "ground_truth"}),
]


def read_real_file(folder: Path, file: RealFile) -> tuple[list[Record], ReadStats]:
    source = SourceSpec(name=file.name, path=file.path, columns=file.columns)
    return read_source(source, file.kind, folder)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_every_row_is_a_record_or_has_a_reason(real_data: Path, file: RealFile) -> None:
    records, tally = read_real_file(real_data, file)
    assert tally.item_count == file.rows
    assert dict(tally.unreadable_reasons) == file.unreadable
    assert dict(tally.skip_reasons) == file.left_out
    lost = sum(file.unreadable.values()) + sum(file.left_out.values())
    assert len(records) == file.rows - lost
    assert {record.kind for record in records} == {file.kind}


FILES_BY_PATH = {file.path: file for file in FILES}


def test_wikitext_keeps_every_line(real_data: Path) -> None:
    for path, lines in (
        ("wikitext2/wiki.test.raw.txt.gz", 11_605),
        ("wikitext2/wiki.valid.tokens.txt.gz", 3_760),
    ):
        [whole], _ = read_real_file(real_data, FILES_BY_PATH[path])
        assert isinstance(whole, Passage)
        assert whole.text.count("\n") == lines


def test_earlier_turns_are_kept(real_data: Path) -> None:
    lima, _ = read_real_file(real_data, FILES_BY_PATH["sft/lima.json.gz"])
    turns = Counter(len(r.messages) for r in lima if isinstance(r, Chat))
    assert turns == {2: 1_000, 4: 15, 6: 10, 8: 3, 20: 1}
    demo, _ = read_real_file(real_data, FILES_BY_PATH["preference/dpo_en_demo.json.gz"])
    turns = Counter(len(r.prompt) for r in demo if isinstance(r, Pair))
    assert turns == {1: 114, 2: 80, 3: 1, 5: 57, 7: 46, 9: 1, 13: 1}


def test_questions_keep_as_many_options_as_they_have(real_data: Path) -> None:
    arc, _ = read_real_file(real_data, FILES_BY_PATH["arc/ARC-Challenge-Train.jsonl.gz"])
    options = Counter(len(r.choices) for r in arc if isinstance(r, Choice))
    assert options == {4: 1_117, 3: 1, 5: 1}


def test_questions_that_stand_twice_are_duplicates(real_data: Path) -> None:
    """MMLU asks 105 of its questions a second time, word for word."""
    records, _ = read_real_file(real_data, FILES_BY_PATH["mmlu/mmlu_test.jsonl.gz"])
    assert len(records) - len({r.id for r in records}) == 105
