"""The table of sources, and how any source becomes records.

A registered source is one row of the table and a reader; a file of one's own is read by the form of
its columns. What the facts about a registered source leave uncertain (recalled, or inferred) is
named in its row.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from zephyr import recipe
from zephyr.data import readers
from zephyr.data.files import Row, check, content_sha256, read_rows
from zephyr.data.readers import LeftOut, Reader, Unreadable
from zephyr.errors import ZephyrError, nearest, unknown
from zephyr.records import Kind, Pair, Record


@dataclass(frozen=True)
class Source:
    """A registered source. `aspect` says what the preferences of a pair source are about.

    `split` is the one that is read unless a recipe names another; `rows` counts that split where
    the number is known. `columns` are those that its reader needs.
    """

    name: str
    hub_id: str | None
    kind: Kind
    reader: Reader
    columns: tuple[str, ...]
    config: str | None = None
    split: str = "train"
    rows: int | None = None
    licence: str = "not stated"
    gated: bool = False
    aspect: str = "unspecified"
    uncertain: tuple[str, ...] = ()


def _chat(name: str, hub_id: str, question: str, answer: str, **facts: Any) -> Source:
    reader = readers.question_answer(question, answer)
    return Source(name, hub_id, "chat", reader, (question, answer), **facts)


def _pair(
    name: str, hub_id: str, question: str, aspect: str, system: str | None = None, **facts: Any
) -> Source:
    reader = readers.preference(question, "chosen", "rejected", system)
    columns = (*((system,) if system else ()), question, "chosen", "rejected")
    return Source(name, hub_id, "pair", reader, columns, aspect=aspect, **facts)


def _shp(domain: str, rows: int, aspect: str) -> Source:
    return Source(
        f"shp_{domain}",
        "stanfordnlp/SHP",
        "pair",
        readers.shp,
        ("history", "human_ref_A", "human_ref_B", "labels"),
        config=domain,
        rows=rows,
        licence="unspecified; Reddit terms",
        aspect=aspect,
    )


def _turns(name: str, hub_id: str, aspect: str) -> Source:
    return Source(
        name,
        hub_id,
        "pair",
        readers.turns_pair,
        ("chosen", "rejected"),
        licence="unknown",
        aspect=aspect,
        uncertain=("rows", "licence"),
    )


_INSTRUCTION = ("instruction", "output")
_ALL = (
    # the seed's main fine-tuning set
    _chat(
        "khan_academy",
        "HuggingFaceTB/cosmopedia",
        "prompt",
        "text",
        config="khanacademy",
        rows=24_123,
        licence="Apache-2.0",
        uncertain=("licence",),
    ),
    _chat("math_college", "loubnabnl/math_college", "prompt_college", "completion", rows=5_000),
    _chat("arxiv_math", "ArtifactAI/arxiv-math-instruct-50k", "question", "answer", rows=50_488),
    _chat(
        "magicoder",
        "ise-uiuc/Magicoder-OSS-Instruct-75K",
        "problem",
        "solution",
        rows=75_197,
        licence="MIT",
    ),
    _chat(
        "goat",
        "tiedong/goat",
        "instruction",
        "output",
        rows=1_746_300,
        licence="Apache-2.0",
        uncertain=("licence",),
    ),
    _chat("metamathqa", "meta-math/MetaMathQA", "query", "response", rows=395_000, licence="MIT"),
    _chat(
        "code_assistant",
        "glaiveai/glaive-code-assistant",
        "question",
        "answer",
        rows=136_109,
        licence="Apache-2.0",
    ),
    Source(
        "lima",
        "GAIR/lima",
        "chat",
        readers.conversations,
        ("conversations",),
        rows=1_030,
        licence="CC-BY-NC-SA-4.0",
        gated=True,
        uncertain=("gated",),
    ),
    Source(
        "open_platypus",
        "garage-bAInd/Open-Platypus",
        "chat",
        readers.instruction,
        _INSTRUCTION,
        rows=24_926,
        licence="mixed, by row",
    ),
    Source(
        "math_instruct",
        "TIGER-Lab/MathInstruct",
        "chat",
        readers.instruction,
        _INSTRUCTION,
        rows=262_039,
        licence="MIT",
    ),
    # the seed's second one holds these beside three of the above
    Source(
        "wiki_qa",
        "microsoft/wiki_qa",
        "chat",
        readers.wiki_qa,
        ("question", "answer", "label"),
        rows=20_360,
        licence="Microsoft Research Data licence",
        uncertain=("rows",),
    ),
    Source(
        "code_alpaca",
        "sahil2801/CodeAlpaca-20k",
        "chat",
        readers.instruction,
        _INSTRUCTION,
        rows=20_022,
        licence="unspecified",
    ),
    # preferences
    Source(
        "epfl",
        None,
        "pair",
        readers.epfl,
        ("question_complete", "preference"),
        rows=1_522,
        licence="none; internal to the course",
        aspect="correctness",
    ),
    _pair(
        "orca_dpo_pairs",
        "Intel/orca_dpo_pairs",
        "question",
        "correctness",
        "system",
        rows=12_859,
        licence="Apache-2.0",
        uncertain=("licence",),
    ),
    _pair(
        "truthy_dpo",
        "jondurbin/truthy-dpo-v0.1",
        "prompt",
        "truth",
        "system",
        rows=1_016,
        licence="CC-BY-4.0",
        uncertain=("licence",),
    ),
    _shp("askengineers", 57_096, "correctness"),
    _shp("askphysics", 7_364, "correctness"),
    _shp("askscience", 13_316, "correctness"),
    _shp("explainlikeimfive", 19_592, "manner"),
    _pair(
        "code_vulnerability",
        "CyberNative/Code_Vulnerability_Security_DPO",
        "question",
        "security",
        rows=4_656,
        licence="Apache-2.0",
    ),
    _pair(
        "py_dpo",
        "jondurbin/py-dpo-v0.1",
        "prompt",
        "correctness",
        rows=9_466,
        licence="CC-BY-4.0",
        uncertain=("licence",),
    ),
    _turns("dpo_mix_zero_math_untoxic", "reciprocate/dpo_mix-zero-math-untoxic", "manner"),
    Source(
        "h4rmony",
        "neovalle/H4rmony",
        "pair",
        readers.preference("Prompt", "BetterCompletion", "WorseCompletion"),
        ("Prompt", "BetterCompletion", "WorseCompletion"),
        rows=2_016,
        licence="CC-BY-4.0",
        aspect="manner",
    ),
    _turns("exp_dpo_3", "pvduy/exp_dpo_3", "safety"),
    # evaluation
    Source(
        "arc_challenge",
        "allenai/ai2_arc",
        "choice",
        readers.arc,
        ("question", "answerKey"),
        config="ARC-Challenge",
        split="test",
        rows=1_172,
        licence="CC-BY-SA-4.0",
        uncertain=("rows",),
    ),
    Source(
        "arc_easy",
        "allenai/ai2_arc",
        "choice",
        readers.arc,
        ("question", "answerKey"),
        config="ARC-Easy",
        split="test",
        rows=2_376,
        licence="CC-BY-SA-4.0",
        uncertain=("rows",),
    ),
    Source(
        "mmlu",
        "cais/mmlu",
        "choice",
        readers.choices,
        ("question", "choices", "answer"),
        split="test",
        rows=14_042,
        licence="MIT",
    ),
    Source(
        "hellaswag",
        "Rowan/hellaswag",
        "choice",
        readers.hellaswag,
        ("ctx", "endings", "label"),
        split="validation",
        rows=10_042,
        licence="MIT",
        uncertain=("rows",),
    ),
    _chat(
        "gsm8k",
        "openai/gsm8k",
        "question",
        "answer",
        config="main",
        split="test",
        rows=1_319,
        licence="MIT",
        uncertain=("rows",),
    ),
    Source(
        "wikitext2",
        "Salesforce/wikitext",
        "passage",
        readers.line,
        ("text",),
        config="wikitext-2-raw-v1",
        split="test",
        rows=4_358,
        licence="CC-BY-SA-3.0 and GFDL",
        uncertain=("rows", "licence"),
    ),
    Source("primer", None, "passage", readers.passage, ("text",), licence="Apache-2.0"),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}


@dataclass(frozen=True)
class Form:
    """A form of columns in which people keep their own data."""

    kind: Kind
    columns: tuple[str, ...]
    reader: Reader


FORMS = (
    Form("chat", ("messages",), readers.messages),
    Form("chat", ("conversations",), readers.conversations),
    Form("chat", ("instruction", "output"), readers.instruction),
    Form("chat", ("question", "answer"), readers.question_answer("question", "answer")),
    Form("chat", ("prompt", "completion"), readers.question_answer("prompt", "completion")),
    Form("chat", ("prompt", "response"), readers.question_answer("prompt", "response")),
    Form("pair", ("question_complete", "preference"), readers.epfl),
    Form("pair", ("instruction", "chosen", "rejected"), readers.instruction_pair),
    Form("pair", ("prompt", "chosen", "rejected"), readers.prompt_pair),
    Form("pair", ("conversations", "chosen", "rejected"), readers.conversations_pair),
    Form("pair", ("input", "preferred_output", "non_preferred_output"), readers.orca_messages),
    Form("pair", ("chosen", "rejected"), readers.turns_pair),
    Form("choice", ("question", "choices", "answer"), readers.choices),
    Form("choice", ("train",), readers.choices),  # MMLU's auxiliary_train: the row within a row
    Form("choice", ("question", "choices", "answerKey"), readers.arc),
    Form("choice", ("question", "answerKey"), readers.arc),
    Form("choice", ("ctx", "endings", "label"), readers.hellaswag),
    Form("passage", ("text",), readers.passage),
)
"""Tried in order: the first of the right kind whose columns are all there is taken."""


@dataclass
class Reading:
    """What was read of one source. Reasons are counted; `first_bad` is where each came up first."""

    label: str
    rows: int = 0
    records: list[Record] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first_bad: dict[str, str] = field(default_factory=dict)


def read(
    source: recipe.Source, *, kind: Kind, origin: str | None, base: Path, where: str
) -> Reading:
    """Reads all records of a source of a recipe; `base` is the recipe's folder.

    Raises:
        ZephyrError: the source is unknown, of another kind, not there, or of no known form.
    """
    registered = _registered(source, kind, where)
    rows: Iterator[Row]
    if source.path is None:
        assert registered is not None
        rows = _embedded(registered, source.split, origin, where)
    else:
        rows = _renamed(read_rows(base / source.path, where), source.columns or {})
    reading = Reading(label(source))
    reader: Reader | None = None
    for row in rows:
        reading.rows += 1
        try:
            if row.value is None:
                raise Unreadable(row.problem)
            if reader is None:
                reader = _reader(registered, kind, row, where)
            found = list(reader(row.value, reading.label))
        except Unreadable as error:
            reading.unreadable[str(error)] += 1
            reading.first_bad.setdefault(str(error), row.place)
        except LeftOut as error:
            reading.left_out[str(error)] += 1
        else:
            reading.left_out.update(str(part) for part in found if isinstance(part, LeftOut))
            records = [part for part in found if not isinstance(part, LeftOut)]
            reading.records += _with_aspect(records, registered)
    return reading


def label(source: recipe.Source) -> str:
    """The name under which a source's records are known: its own, or its file's."""
    return source.name or Path(str(source.path)).name.split(".")[0]


def fingerprint(
    source: recipe.Source, *, origin: str | None, base: Path, where: str
) -> dict[str, Any]:
    """What enters a fingerprint for a source, without reading its rows.

    Raises:
        ZephyrError: the source is unknown, or not there.
    """
    if source.path is not None:
        check(base / source.path, where)
        return {"sha256": content_sha256(base / source.path)}
    registered = _registered(source, None, where)
    assert registered is not None
    from zephyr.data import embedded

    _refuse_hub(registered, origin, where)
    return {"embedded": embedded.VERSION, "split": source.split or registered.split}


def _registered(source: recipe.Source, kind: Kind | None, where: str) -> Source | None:
    registered = SOURCES.get(source.name) if source.name is not None else None
    if registered is None and source.path is None:
        todo = "name one of these, or give a `path:` to a file of your own"
        raise unknown("source", str(source.name), SOURCES, where=where, todo=todo)
    if registered is not None and kind not in (None, registered.kind):
        raise ZephyrError(
            f"source {registered.name!r} is of another kind",
            where=where,
            found=registered.kind,
            allowed=kind,
        )
    return registered


def _refuse_hub(registered: Source, origin: str | None, where: str) -> None:
    if origin != "embedded":
        raise ZephyrError(
            f"source {registered.name!r} is not at hand",
            where=where,
            found=f"it is on the hub as {registered.hub_id}" if registered.hub_id else "no file",
            todo="download it and give its `path:`, or set `origin: embedded` for generated rows",
        )


def _embedded(
    registered: Source, split: str | None, origin: str | None, where: str
) -> Iterator[Row]:
    from zephyr.data import embedded

    _refuse_hub(registered, origin, where)
    split = split or registered.split
    for number, value in enumerate(embedded.rows(registered.name, split), start=1):
        yield Row(f"embedded {registered.name}/{split} row {number}", value)


def _renamed(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Row]:
    """Rows whose columns bear the names that readers know (`columns`: reader's name to file's)."""
    theirs = {file: reader for reader, file in columns.items()}
    for row in rows:
        if row.value is None or not theirs:
            yield row
        else:
            value = {theirs.get(name, name): cell for name, cell in row.value.items()}
            yield row._replace(value=value)


def _reader(registered: Source | None, kind: Kind, row: Row, where: str) -> Reader:
    """The source's own reader where its columns are there, else one by the form of the columns."""
    assert row.value is not None
    there = set(row.value)
    if registered is not None and there >= set(registered.columns):
        return registered.reader
    forms = [form for form in FORMS if form.kind == kind]
    for form in forms:
        if there >= set(form.columns):
            return form.reader
    known = [registered.columns] if registered is not None else []
    known += [form.columns for form in forms if form.columns not in known]
    closest = max(known, key=lambda columns: _likeness(columns, there))
    spare = there - set(closest)
    near = [f"{c} -> {n}" for c in closest if c not in there and (n := nearest(c, spare))]
    raise ZephyrError(
        f"the columns of this source are of no form that is known for kind {kind!r}",
        where=f"{where}, {row.place}",
        found=", ".join(sorted(there)) or "no columns",
        allowed="; ".join(map(", ".join, known)),
        nearest=", ".join(near) or None,
        todo="map the names with `columns: {name that is allowed: name in the file}`",
    )


def _likeness(columns: Sequence[str], there: Iterable[str]) -> float:
    """How well names fit the closest of those that are there: 1 where all of them are."""
    best = (
        max((SequenceMatcher(None, column, name).ratio() for name in there), default=0.0)
        for column in columns
    )
    return sum(best) / len(columns)


def _with_aspect(records: list[Record], registered: Source | None) -> list[Record]:
    if registered is None or registered.kind != "pair":
        return records
    return [replace(r, aspect=registered.aspect) if isinstance(r, Pair) else r for r in records]
