"""Exports mixtures as data sets for LLaMA-Factory, TRL, `datasets` (Parquet), and the course.

    llama-factory   .json      chat      instruction, input, output, system, history
                               pair      instruction, input, chosen, rejected, system, history
    trl             .jsonl     chat      prompt, completion
                               pair      prompt, chosen, rejected
    parquet         .parquet   chat      messages, source
                               pair      prompt, chosen, rejected, aspect, source
                               choice    question, choices, answer, subject, source
                               passage   text, source
    course          .jsonl     pair      prompt, chosen, rejected
                               choice    subject, question, answer

TRL and Parquet keep a conversation as lists of turns, LLaMA-Factory earlier turns as `history`.
LLaMA-Factory trains on all assistant turns, as Zephyr does. TRL trains on the completion only: the
last answer; all turns before it are the prompt.

Zephyr reads each format back, with two exceptions. A prompt of the course is one text: a system
message and earlier turns come before the question in it, separated by blank lines and without
their roles. And a blank passage (a line of WikiText) is read only where its source allows it.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zephyr.data import quiz_format
from zephyr.data.mixture import RecordSplit
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Message, Pair, Passage, RecordKind
from zephyr.runs.store import explain_disk_errors, read_json, write_atomically, write_json

DatasetFormat = Literal["llama-factory", "trl", "parquet", "course"]
_Row = dict[str, Any]


def export_mixture(
    split: RecordSplit, folder: Path, name: str, export_format: DatasetFormat
) -> list[Path]:
    """Exports a mixture as `<name>` and its hold-out as `<name>_holdout`; returns the files.

    Without a hold-out that file is not written, and one of an earlier export is removed: its
    questions may now be in the training data.

    Raises:
        ZephyrError: the format can't hold the records, or another data set has the name.
    """
    writer, kind = _WRITERS[export_format], split.train[0].kind
    if kind not in writer.make_row:
        raise ZephyrError(
            f"the form {export_format!r} can't hold records of kind {kind!r}",
            allowed=[able for able, other in _WRITERS.items() if kind in other.make_row],
        )
    parts = {name: split.train, f"{name}_holdout": split.holdout}
    rows = {
        part: [writer.make_row[kind](record) for record in records]
        for part, records in parts.items()
    }
    files = {part: folder / f"{part}{writer.suffix}" for part in parts}
    dataset_info = _read_dataset_info(folder, files) if export_format == "llama-factory" else None
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for part, file in files.items():
        if rows[part]:
            write_atomically(file, writer.encode(rows[part]))
        else:
            file.unlink(missing_ok=True)
    written = [file for part, file in files.items() if rows[part]]
    if dataset_info is not None:
        dataset_info |= {file.stem: _dataset_info_entry(file, kind) for file in written}
        write_json(folder / _DATASET_INFO_FILE, dataset_info)
        written.append(folder / _DATASET_INFO_FILE)
    return written


# -- LLaMA-Factory --------------------------------------------------------------------------------

_DATASET_INFO_FILE = "dataset_info.json"


def _alpaca_row(prompt: Sequence[Message], answer: _Row) -> _Row:
    """A row in Alpaca's columns: the last question, its answer or answers, and the history."""
    system = [m.content for m in prompt if m.role == "system"]
    turns = [m.content for m in prompt if m.role != "system"]
    row = {"instruction": turns.pop(), "input": "", **answer}
    history = [list(turn) for turn in zip(turns[::2], turns[1::2], strict=True)]
    return row | {"system": "".join(system), "history": history}


def _alpaca_chat_row(record: Chat) -> _Row:
    *prompt, answer = record.messages
    return _alpaca_row(prompt, {"output": answer.content})


def _alpaca_pair_row(record: Pair) -> _Row:
    return _alpaca_row(record.prompt, {"chosen": record.chosen, "rejected": record.rejected})


