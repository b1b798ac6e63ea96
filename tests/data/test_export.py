"""Exports: other tools open them, and Zephyr reads each of them back as it was."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.in_memory_sources import read_source
from tests.data.sample_rows import SAMPLE_ROWS
from zephyr.data.column_formats import detect_format
from zephyr.data.export import DatasetFormat, export_mixture
from zephyr.data.files import open_rows
from zephyr.data.mixture import RecordSplit
from zephyr.data.readers.parsing import SkippedRecord
from zephyr.data.table import SOURCES
from zephyr.errors import ZephyrError
from zephyr.recipe.data import SourceSpec
from zephyr.records import Chat, Choice, Message, Pair, Passage, Record, RecordKind

KINDS_OF_FORMAT: dict[DatasetFormat, tuple[RecordKind, ...]] = {
    "llama-factory": ("chat", "pair"),
    "trl": ("chat", "pair"),
    "parquet": ("chat", "pair", "choice", "passage"),
    "course": ("pair", "choice"),
}
FORMATS_AND_KINDS = [(form, kind) for form, kinds in KINDS_OF_FORMAT.items() for kind in kinds]
for_each_format_and_kind = pytest.mark.parametrize(("form", "kind"), FORMATS_AND_KINDS)


def read_file_back(path: Path, kind: RecordKind, name: str | None = None) -> list[Record]:
    """All records of a file, by the form of its columns or as a registered source."""
    found: list[Record] = []
    for row in open_rows(path, "here"):
        assert row.value is not None, row
        reader = detect_format(
            row.value, kind, SOURCES[name] if name else None, row.location
        ).reader
        for part in reader(row.value, "s"):
            assert isinstance(part, Record)
            found.append(part)
    return found


def record_contents(records: Sequence[Record]) -> list[Any]:
    """All that makes a record, with the topic of a quiz."""
    return [(r.content, r.subject if isinstance(r, Choice) else "") for r in records]


def conversation(*texts: str, system: str = "") -> tuple[Message, ...]:
    messages = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return (Message("system", system), *messages) if system else tuple(messages)


ODD_TEXT = 'one\u2028two\u0085\r\n\tthree \\ "four" 五 🙂\x00\ufeff'
CONVERSATIONS = [
    conversation("a", "b"),
    conversation(ODD_TEXT, f"\n{ODD_TEXT} "),
    conversation("a", "b", "c", "d", system=ODD_TEXT),
]
RECORDS_BY_KIND: dict[RecordKind, list[Record]] = {
    "chat": [Chat("one", messages) for messages in CONVERSATIONS],
    "pair": [Pair("one", messages[:-1], ODD_TEXT, "no", "truth") for messages in CONVERSATIONS],
    "choice": [
        Choice("one", ODD_TEXT, (ODD_TEXT, "no"), 1, "law"),
        Choice("two", "Which?\n\nOptions:\nA. what", ("a", "b", "a\nc", """ d """), 2),
    ],
    "passage": [Passage("one", ODD_TEXT), Passage("two", " = A = \n")],
}


def expected(records: Sequence[Record], form: DatasetFormat) -> list[Any]:
    """What is read back: all as it was, but that the course's form knows one text as a prompt."""
    if form == "course":
        records = [
            replace(r, prompt=(Message("user", "\n\n".join(m.content for m in r.prompt)),))
            if isinstance(r, Pair)
            else r
            for r in records
        ]
    return record_contents(records)


@for_each_format_and_kind
def test_every_form_is_read_back_as_it_was(
    tmp_path: Path, form: DatasetFormat, kind: RecordKind
) -> None:
    split = RecordSplit(RECORDS_BY_KIND[kind], RECORDS_BY_KIND[kind][:1])
    files = export_mixture(split, tmp_path / "new" / "folder", "mix", form)
    ending = {"llama-factory": ".json", "parquet": ".parquet"}.get(form, ".jsonl")
    names = [f"mix{ending}", f"mix_holdout{ending}"]
    names += ["dataset_info.json"] if form == "llama-factory" else []
    assert [file.name for file in files] == names
    assert sorted(p.name for p in files[0].parent.iterdir()) == sorted(names)
    for file, part in zip(files, split, strict=False):
        assert record_contents(read_file_back(file, kind)) == expected(part, form)


