"""Files: every format gives its exact rows, and what is broken is reported with its location."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from zephyr.data.files import check_format, find_files, open_rows
from zephyr.data.rows import ConcatenatedRows, RenamedColumns, SourceRow
from zephyr.errors import ZephyrError

ROWS = [
    {"question": "Two\u2028lines?", "answer": 'Say "yes",\nthen go.'},
    {"question": "ÄΩ→😀", "answer": " kept blanks "},
]


def to_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def to_json_lines(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


FILE_CONTENTS = {
    "rows.json": json.dumps(ROWS, ensure_ascii=False).encode(),
    "rows.jsonl": to_json_lines(ROWS),
    "rows.csv": """\
question,answer
"Two\u2028lines?","Say ""yes"",
then go."
ÄΩ→😀, kept blanks \n""".encode(),
    "rows.parquet": to_parquet(ROWS),
}


TRUNCATED_GZIP_MESSAGE = "Compressed file ended before the end-of-stream marker was reached"


def write_file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read_rows(folder: Path, name: str, data: bytes) -> list[SourceRow]:
    return list(open_rows(write_file(folder, name, data), "data.sft"))


def error_lines(folder: Path, name: str, data: bytes) -> list[str]:
    """The lines of the message with which a file is refused, its folder left out."""
    with pytest.raises(ZephyrError) as caught:
        read_rows(folder, name, data)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


# -- what is whole --------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", FILE_CONTENTS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, packed: str) -> None:
    rows = read_rows(tmp_path, name + packed, FILE_CONTENTS[name])
    assert [row.value for row in rows] == ROWS
    assert [row.problem for row in rows] == ["", ""]


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_tabs_part_columns_and_quotes_are_text(tmp_path: Path, packed: str) -> None:
    data = b'question\tanswer\n"Why?\tSo "it" is, yes\n'
    [row] = read_rows(tmp_path, f"rows.tsv{packed}", data)
    assert row.value == {"question": '"Why?', "answer": 'So "it" is, yes'}


@pytest.mark.parametrize("name", ["text.txt", "text.raw", "text.tokens", "text.TXT", "text.txt.gz"])
def test_a_text_is_one_row(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert read_rows(tmp_path, name, b"one\r\n\r\n two\n") == [
        SourceRow(str(path), {"text": "one\r\n\r\n two\n"})
    ]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    rows = read_rows(tmp_path, name, b"\xef\xbb\xbf" + FILE_CONTENTS[name])
    assert [row.value for row in rows] == ROWS


def test_lines_may_end_as_in_windows_and_the_last_one_not_at_all(tmp_path: Path) -> None:
    rows = [{"a": "x\r\ny", "b": "z"}] * 2
    assert [r.value for r in read_rows(tmp_path, "r.jsonl", to_json_lines(rows, "\r\n"))] == rows
    assert [r.value for r in read_rows(tmp_path, "r.jsonl", to_json_lines(rows).rstrip())] == rows
    assert [
        r.value for r in read_rows(tmp_path, "r.csv", b'a,b\r\n"x\r\ny",z\r\n"x\r\ny",z')
    ] == rows
    assert [r.value for r in read_rows(tmp_path, "r.tsv", b"a\tb\r\nx\tz\r\n")] == [
        {"a": "x", "b": "z"}
    ]


def test_a_row_is_where_it_begins(tmp_path: Path) -> None:
    """Blank lines and cells of several lines are counted."""
    path = tmp_path / "r.jsonl"
    assert [r.location for r in read_rows(tmp_path, "r.jsonl", b'\n{"a": 1}\n\n\n{"a": 2}\n')] == [
        f"{path}:2",
        f"{path}:5",
    ]
    path = tmp_path / "r.csv"
    assert [r.location for r in read_rows(tmp_path, "r.csv", b'a,b\n"1\n2",3\n4,5\n')] == [
        f"{path}:2",
        f"{path}:4",
    ]
    path = tmp_path / "r.json"
    assert [r.location for r in read_rows(tmp_path, "r.json", b'[{"a": 1}, {"a": 2}]')] == [
        f"{path} row 1",
        f"{path} row 2",
    ]
    path = tmp_path / "r.parquet"
    rows = read_rows(tmp_path, "r.parquet", to_parquet([{"a": 1}, {"a": 2}]))
    assert [r.location for r in rows] == [f"{path} row 1", f"{path} row 2"]


def test_parquet_keeps_lists_and_nothing(tmp_path: Path) -> None:
    values = [{"choices": ["a", "b"], "answer": 1}, {"choices": [], "answer": None}]
    assert [r.value for r in read_rows(tmp_path, "r.parquet", to_parquet(values))] == values


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path, "r.json", b"[]") == []
    assert read_rows(tmp_path, "r.csv", b"question,answer\n") == []
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"a": []}), sink)
    assert read_rows(tmp_path, "r.parquet", sink.getvalue().to_pybytes()) == []


# -- rows that can't be read are given with the reason --------------------------------------------


def test_broken_lines_are_given_with_their_location(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    long = b'{"a": ' + b"1" * 5_000 + b"}"
    data = b"\n".join(
        [b'{"a": 1}', b'{"a": 1', b"[1]", b"null", deep, long, rb'{"a": "\ud83d"}', b'{"a": 2}']
    )
    rows = read_rows(tmp_path, "r.jsonl", data)
    assert [row.value for row in rows] == [{"a": 1}, *[None] * 6, {"a": 2}]
    assert [(row.location, row.problem) for row in rows[1:-1]] == [
        (f"{tmp_path}/r.jsonl:2", "not valid JSON"),
        (f"{tmp_path}/r.jsonl:3", "not an object with named columns"),
        (f"{tmp_path}/r.jsonl:4", "not an object with named columns"),
        (f"{tmp_path}/r.jsonl:5", "not valid JSON"),
        (f"{tmp_path}/r.jsonl:6", "not valid JSON"),
        (f"{tmp_path}/r.jsonl:7", "half a character (a surrogate without its other half)"),
    ]


def test_both_halves_of_a_character_are_one(tmp_path: Path) -> None:
    [row] = read_rows(tmp_path, "r.jsonl", rb'{"a": "\ud83d\ude00"}')
    assert row.value == {"a": "😀"}


@pytest.mark.parametrize(("name", "part"), [("r.csv", b","), ("r.tsv", b"\t")])
def test_rows_of_too_few_and_too_many_cells(tmp_path: Path, name: str, part: bytes) -> None:
    data = b"\n".join(part.join(row) for row in ([b"a", b"b"], [b"1"], [b"1"] * 3, [b"1", b"2"]))
    reason = "not as many columns as the first line names"
    assert read_rows(tmp_path, name, data) == [
        SourceRow(f"{tmp_path}/{name}:2", None, reason),
        SourceRow(f"{tmp_path}/{name}:3", None, reason),
        SourceRow(f"{tmp_path}/{name}:4", {"a": "1", "b": "2"}, has_text_cells=True),
    ]


# -- tables as spreadsheets write them -------------------------------------------------------------

CSV_ROWS = [{"topic": "a, b; c", "answer": 'say "x"\nthen'}, {"topic": "d", "answer": "e"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff", "sep"])
def test_a_csv_file_may_have_another_delimiter(tmp_path: Path, delimiter: str, start: str) -> None:
    start = f"sep={delimiter}\r\n" if start == "sep" else start
    lines = [("topic", "answer"), ('"a, b; c"', '"say ""x""\nthen"'), ("d", "e")]
    text = start + "".join(f"{delimiter.join(cells)}\r\n" for cells in lines)
    rows = read_rows(tmp_path, "r.csv", text.encode())
    assert [row.value for row in rows] == CSV_ROWS
    line = 3 if start.startswith("sep") else 2
    assert [row.location for row in rows] == [
        f"{tmp_path}/r.csv:{line}",
        f"{tmp_path}/r.csv:{line + 2}",
    ]


def test_the_delimiter_is_the_one_that_cuts_all_records_alike(tmp_path: Path) -> None:
    text = "question;options (A, B);answer\nWhy?;p, q;A\nHow?;r;B\n"
    [row, _] = read_rows(tmp_path, "r.csv", text.encode())
    assert row.value == {"question": "Why?", "options (A, B)": "p, q", "answer": "A"}
    text = "question,note; more\nWhy?,x\nHow?,y; z\n"
    [_, row] = read_rows(tmp_path, "r.csv", text.encode())
    assert row.value == {"question": "How?", "note; more": "y; z"}
    [row] = read_rows(tmp_path, "r.csv", b"text\none; two\n")
    assert row.value == {"text": "one; two"}


@pytest.mark.parametrize(("name", "part"), [("r.csv", ";"), ("r.csv", ","), ("r.tsv", "\t")])
def test_empty_columns_and_records_at_the_ends_are_none(
    tmp_path: Path, name: str, part: str
) -> None:
    cells = [["", "", "", ""], ["a", " b ", "", " "], ["1", "2", "", ""], ["3", "", "", "", "", ""]]
    cells += [["", "", "", ""], ["4", "5"], [" ", "", "", ""]]
    text = "".join(part.join(row) + "\n" for row in cells)
    rows = read_rows(tmp_path, name, text.encode())
    assert [row.value for row in rows] == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": ""},
        {"a": "4", "b": "5"},
    ]
    assert [row.location.rpartition(":")[2] for row in rows] == ["3", "4", "6"]


def test_a_column_without_a_name_is_kept_where_it_has_cells(tmp_path: Path) -> None:
    """The index that pandas writes is one; of several it is open what they are."""
    [row, _] = read_rows(tmp_path, "r.csv", b",a,\n0,x,\n1,y,\n")
    assert row.value == {"": "0", "a": "x"}
    assert error_lines(tmp_path, "r.csv", b",a,\n0,x,note\n") == [
        "several columns of a table have cells and no name",
        "  where:   r.csv:1",
        "  to do:   name them in the first line, or empty them",
    ]


# -- files that can't be read are refused ---------------------------------------------------------


def test_json_that_is_broken_at_a_line(tmp_path: Path) -> None:
    assert error_lines(tmp_path, "r.json", b'[{"a": 1},\n {"a": 2},\n {"a": }]') == [
        "a file is not valid JSON",
        "  where:   r.json:3",
        "  found:   Expecting value: line 3 column 8 (char 29)",
        "  to do:   mend it, or name it .jsonl if each line is a value of its own",
    ]
    assert error_lines(tmp_path, "r.json", b"[" * 100_000)[0] == "a file is not valid JSON"
    assert (
        error_lines(tmp_path, "r.json", b"[" + b"1" * 5_000 + b"]")[0] == "a file is not valid JSON"
    )


def test_json_that_is_no_list(tmp_path: Path) -> None:
    assert error_lines(tmp_path, "r.json", b'{"a": 1}') == [
        "a JSON file does not hold a list of rows",
        "  where:   r.json",
        "  found:   dict",
        "  allowed: [{...}, {...}]",
    ]


@pytest.mark.parametrize("name", [*FILE_CONTENTS, "rows.txt"])
def test_a_packed_file_that_is_cut_short(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path, f"{name}.gz", FILE_CONTENTS.get(name, b"text" * 99))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ZephyrError) as caught:
        list(open_rows(path, "data.sft"))
    assert str(caught.value).splitlines() == [
        "a packed file is damaged or cut short",
        "  where:   data.sft",
        f"  found:   {path}: {TRUNCATED_GZIP_MESSAGE}",
    ]


def test_a_packed_file_that_is_not_packed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(b'{"a": 1}')
    with pytest.raises(ZephyrError, match=r"damaged or cut short(.|\n)*Not a gzipped file"):
        list(open_rows(path, "data.sft"))


@pytest.mark.parametrize("name", ["r.parquet", "r.parquet.gz"])
def test_parquet_that_is_cut_short(tmp_path: Path, name: str) -> None:
    found = error_lines(tmp_path, name, to_parquet(ROWS)[:-7])
    assert found[:2] == ["a Parquet file can't be read", "  where:   data.sft"]
    assert found[2].startswith(f"  found:   {name}: ")


def test_parquet_whose_pages_are_damaged(tmp_path: Path) -> None:
    """The footer at the end is whole; the first page is not."""
    data = bytearray(to_parquet([{"a": "x" * 100}]))
    data[4:40] = bytes(36)
    found = error_lines(tmp_path, "r.parquet", bytes(data))
    assert found[0] == "a Parquet file can't be read"


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv", "r.tsv", "r.txt"])
def test_latin_1_is_refused_at_its_line(tmp_path: Path, name: str) -> None:
    found = error_lines(tmp_path, name, b"a\nb\nna\xefve\n")
    assert found == [
        "a file is not UTF-8",
        f"  where:   {name}:3",
        "  found:   'utf-8' codec can't decode byte 0xef in position 6: invalid continuation byte",
        "  to do:   save it as UTF-8",
    ]


@pytest.mark.parametrize("data", [b"", b" \n\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv", "r.txt", "r.jsonl.gz"])
def test_empty_files(tmp_path: Path, name: str, data: bytes) -> None:
    assert error_lines(tmp_path, name, data) == [
        "a file is empty",
        "  where:   data.sft",
        f"  found:   {name}",
    ]


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ZephyrError) as caught:
            check_format(path, "data.sft")
        assert str(caught.value).splitlines() == [
            "a file is not there",
            "  where:   data.sft",
            f"  found:   {path}",
            "  to do:   mend `path`: it is taken from the folder of the recipe",
        ]


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.gz", "rows.jsonl.zip"])
def test_unknown_endings(tmp_path: Path, name: str) -> None:
    assert error_lines(tmp_path, name, b"x") == [
        "a file is of no format that can be read",
        "  where:   data.sft",
        f"  found:   {name}",
        "  allowed: .json, .jsonl, .csv, .tsv, .parquet, .txt, .raw, .tokens, and each with .gz",
    ]


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    assert error_lines(tmp_path, "r.txt", b"x") == [
        "a file may not be read",
        "  where:   data.sft",
        "  found:   r.txt",
    ]


def test_a_quote_that_is_never_closed_is_refused_at_its_row(tmp_path: Path) -> None:
    """Read on, it would swallow all rows after it."""
    assert error_lines(tmp_path, "r.csv", b'a,b\n1,2\n"3,4\n5,6\n') == [
        "a table can't be read",
        "  where:   r.csv:3",
        "  found:   unexpected end of data",
        '  to do:   look for a " that is not closed; within quotes it is written twice',
    ]
    assert error_lines(tmp_path, "r.csv", b'a,b\n"say "hi"",2\n')[1] == "  where:   r.csv:2"


@pytest.mark.parametrize(("name", "part"), [("r.csv", b","), ("r.tsv", b"\t")])
def test_a_column_named_twice_is_refused(tmp_path: Path, name: str, part: bytes) -> None:
    assert error_lines(tmp_path, name, b"\n" + part.join([b"a", b"b", b"a"]) + b"\n") == [
        "a table names a column twice",
        f"  where:   {name}:2",
        "  found:   'a'",
    ]


def test_json_that_holds_an_object_a_line(tmp_path: Path) -> None:
    """Many data sets call such a file .json."""
    for end in ("\n", "\r\n"):
        assert [
            row.value for row in read_rows(tmp_path, "rows.json", to_json_lines(ROWS, end))
        ] == ROWS
    assert error_lines(tmp_path, "rows.json", b'{\n "a": 1\n}')[0] == (
        "a JSON file does not hold a list of rows"
    )


# -- rows by number -------------------------------------------------------------------------------

MANY_ROWS = [{"n": n, "text": f"row {n}", "more": [n]} for n in range(50)]


def write_many_rows(folder: Path, name: str) -> Path:
    """Fifty rows; those of Parquet in groups of seven."""
    path = folder / name
    if path.suffix == ".parquet":
        table = pyarrow.Table.from_pylist(MANY_ROWS)
        pyarrow.parquet.write_table(table, path, row_group_size=7)
    else:
        path.write_bytes(to_json_lines(MANY_ROWS))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_rows_come_in_the_order_that_is_asked_for(tmp_path: Path, name: str) -> None:
    rows = open_rows(write_many_rows(tmp_path, name), "data.sft")
    assert len(rows) == 50
    for numbers in ([], [49, 0, 7, 6, 6, 48], range(50)):
        assert [row.value for row in rows.take(numbers)] == [MANY_ROWS[n] for n in numbers]
    header = rows.header()
    assert header is not None
    assert header.columns == {"n", "text", "more"}


def test_only_the_columns_that_are_wanted_are_read(tmp_path: Path) -> None:
    rows = open_rows(write_many_rows(tmp_path, "rows.parquet"), "data.sft")
    wanted = RenamedColumns(rows, {"said": "text"}).take([9], {"said", "n", "other"})
    assert [row.value for row in wanted] == [{"n": 9, "said": "row 9"}]


def test_files_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("rows-b.jsonl", "rows-a.parquet", "other.jsonl"):
        write_many_rows(tmp_path, name)
    parts = find_files(tmp_path, "rows-?.*", "data.sft")
    assert [path.name for path in parts] == ["rows-a.parquet", "rows-b.jsonl"]
    rows = ConcatenatedRows([open_rows(path, "data.sft") for path in parts])
    assert len(rows) == 100
    taken = rows.take([99, 0, 50])
    assert [row.value for row in taken] == [MANY_ROWS[49], MANY_ROWS[0], MANY_ROWS[0]]
    assert [row.location for row in taken] == [
        f"{parts[1]}:50",
        f"{parts[0]} row 1",
        f"{parts[1]}:1",
    ]


def test_a_file_of_other_columns_among_several_has_rows_that_lack_them(tmp_path: Path) -> None:
    paths = [write_file(tmp_path, "a.parquet", to_parquet([{"q": 1}])), tmp_path / "b.parquet"]
    write_file(tmp_path, "b.parquet", to_parquet([{"other": 1}]))
    rows = ConcatenatedRows([open_rows(path, "data.sft") for path in paths])
    assert [row.value for row in rows.take([1, 0], {"q"})] == [{}, {"q": 1}]


def test_a_pattern_that_fits_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZephyrError, match=r"no file has a name of this pattern(.|\n)*x-\*\.json"):
        find_files(tmp_path, "x-*.json", "data.sft")
    assert find_files(tmp_path, "x.json", "data.sft") == [tmp_path / "x.json"]


# -- cells that can't be read ---------------------------------------------------------------------


def test_one_bad_cell_of_parquet_costs_one_row(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and a time beyond what Python knows."""
    bad = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    times = pyarrow.array([0, 0, 2**62], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"text": bad, "at": times}), tmp_path / "r.parquet")
    rows = open_rows(tmp_path / "r.parquet", "data.sft").take([2, 1, 0])
    assert [row.problem for row in rows] == ["a value that is beyond its type", "not UTF-8", ""]
    assert rows[2].value is not None
    assert rows[2].value["text"] == "a"


def test_a_column_gives_way_to_one_that_is_given_its_name(tmp_path: Path) -> None:
    row = {"q": "mapped", "instruction": "of the file", "output": "a"}
    for name, data in (("r.jsonl", to_json_lines([row])), ("r.parquet", to_parquet([row]))):
        rows = RenamedColumns(
            open_rows(write_file(tmp_path, name, data), "data.sft"), {"instruction": "q"}
        )
        header = rows.header()
        assert header is not None
        assert header.columns == {"instruction", "output"}
        expected = {"instruction": "mapped", "output": "a"}
        for columns in (None, ("instruction", "output")):
            assert [found.value for found in rows.take([0], columns)] == [expected]


def test_a_return_within_a_cell_of_tabs_is_text(tmp_path: Path) -> None:
    [row] = read_rows(tmp_path, "r.tsv", b"q\ta\r\nfirst\rsecond\tx\r\n")
    assert row.value == {"q": "first\rsecond", "a": "x"}


def test_json_nested_without_end_is_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    for depth in (900, 980, 986, 990, 5_000):
        deep = b'{"a": ' + b"[" * depth + b"]" * depth + b"}\n"
        [row] = read_rows(tmp_path, "r.jsonl", deep)
        assert row.value is not None or row.problem