def _read_dataset_info(folder: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    """Reads LLaMA-Factory's dataset_info.json, without the data sets that are to be written."""
    path = folder / _DATASET_INFO_FILE
    if not path.exists():
        return {}
    try:
        dataset_info = read_json(path)
    except ValueError as error:
        raise ZephyrError(
            f"{_DATASET_INFO_FILE} can't be read", where=str(path), found=error
        ) from error
    if not isinstance(dataset_info, dict):
        raise ZephyrError(
            f"{_DATASET_INFO_FILE} is not an object that names data sets",
            where=str(path),
            found=type(dataset_info).__name__,
        )
    for name, file in files.items():
        entry = dataset_info.pop(name, {"file_name": file.name})
        if not isinstance(entry, dict) or entry.get("file_name") != file.name:
            raise ZephyrError(
                f"another data set is called {name!r}",
                where=str(path),
                found=json.dumps(entry, ensure_ascii=False),
                todo="export to another folder, or under another name",
            )
    return dict(dataset_info)


def _dataset_info_entry(file: Path, kind: RecordKind) -> _Row:
    """An entry of dataset_info.json: the columns of a file, and if it has preference pairs."""
    columns = {"prompt": "instruction", "query": "input", "system": "system", "history": "history"}
    if kind == "chat":
        return {"file_name": file.name, "columns": columns | {"response": "output"}}
    answers = {"chosen": "chosen", "rejected": "rejected"}
    return {"file_name": file.name, "ranking": True, "columns": columns | answers}


# -- TRL, Parquet and the course ------------------------------------------------------------------


def _message_dicts(*messages: Message) -> list[dict[str, str]]:
    """Messages as the list of dicts that chat templates take."""
    return [{"role": m.role, "content": m.content} for m in messages]


def _trl_chat_row(record: Chat) -> _Row:
    *prompt, answer = record.messages
    return {"prompt": _message_dicts(*prompt), "completion": _message_dicts(answer)}


def _trl_pair_row(record: Pair) -> _Row:
    answers = {"chosen": record.chosen, "rejected": record.rejected}
    turns = {side: _message_dicts(Message("assistant", text)) for side, text in answers.items()}
    return {"prompt": _message_dicts(*record.prompt), **turns}


def _chat_row(record: Chat) -> _Row:
    return {"messages": _message_dicts(*record.messages), "source": record.source}


def _pair_row(record: Pair) -> _Row:
    return _trl_pair_row(record) | {"aspect": record.aspect, "source": record.source}


def _choice_row(record: Choice) -> _Row:
    row = {"question": record.text, "choices": list(record.choices), "answer": record.answer}
    return row | {"subject": record.subject, "source": record.source}


def _passage_row(record: Passage) -> _Row:
    return {"text": record.text, "source": record.source}


def _course_pair_row(record: Pair) -> _Row:
    prompt = "\n\n".join(m.content for m in record.prompt)
    return {"prompt": prompt, "chosen": record.chosen, "rejected": record.rejected}


# -- files ----------------------------------------------------------------------------------------


def _encode_json(rows: Sequence[_Row]) -> bytes:
    return ("[\n" + ",\n".join(_dump_row(row) for row in rows) + "\n]\n").encode()


def _encode_json_lines(rows: Sequence[_Row]) -> bytes:
    """Encodes JSONL, one row a line; only `\\n` ends a line, other characters are kept."""
    return "".join(f"{_dump_row(row)}\n" for row in rows).encode()


def _dump_row(row: _Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _encode_parquet(rows: Sequence[_Row]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


class _FormatWriter(NamedTuple):
    """How a format is written: the file's suffix, a row maker for each kind, and the encoder."""

    suffix: str
    make_row: Mapping[RecordKind, Callable[[Any], _Row]]
    encode: Callable[[Sequence[_Row]], bytes]


_WRITERS: Mapping[DatasetFormat, _FormatWriter] = {
    "llama-factory": _FormatWriter(
        ".json", {"chat": _alpaca_chat_row, "pair": _alpaca_pair_row}, _encode_json
    ),
    "trl": _FormatWriter(
        ".jsonl", {"chat": _trl_chat_row, "pair": _trl_pair_row}, _encode_json_lines
    ),
    "parquet": _FormatWriter(
        ".parquet",
        {"chat": _chat_row, "pair": _pair_row, "choice": _choice_row, "passage": _passage_row},
        _encode_parquet,
    ),
    "course": _FormatWriter(
        ".jsonl", {"pair": _course_pair_row, "choice": quiz_format.quiz_to_row}, _encode_json_lines
    ),
}
