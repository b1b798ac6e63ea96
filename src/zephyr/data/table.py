"""The table of registered sources: what can be named in a recipe, and where it lies.

A source is added with one row here, one reader (of `readers`, most often one that is there already)
and three example rows in its own columns (in `tests/data/examples.py`), which every test of sources
runs over. What is known only from memory or by inference is named in `uncertain`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zephyr.data.readers import chat, choice, pair, passage
from zephyr.data.readers.values import Reader
from zephyr.records import Kind

Doubt = Literal["recalled", "inferred"]


@dataclass(frozen=True)
class Hub:
    """Where a source lies on the Hugging Face hub: files of a repository at a revision.

    Without a `config` a set has one alone, which the hub calls `default`. The hub keeps a Parquet
    copy of every set on a branch of its own, which is not pinned.
    """

    id: str
    config: str | None = None
    revision: str = "refs/convert/parquet"
    files: str = "{config}/{split}/*.parquet"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None

    @property
    def card(self) -> str:
        """The page where its authors describe it, and where terms are accepted."""
        return f"https://huggingface.co/datasets/{self.id}"

    def pattern(self, split: str) -> str:
        """The files of a split: a path in the repository, perhaps with a `*`."""
        return self.files.format(config=self.config or "default", split=split)


@dataclass(frozen=True)
class Source:
    """A registered source: what it holds, who reads it, and what is known of it.

    `columns` are those that the reader needs, `optional` further ones that it looks at; `many` says
    that one row gives several records. `splits` counts the rows of each split, None where that is
    not known. Mixtures take the split `train`, tasks ask the split `exam`, which never enters
    training; None where the source is not for that. `aspect` says what preferences are about.
    `uncertain` says by name which facts were not read at the source.
    """

    name: str
    kind: Kind
    reader: Reader
    columns: tuple[str, ...]
    splits: Mapping[str, int | None]
    hub: Hub | None = None
    optional: tuple[str, ...] = ()
    train: str | None = "train"
    exam: str | None = None
    many: bool = False
    licence: str = "not stated"
    gated: bool = False
    aspect: str = "unspecified"
    uncertain: Mapping[str, Doubt] = field(default_factory=dict)


_LICENCE: Mapping[str, Doubt] = {"licence": "recalled"}
_ROWS: Mapping[str, Doubt] = {"rows": "recalled"}


def _chat(
    name: str, hub: str, columns: str, rows: int, licence: str = "not stated", **facts: Any
) -> Source:
    """A question and its answer, in two columns."""
    question, answer = there = tuple(columns.split())
    reader, splits = chat.question_answer(question, answer), {"train": rows}
    return Source(name, "chat", reader, there, splits, Hub(hub), licence=licence, **facts)


def _instruction(name: str, hub: str, rows: int, licence: str) -> Source:
    """Alpaca's columns."""
    columns, more = ("instruction", "output"), ("input", "system", "history")
    splits, reader = {"train": rows}, chat.instruction
    return Source(name, "chat", reader, columns, splits, Hub(hub), more, licence=licence)


def _pair(name: str, hub: str, columns: str, rows: int, aspect: str, **facts: Any) -> Source:
    """A question and two answers, in three columns; a system message may come before them."""
    *system, question, chosen, rejected = there = tuple(columns.split())
    reader = pair.preference(question, chosen, rejected, *system)
    return Source(name, "pair", reader, there, {"train": rows}, Hub(hub), aspect=aspect, **facts)


def _turns(name: str, hub: str, aspect: str) -> Source:
    """Two whole conversations; how many is not known, but that the seed drew a thousand."""
    reader, columns, splits = pair.turns_pair, ("chosen", "rejected"), {"train": None}
    return Source(name, "pair", reader, columns, splits, Hub(hub), licence="unknown", aspect=aspect)