TEXT = st.text(min_size=1, max_size=20).filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    texts = draw(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
    system = draw(st.just("") | TEXT)
    return conversation(*(text for turn in texts for text in turn), system=system)


def _without_newlines(text: str) -> str:
    """No line breaks: in options of the course's form they may look like further ones."""
    return text.replace("\n", " ")


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    options = draw(st.lists(TEXT.map(_without_newlines).filter(str.strip), min_size=2, max_size=5))
    answer = draw(st.integers(0, len(options) - 1))
    return Choice("s", draw(TEXT), tuple(options), answer, draw(st.just("") | TEXT))


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    chosen, rejected = draw(st.lists(TEXT, min_size=2, max_size=2, unique=True))
    return Pair("s", draw(conversations())[:-1], chosen, rejected)


RECORD_STRATEGIES: dict[RecordKind, st.SearchStrategy[Record]] = {
    "chat": conversations().map(lambda messages: Chat("s", messages)),
    "pair": pairs(),
    "choice": choices(),
    "passage": TEXT.map(lambda text: Passage("s", text)),
}


@for_each_format_and_kind
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_written_is_read_back(
    tmp_path: Path, form: DatasetFormat, kind: RecordKind, data: st.DataObject
) -> None:
    records = data.draw(st.lists(RECORD_STRATEGIES[kind], min_size=1, max_size=4))
    [file, *_] = export_mixture(RecordSplit(records, []), tmp_path, "mix", form)
    assert record_contents(read_file_back(file, kind)) == expected(records, form)


def sample_records(kind: RecordKind) -> list[Record]:
    """The records that the examples of all sources of a kind give."""
    found: list[Record] = []
    for name, source in SOURCES.items():
        for row in SAMPLE_ROWS[name] if source.kind == kind else ():
            reader = detect_format(row, kind, source, "here").reader
            try:
                found += [part for part in reader(row, name) if isinstance(part, Record)]
            except SkippedRecord:
                continue
    return found


@for_each_format_and_kind
def test_records_of_every_source_are_read_back(
    tmp_path: Path, form: DatasetFormat, kind: RecordKind
) -> None:
    records = [r for r in sample_records(kind) if any(map(str.strip, r.texts))]
    [file, *_] = export_mixture(RecordSplit(records, []), tmp_path, "mix", form)
    assert record_contents(read_file_back(file, kind)) == expected(records, form)


REAL_FILES = [
    ("sft/lima.json.gz", "chat"),
    ("sft/code_alpaca_2k.json.gz", "chat"),
    ("preference/dpo_en_demo.json.gz", "pair"),
    ("preference/orca_dpo_pairs_sample.jsonl.gz", "pair"),
    ("arc/ARC-Challenge-Train.jsonl.gz", "choice"),
    ("mmlu/mmlu_dev.jsonl.gz", "choice"),
]


@pytest.mark.parametrize(("path", "kind"), REAL_FILES)
def test_real_records_are_read_back(
    real_data: Path, tmp_path: Path, path: str, kind: RecordKind
) -> None:
    records, _ = read_source(SourceSpec(path=path), kind, real_data)
    for form in (form for form, kinds in KINDS_OF_FORMAT.items() if kind in kinds):
        [file, *_] = export_mixture(RecordSplit(records, []), tmp_path, "mix", form)
        assert record_contents(read_file_back(file, kind)) == expected(records, form)


# -- what is written, to the letter ---------------------------------------------------------------


def read_json_file(path: Path) -> Any:
    return json.loads(path.read_text())


def read_json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


LONG_CONVERSATION = conversation("a", "b", "c", "d", system="s")
PROMPT_MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


def test_llama_factorys_conversations(tmp_path: Path) -> None:
    export_mixture(
        RecordSplit([Chat("x", LONG_CONVERSATION), Chat("x", LONG_CONVERSATION[1:3])], []),
        tmp_path,
        "sft",
        "llama-factory",
    )
    assert read_json_file(tmp_path / "sft.json") == [
        {"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]},
        {"instruction": "a", "input": "", "output": "b", "system": "", "history": []},
    ]
    assert read_json_file(tmp_path / "dataset_info.json") == {
        "sft": {
            "file_name": "sft.json",
            "columns": {
                "prompt": "instruction",
                "query": "input",
                "response": "output",
                "system": "system",
                "history": "history",
            },
        }
    }


def test_llama_factorys_preferences(tmp_path: Path) -> None:
    pair = Pair("x", LONG_CONVERSATION[:-1], "d", "e")
    export_mixture(RecordSplit([pair], [pair]), tmp_path, "dpo", "llama-factory")
    before = {"instruction": "c", "input": "", "system": "s", "history": [["a", "b"]]}
    assert read_json_file(tmp_path / "dpo.json") == [before | {"chosen": "d", "rejected": "e"}]
    columns = {
        "prompt": "instruction",
        "query": "input",
        "chosen": "chosen",
        "rejected": "rejected",
        "system": "system",
        "history": "history",
    }
    assert read_json_file(tmp_path / "dataset_info.json") == {
        name: {"file_name": f"{name}.json", "ranking": True, "columns": columns}
        for name in ("dpo", "dpo_holdout")
    }


def test_trls_turns(tmp_path: Path) -> None:
    export_mixture(RecordSplit([Chat("x", LONG_CONVERSATION)], []), tmp_path, "sft", "trl")
    assert read_json_lines(tmp_path / "sft.jsonl") == [
        {"prompt": PROMPT_MESSAGES, "completion": [{"role": "assistant", "content": "d"}]}
    ]
    export_mixture(
        RecordSplit([Pair("x", LONG_CONVERSATION[:-1], "d", "e")], []), tmp_path, "dpo", "trl"
    )
    assert read_json_lines(tmp_path / "dpo.jsonl") == [
        {
            "prompt": PROMPT_MESSAGES,
            "chosen": [{"role": "assistant", "content": "d"}],
            "rejected": [{"role": "assistant", "content": "e"}],
        }
    ]


def test_the_courses_lines(tmp_path: Path) -> None:
    """One text as a prompt: what was said before stands above the question."""
    export_mixture(
        RecordSplit([Pair("x", LONG_CONVERSATION[:-1], "d", "e")], []), tmp_path, "dpo", "course"
    )
    assert read_json_lines(tmp_path / "dpo.jsonl") == [
        {"prompt": "s\n\na\n\nb\n\nc", "chosen": "d", "rejected": "e"}
    ]
    export_mixture(
        RecordSplit([Choice("x", "Why?", ("a", "b"), 1, "law")], []), tmp_path, "quiz", "course"
    )
    assert read_json_lines(tmp_path / "quiz.jsonl") == [
        {
            "subject": "law",
            "question": "Question: Why?\n\nOptions:\nA. a\nB. b\n\nAnswer:",
            "answer": "B",
        }
    ]


def test_columns_of_parquet(tmp_path: Path) -> None:
    columns = {
        "chat": ["messages", "source"],
        "pair": ["prompt", "chosen", "rejected", "aspect", "source"],
        "choice": ["question", "choices", "answer", "subject", "source"],
        "passage": ["text", "source"],
    }
    for kind, records in RECORDS_BY_KIND.items():
        [file] = export_mixture(RecordSplit(records, []), tmp_path, kind, "parquet")
        [first, *_] = (row.value for row in open_rows(file, "here"))
        assert first is not None
        assert list(first) == columns[kind]
        assert first["source"] == "one"
        assert first.get("aspect", "truth") == "truth"


def test_lines_end_in_newlines_alone_and_characters_stand_as_they_are(tmp_path: Path) -> None:
    [file] = export_mixture(RecordSplit(RECORDS_BY_KIND["chat"], []), tmp_path, "mix", "trl")
    written = file.read_bytes()
    assert written.count(b"\n") == len(RECORDS_BY_KIND["chat"])
    assert b"\r" not in written
    assert "one\u2028two\u0085".encode() in written
    assert "五 🙂".encode() in written


def test_blank_lines_of_wikitext_are_read_as_its_own(tmp_path: Path) -> None:
    passages: list[Record] = [Passage("w", " = A = \n"), Passage("w", "")]
    [file] = export_mixture(RecordSplit(passages, []), tmp_path, "text", "parquet")
    assert record_contents(read_file_back(file, "passage", "wikitext2")) == record_contents(
        passages
    )


# -- what is there already, and what can't be ------------------------------------------------------


def test_other_data_sets_stay_in_the_catalogue(tmp_path: Path) -> None:
    catalogue = tmp_path / "dataset_info.json"
    mine = {"file_name": "mine.json", "columns": {"prompt": "text"}}
    catalogue.write_text(json.dumps({"mine": mine, "far": {"hf_hub_url": "a/b"}}))
    for _ in range(2):
        export_mixture(
            RecordSplit(RECORDS_BY_KIND["chat"], RECORDS_BY_KIND["chat"]),
            tmp_path,
            "sft",
            "llama-factory",
        )
        export_mixture(RecordSplit(RECORDS_BY_KIND["pair"], []), tmp_path, "dpo", "llama-factory")
    assert read_json_file(catalogue).keys() == {"mine", "far", "sft", "sft_holdout", "dpo"}
    assert read_json_file(catalogue)["mine"] == mine


@pytest.mark.parametrize("form", KINDS_OF_FORMAT)
def test_a_hold_out_that_is_no_more_leaves_no_file(tmp_path: Path, form: DatasetFormat) -> None:
    records = RECORDS_BY_KIND["pair"]
    before = export_mixture(RecordSplit(records[1:], records[:1]), tmp_path, "mix", form)
    after = export_mixture(RecordSplit(records, []), tmp_path, "mix", form)
    assert len(before) - len(after) == 1
    assert sorted(tmp_path.iterdir()) == sorted(after)
    if form == "llama-factory":
        assert read_json_file(tmp_path / "dataset_info.json").keys() == {"mix"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "dataset_info.json can't be read"),
        ("[]", "dataset_info.json is not an object that names data sets"),
        ('{"mix": {"hf_hub_url": "a/b"}}', "another data set is called 'mix'"),
        ('{"mix_holdout": {"file_name": "x.csv"}}', "another data set is called 'mix_holdout'"),
        ('{"mix": 7}', "another data set is called 'mix'"),
    ],
)
def test_a_catalogue_that_is_in_the_way_is_left_as_it_is(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(ZephyrError) as caught:
        export_mixture(RecordSplit(RECORDS_BY_KIND["chat"], []), tmp_path, "mix", "llama-factory")
    assert caught.value.problem == problem
    assert [p.name for p in tmp_path.iterdir()] == ["dataset_info.json"]
    assert (tmp_path / "dataset_info.json").read_text() == text


FORMATS_OF_KIND: dict[RecordKind, str] = {
    "chat": "llama-factory, trl, parquet",
    "choice": "parquet, course",
    "passage": "parquet",
}


@pytest.mark.parametrize(
    ("form", "kind"),
    [(f, k) for f in KINDS_OF_FORMAT for k in RECORDS_BY_KIND if (f, k) not in FORMATS_AND_KINDS],
)
def test_a_kind_that_a_form_cannot_hold(
    tmp_path: Path, form: DatasetFormat, kind: RecordKind
) -> None:
    with pytest.raises(ZephyrError) as caught:
        export_mixture(RecordSplit(RECORDS_BY_KIND[kind], []), tmp_path / "new", "mix", form)
    assert str(caught.value).splitlines() == [
        f"the form {form!r} can't hold records of kind {kind!r}",
        f"  allowed: {FORMATS_OF_KIND[kind]}",
    ]
    assert not (tmp_path / "new").exists()


def test_a_quiz_that_the_course_would_read_as_another(tmp_path: Path) -> None:
    twisted: list[Record] = [Choice("x", "Why?", ("a\nB. b", "c"), 0)]
    with pytest.raises(ZephyrError, match="can't be written in the course's form"):
        export_mixture(RecordSplit(twisted, []), tmp_path, "mix", "course")
    assert not list(tmp_path.iterdir())


# -- the datasets library -------------------------------------------------------------------------


@pytest.fixture
def load_with_datasets(tmp_path: Path) -> Callable[[Path], list[Any]]:
    """Rows as the `datasets` library loads them from a file, into a cache of the test's own."""
    import datasets

    def load(path: Path) -> list[Any]:
        return list(
            datasets.load_dataset(
                path.suffix[1:].removesuffix("l"),
                data_files=str(path),
                split="train",
                cache_dir=str(tmp_path / "cache"),
            )
        )

    return load


@for_each_format_and_kind
def test_the_datasets_library_opens_it(
    tmp_path: Path,
    load_with_datasets: Callable[[Path], list[Any]],
    form: DatasetFormat,
    kind: RecordKind,
) -> None:
    [file, *_] = export_mixture(
        RecordSplit(RECORDS_BY_KIND[kind], []), tmp_path / "out", "mix", form
    )
    mine = [row.value for row in open_rows(file, "here")]
    assert load_with_datasets(file) == mine
