"""Mixtures for other tools: LLaMA-Factory, TRL, the `datasets` library, and the course.

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

TRL and Parquet keep a conversation as lists of turns, LLaMA-Factory earlier turns as `history`. It
learns what the assistant said in all of them, as Zephyr does. TRL learns the completion alone: the
last answer, to which all that was said before is the prompt.

Zephyr reads each form back as it was, but for two things. The course knows one text as a prompt: a
system message and earlier turns stand before the question in it, with a blank line between, and
nothing says whose they are. And a blank passage (a line of WikiText) is read only where its source
allows it.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zephyr.data import course
from zephyr.data.mixture import Split
from zephyr.errors import ZephyrError
from zephyr.records import Chat, Choice, Kind, Message, Pair, Passage
from zephyr.runs.store import full_disk_explained, read_json, write_atomically, write_json

Form = Literal["llama-factory", "trl", "parquet", "course"]
_Row = dict[str, Any]


def export(split: Split, folder: Path, name: str, form: Form) -> list[Path]:
    """Writes a mixture as `<name>`, and what it holds out as `<name>_holdout`; gives the files.

    Where nothing is held out there is no such file, and one that an earlier export left is removed:
    its questions may now be among those to train on.

    Raises:
        ZephyrError: the form can't hold the records, or another data set has the name.
    """
    writer, kind = _WRITERS[form], split.train[0].kind
    if kind not in writer.rows:
        raise ZephyrError(
            f"the form {form!r} can't hold records of kind {kind!r}",
            allowed=[able for able, other in _WRITERS.items() if kind in other.rows],
        )
    parts = {name: split.train, f"{name}_holdout": split.holdout}
    rows = {
        part: [writer.rows[kind](record) for record in records] for part, records in parts.items()
    }
    files = {part: folder / f"{part}{writer.ending}" for part in parts}
    catalogue = _catalogue(folder, files) if form == "llama-factory" else None
    with full_disk_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for part, file in files.items():
        if rows[part]:
            write_atomically(file, writer.encode(rows[part]))
        else:
            file.unlink(missing_ok=True)
    written = [file for part, file in files.items() if rows[part]]
    if catalogue is not None:
        catalogue |= {file.stem: _entry(file, kind) for file in written}
        write_json(folder / _CATALOGUE, catalogue)
        written.append(folder / _CATALOGUE)
    return written


# -- LLaMA-Factory --------------------------------------------------------------------------------

_CATALOGUE = "dataset_info.json"


def _alpaca(prompt: Sequence[Message], answer: _Row) -> _Row:
    """Alpaca's columns: the last question, its answer or answers, and what was said before."""
    system = [m.content for m in prompt if m.role == "system"]
    said = [m.content for m in prompt if m.role != "system"]
    row = {"instruction": said.pop(), "input": "", **answer}
    history = [list(turn) for turn in zip(said[::2], said[1::2], strict=True)]
    return row | {"system": "".join(system), "history": history}


def _alpaca_chat(record: Chat) -> _Row:
    *prompt, answer = record.messages
    return _alpaca(prompt, {"output": answer.content})


def _alpaca_pair(record: Pair) -> _Row:
    return _alpaca(record.prompt, {"chosen": record.chosen, "rejected": record.rejected})


def _catalogue(folder: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    """The data sets that are known in a folder, but for those that are about to be written."""
    place = folder / _CATALOGUE
    if not place.exists():
        return {}
    try:
        known = read_json(place)
    except ValueError as error:
        raise ZephyrError(f"{_CATALOGUE} can't be read", where=str(place), found=error) from error
    if not isinstance(known, dict):
        raise ZephyrError(
            f"{_CATALOGUE} is not an object that names data sets",
            where=str(place),
            found=type(known).__name__,
        )
    for name, file in files.items():
        entry = known.pop(name, {"file_name": file.name})
        if not isinstance(entry, dict) or entry.get("file_name") != file.name:
            raise ZephyrError(
                f"another data set is called {name!r}",
                where=str(place),
                found=json.dumps(entry, ensure_ascii=False),
                todo="export to another folder, or under another name",
            )
    return dict(known)


def _entry(file: Path, kind: Kind) -> _Row:
    """What LLaMA-Factory has to know of a file: its columns, and whether it holds preferences."""
    columns = {"prompt": "instruction", "query": "input", "system": "system", "history": "history"}
    if kind == "chat":
        return {"file_name": file.name, "columns": columns | {"response": "output"}}
    answers = {"chosen": "chosen", "rejected": "rejected"}
    return {"file_name": file.name, "ranking": True, "columns": columns | answers}


# -- the others -----------------------------------------------------------------------------------


def _turns(*messages: Message) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


def _trl_chat(record: Chat) -> _Row:
    *prompt, answer = record.messages
    return {"prompt": _turns(*prompt), "completion": _turns(answer)}


def _trl_pair(record: Pair) -> _Row:
    answers = {"chosen": record.chosen, "rejected": record.rejected}
    turns = {side: _turns(Message("assistant", text)) for side, text in answers.items()}
    return {"prompt": _turns(*record.prompt), **turns}


def _chat(record: Chat) -> _Row:
    return {"messages": _turns(*record.messages), "source": record.source}


def _pair(record: Pair) -> _Row:
    return _trl_pair(record) | {"aspect": record.aspect, "source": record.source}


def _choice(record: Choice) -> _Row:
    row = {"question": record.text, "choices": list(record.choices), "answer": record.answer}
    return row | {"subject": record.subject, "source": record.source}


def _passage(record: Passage) -> _Row:
    return {"text": record.text, "source": record.source}


def _course_pair(record: Pair) -> _Row:
    prompt = "\n\n".join(m.content for m in record.prompt)
    return {"prompt": prompt, "chosen": record.chosen, "rejected": record.rejected}


# -- files ----------------------------------------------------------------------------------------


def _json(rows: Sequence[_Row]) -> bytes:
    return ("[\n" + ",\n".join(_dumped(row) for row in rows) + "\n]\n").encode()


def _json_lines(rows: Sequence[_Row]) -> bytes:
    """A row a line; lines end in `\\n` alone, and other characters stand as they are."""
    return "".join(f"{_dumped(row)}\n" for row in rows).encode()


def _dumped(row: _Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _parquet(rows: Sequence[_Row]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


class _Writer(NamedTuple):
    """How a form is written: the file's ending, a row of each kind it holds, and all rows."""

    ending: str
    rows: Mapping[Kind, Callable[[Any], _Row]]
    encode: Callable[[Sequence[_Row]], bytes]


_WRITERS: Mapping[Form, _Writer] = {
    "llama-factory": _Writer(".json", {"chat": _alpaca_chat, "pair": _alpaca_pair}, _json),
    "trl": _Writer(".jsonl", {"chat": _trl_chat, "pair": _trl_pair}, _json_lines),
    "parquet": _Writer(
        ".parquet",
        {"chat": _chat, "pair": _pair, "choice": _choice, "passage": _passage},
        _parquet,
    ),
    "course": _Writer(".jsonl", {"pair": _course_pair, "choice": course.line}, _json_lines),
}