def _shp(domain: str, train: int, validation: int, test: int, aspect: str) -> Source:
    return Source(
        f"shp_{domain}",
        "pair",
        pair.shp,
        ("history", "human_ref_A", "human_ref_B", "labels"),
        {"train": train, "validation": validation, "test": test},
        Hub("stanfordnlp/SHP", domain, revision="main", files="{config}/{split}.json"),
        licence="unspecified; Reddit terms",
        aspect=aspect,
        uncertain={"files": "recalled"},
    )


def _arc(name: str, config: str, train: int, validation: int, test: int) -> Source:
    return Source(
        name,
        "choice",
        choice.arc,
        ("question", "choices", "answerKey"),
        {"train": train, "validation": validation, "test": test},
        Hub("allenai/ai2_arc", config),
        exam="test",
        licence="CC-BY-SA-4.0",
        uncertain=_ROWS,  # those of `train` were read
    )


_FINE_TUNING = (
    # the seed's main set; LIMA, Open-Platypus and MathInstruct are in its second one too
    Source(
        "khan_academy",
        "chat",
        chat.question_answer("prompt", "text"),
        ("prompt", "text"),
        {"train": 24_123},
        Hub("HuggingFaceTB/cosmopedia", "khanacademy"),
        licence="Apache-2.0",
        uncertain=_LICENCE,
    ),
    _chat("math_college", "loubnabnl/math_college", "prompt_college completion", 5_000),
    _chat("arxiv_math", "ArtifactAI/arxiv-math-instruct-50k", "question answer", 50_488),
    _chat("magicoder", "ise-uiuc/Magicoder-OSS-Instruct-75K", "problem solution", 75_197, "MIT"),
    _chat(
        "goat", "tiedong/goat", "instruction output", 1_746_300, "Apache-2.0", uncertain=_LICENCE
    ),
    _chat("metamathqa", "meta-math/MetaMathQA", "query response", 395_000, "MIT; OpenAI terms"),
    _chat(
        "code_assistant", "glaiveai/glaive-code-assistant", "question answer", 136_109, "Apache-2.0"
    ),
    Source(
        "lima",
        "chat",
        chat.conversations,
        ("conversations",),
        {"train": 1_030},  # its test split asks, and has no answers
        Hub("GAIR/lima"),
        licence="CC-BY-NC-SA-4.0",
        gated=True,
        uncertain={"gated": "recalled"},
    ),
    _instruction("open_platypus", "garage-bAInd/Open-Platypus", 24_926, "mixed, by row"),
    _instruction("math_instruct", "TIGER-Lab/MathInstruct", 262_039, "MIT; OpenAI terms"),
    # the second one's others
    Source(
        "wiki_qa",
        "chat",
        chat.wiki_qa,
        ("question", "answer", "label"),
        {"train": 20_360},
        Hub("microsoft/wiki_qa"),
        licence="Microsoft Research Data licence",
        uncertain=_ROWS,
    ),
    # the same files, every sentence an answer: LLaMA-Factory's catalogue, from which the seed took
    # them, maps no label, so that the wrong answers were learned too
    _chat(
        "wiki_qa_all",
        "microsoft/wiki_qa",
        "question answer",
        20_360,
        "Microsoft Research Data licence",
        uncertain=_ROWS,
    ),
    _instruction("code_alpaca", "sahil2801/CodeAlpaca-20k", 20_022, "unspecified; OpenAI terms"),
)
_PREFERENCES = (
    Source(
        "epfl",
        "pair",
        pair.epfl,
        ("question_complete", "preference"),
        {"train": 1_522},
        many=True,
        licence="none; internal to the course",
        aspect="correctness",
    ),
    _pair(
        "orca_dpo_pairs",
        "Intel/orca_dpo_pairs",
        "system question chosen rejected",
        12_859,
        "correctness",
        licence="Apache-2.0, or CC-BY-NC-4.0 by another index",
        uncertain=_LICENCE,
    ),
    _pair(
        "truthy_dpo",
        "jondurbin/truthy-dpo-v0.1",
        "system prompt chosen rejected",
        1_016,
        "truth",
        licence="CC-BY-4.0",
        uncertain=_LICENCE,
    ),
    _shp("askengineers", 57_096, 3_154, 2_638, "correctness"),
    _shp("askphysics", 7_364, 409, 587, "correctness"),
    _shp("askscience", 13_316, 899, 977, "correctness"),
    _shp("explainlikeimfive", 19_592, 1_014, 1_070, "manner"),
    _pair(
        "code_vulnerability",
        "CyberNative/Code_Vulnerability_Security_DPO",
        "question chosen rejected",
        4_656,
        "security",
        licence="Apache-2.0",
    ),
    _pair(
        "py_dpo",
        "jondurbin/py-dpo-v0.1",
        "prompt chosen rejected",
        9_466,
        "correctness",
        licence="CC-BY-4.0",
        uncertain=_LICENCE,
    ),
    _turns("dpo_mix_zero_math_untoxic", "reciprocate/dpo_mix-zero-math-untoxic", "manner"),
    _pair(
        "h4rmony",
        "neovalle/H4rmony",
        "Prompt BetterCompletion WorseCompletion",
        2_016,
        "manner",
        licence="CC-BY-4.0",
    ),
    _turns("exp_dpo_3", "pvduy/exp_dpo_3", "safety"),
)
_EXAMS = (
    _arc("arc_challenge", "ARC-Challenge", 1_119, 299, 1_172),
    _arc("arc_easy", "ARC-Easy", 2_251, 570, 2_376),
    Source(
        "mmlu",
        "choice",
        choice.choices,
        ("question", "choices", "answer"),
        # auxiliary_train is made of ARC, MCTest, OpenBookQA and RACE: ARC is in it a second time
        {"auxiliary_train": 99_842, "dev": 285, "validation": 1_531, "test": 14_042},
        Hub("cais/mmlu", "all"),
        optional=("subject", "train"),
        train="auxiliary_train",
        exam="test",
        licence="MIT; auxiliary_train mixed",
        uncertain={"config": "recalled"},
    ),
    Source(
        "hellaswag",
        "choice",
        choice.hellaswag,
        ("ctx", "endings", "label"),
        {"train": 39_905, "validation": 10_042},  # its test split has no labels
        Hub("Rowan/hellaswag"),
        optional=("ctx_a", "ctx_b", "activity_label"),
        exam="validation",
        licence="MIT",
        uncertain=_ROWS,
    ),
    Source(
        "gsm8k",
        "chat",
        chat.question_answer("question", "answer"),
        ("question", "answer"),
        {"train": 7_473, "test": 1_319},
        Hub("openai/gsm8k", "main"),
        exam="test",
        licence="MIT",
        uncertain=_ROWS,
    ),
    Source(
        "gsm8k_socratic",
        "chat",
        chat.question_answer("question", "answer"),
        ("question", "answer"),
        {"train": 7_473, "test": 1_319},
        Hub("openai/gsm8k", "socratic"),
        exam="test",
        licence="MIT",
        uncertain=_ROWS,
    ),
    Source(
        "mathdial",
        "chat",
        chat.mathdial,
        ("question", "student_incorrect_solution", "ground_truth"),
        {"train": None, "test": 599},
        Hub("eth-nlped/mathdial"),
        train=None,  # its answers are solutions, and what a tutor is to learn is the dialogue
        exam="test",
        licence="CC-BY-4.0 on the hub, CC-BY-SA-4.0 by its authors' repository",
        uncertain=_LICENCE,
    ),
    Source(
        "wikitext2",
        "passage",
        passage.line,
        ("text",),
        {"train": 36_718, "validation": 3_760, "test": 4_358},
        Hub("Salesforce/wikitext", "wikitext-2-raw-v1"),
        exam="test",
        licence="CC-BY-SA-3.0 and GFDL",
        uncertain={"rows": "recalled", "licence": "recalled"},
    ),
)
_TEXT = (
    Source("primer", "passage", passage.passage, ("text",), {"train": None}, licence="Apache-2.0"),
)
SOURCES: dict[str, Source] = {
    source.name: source for source in (*_FINE_TUNING, *_PREFERENCES, *_EXAMS, *_TEXT)
}
