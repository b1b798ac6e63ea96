"""The registry (catalog) of data sources: every data set that a recipe can name.

To add a source: one entry here, one reader (in `readers`, mostly an existing one), and three
example rows in its own columns (in `tests/data/sample_rows.py`), over which every test of sources
runs. Facts known only from memory or by inference are listed in `uncertain`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zephyr.data.readers import chat, choice, pair, passage
from zephyr.data.readers.parsing import RowReader
from zephyr.records import RecordKind

Uncertainty = Literal["recalled", "inferred"]


@dataclass(frozen=True)
class HubLocation:
    """The location of a source on the Hugging Face hub: files of a repository at a revision.

    A data set without a `config` has only one, which the hub calls `default`. The hub keeps a
    Parquet copy of every data set on a separate branch, which is not pinned.
    """

    id: str
    config: str | None = None
    revision: str = "refs/convert/parquet"
    files: str = "{config}/{split}/*.parquet"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None

    @property
    def card_url(self) -> str:
        """The URL of the data set card, where terms are accepted."""
        return f"https://huggingface.co/datasets/{self.id}"

    def pattern(self, split: str) -> str:
        """The path pattern of a split's files in the repository, perhaps with a `*`."""
        return self.files.format(config=self.config or "default", split=split)


@dataclass(frozen=True)
class RegisteredSource:
    """A registered data source: its kind, reader, columns, splits, license and location.

    The reader needs the `columns`, and uses the `optional_columns` if present; with
    `has_many_records` one row holds several. `splits` has the number of rows of each split, None if
    unknown. Mixtures sample `train_split`, tasks evaluate on `eval_split`, which is never trained
    on; each is None if the source has none. `aspect` is what preference pairs are about.
    `uncertain` names the facts that were not checked at the source.
    """

    name: str
    kind: RecordKind
    reader: RowReader
    columns: tuple[str, ...]
    splits: Mapping[str, int | None]
    hub: HubLocation | None = None
    optional_columns: tuple[str, ...] = ()
    train_split: str | None = "train"
    eval_split: str | None = None
    has_many_records: bool = False
    licence: str = "not stated"
    gated: bool = False
    aspect: str = "unspecified"
    uncertain: Mapping[str, Uncertainty] = field(default_factory=dict)


_LICENCE_RECALLED: Mapping[str, Uncertainty] = {"licence": "recalled"}
_ROWS_RECALLED: Mapping[str, Uncertainty] = {"rows": "recalled"}


def _chat_source(
    name: str, hub: str, columns: str, rows: int, licence: str = "not stated", **fields: Any
) -> RegisteredSource:
    """A chat source: a question and its answer, in two columns."""
    question, answer = column_names = tuple(columns.split())
    reader, splits = chat.question_answer_reader(question, answer), {"train": rows}
    return RegisteredSource(
        name, "chat", reader, column_names, splits, HubLocation(hub), licence=licence, **fields
    )


def _alpaca_source(name: str, hub: str, rows: int, licence: str) -> RegisteredSource:
    """An instruction source in Alpaca's columns."""
    columns, optional_columns = ("instruction", "output"), ("input", "system", "history")
    splits, reader = {"train": rows}, chat.read_alpaca
    return RegisteredSource(
        name, "chat", reader, columns, splits, HubLocation(hub), optional_columns, licence=licence
    )


def _pair_source(
    name: str, hub: str, columns: str, rows: int, aspect: str, **fields: Any
) -> RegisteredSource:
    """A preference source (DPO): columns of a question, two answers, maybe a system message."""
    *system, question, chosen, rejected = column_names = tuple(columns.split())
    reader = pair.preference_reader(question, chosen, rejected, *system)
    return RegisteredSource(
        name,
        "pair",
        reader,
        column_names,
        {"train": rows},
        HubLocation(hub),
        aspect=aspect,
        **fields,
    )


def _conversation_pair_source(name: str, hub: str, aspect: str) -> RegisteredSource:
    """A preference source of two whole conversations; the seed drew a thousand of unknown many."""
    reader, columns, splits = pair.read_conversation_pair, ("chosen", "rejected"), {"train": None}
    return RegisteredSource(
        name, "pair", reader, columns, splits, HubLocation(hub), licence="unknown", aspect=aspect
    )


def _shp_source(
    domain: str, train: int, validation: int, test: int, aspect: str
) -> RegisteredSource:
    """A domain of Stanford Human Preferences (SHP)."""
    return RegisteredSource(
        f"shp_{domain}",
        "pair",
        pair.read_shp,
        ("history", "human_ref_A", "human_ref_B", "labels"),
        {"train": train, "validation": validation, "test": test},
        HubLocation("stanfordnlp/SHP", domain, revision="main", files="{config}/{split}.json"),
        licence="unspecified; Reddit terms",
        aspect=aspect,
        uncertain={"files": "recalled"},
    )


def _arc_source(name: str, config: str, train: int, validation: int, test: int) -> RegisteredSource:
    """A configuration of the AI2 Reasoning Challenge (ARC)."""
    return RegisteredSource(
        name,
        "choice",
        choice.read_arc,
        ("question", "choices", "answerKey"),
        {"train": train, "validation": validation, "test": test},
        HubLocation("allenai/ai2_arc", config),
        eval_split="test",
        licence="CC-BY-SA-4.0",
        uncertain=_ROWS_RECALLED,  # those of `train` were read
    )


_SFT_SOURCES = (
    # the seed's main set; LIMA, Open-Platypus and MathInstruct are in its second one too
    RegisteredSource(
        "khan_academy",
        "chat",
        chat.question_answer_reader("prompt", "text"),
        ("prompt", "text"),
        {"train": 24_123},
        HubLocation("HuggingFaceTB/cosmopedia", "khanacademy"),
        licence="Apache-2.0",
        uncertain=_LICENCE_RECALLED,
    ),
    _chat_source("math_college", "loubnabnl/math_college", "prompt_college completion", 5_000),
    _chat_source("arxiv_math", "ArtifactAI/arxiv-math-instruct-50k", "question answer", 50_488),
    _chat_source(
        "magicoder", "ise-uiuc/Magicoder-OSS-Instruct-75K", "problem solution", 75_197, "MIT"
    ),
    _chat_source(
        "goat",
        "tiedong/goat",
        "instruction output",
        1_746_300,
        "Apache-2.0",
        uncertain=_LICENCE_RECALLED,
    ),
    _chat_source(
        "metamathqa", "meta-math/MetaMathQA", "query response", 395_000, "MIT; OpenAI terms"
    ),
    _chat_source(
        "code_assistant", "glaiveai/glaive-code-assistant", "question answer", 136_109, "Apache-2.0"
    ),
    RegisteredSource(
        "lima",
        "chat",
        chat.read_sharegpt,
        ("conversations",),
        {"train": 1_030},  # its test split has no answers
        HubLocation("GAIR/lima"),
        licence="CC-BY-NC-SA-4.0",
        gated=True,
        uncertain={"gated": "recalled"},
    ),
    _alpaca_source("open_platypus", "garage-bAInd/Open-Platypus", 24_926, "mixed, by row"),
    _alpaca_source("math_instruct", "TIGER-Lab/MathInstruct", 262_039, "MIT; OpenAI terms"),
    # the second one's others
    RegisteredSource(
        "wiki_qa",
        "chat",
        chat.read_wiki_qa,
        ("question", "answer", "label"),
        {"train": 20_360},
        HubLocation("microsoft/wiki_qa"),
        licence="Microsoft Research Data licence",
        uncertain=_ROWS_RECALLED,
    ),
    # the same files, with every sentence as an answer: LLaMA-Factory's registry, which the seed
    # project used, ignores the label, so that wrong answers were trained on too
    _chat_source(
        "wiki_qa_all",
        "microsoft/wiki_qa",
        "question answer",
        20_360,
        "Microsoft Research Data licence",
        uncertain=_ROWS_RECALLED,
    ),
    _alpaca_source("code_alpaca", "sahil2801/CodeAlpaca-20k", 20_022, "unspecified; OpenAI terms"),
)
_PREFERENCE_SOURCES = (
    RegisteredSource(
        "epfl",
        "pair",
        pair.read_epfl,
        ("question_complete", "preference"),
        {"train": 1_522},
        has_many_records=True,
        licence="none; internal to the course",
        aspect="correctness",
    ),
    RegisteredSource(
        "votes",  # of a class of the user's own: `zephyr preferences export`
        "pair",
        pair.read_epfl,
        ("question_complete", "preference"),
        {"train": None},
        has_many_records=True,
        licence="your class's own: what its students agreed to",
        aspect="helpfulness",
    ),
    _pair_source(
        "orca_dpo_pairs",
        "Intel/orca_dpo_pairs",
        "system question chosen rejected",
        12_859,
        "correctness",
        licence="Apache-2.0, or CC-BY-NC-4.0 by another index",
        uncertain=_LICENCE_RECALLED,
    ),
    _pair_source(
        "truthy_dpo",
        "jondurbin/truthy-dpo-v0.1",
        "system prompt chosen rejected",
        1_016,
        "truth",
        licence="CC-BY-4.0",
        uncertain=_LICENCE_RECALLED,
    ),
    _shp_source("askengineers", 57_096, 3_154, 2_638, "correctness"),
    _shp_source("askphysics", 7_364, 409, 587, "correctness"),
    _shp_source("askscience", 13_316, 899, 977, "correctness"),
    _shp_source("explainlikeimfive", 19_592, 1_014, 1_070, "manner"),
    _pair_source(
        "code_vulnerability",
        "CyberNative/Code_Vulnerability_Security_DPO",
        "question chosen rejected",
        4_656,
        "security",
        licence="Apache-2.0",
    ),
    _pair_source(
        "py_dpo",
        "jondurbin/py-dpo-v0.1",
        "prompt chosen rejected",
        9_466,
        "correctness",
        licence="CC-BY-4.0",
        uncertain=_LICENCE_RECALLED,
    ),
    _conversation_pair_source(
        "dpo_mix_zero_math_untoxic", "reciprocate/dpo_mix-zero-math-untoxic", "manner"
    ),
    _pair_source(
        "h4rmony",
        "neovalle/H4rmony",
        "Prompt BetterCompletion WorseCompletion",
        2_016,
        "manner",
        licence="CC-BY-4.0",
    ),
    _conversation_pair_source("exp_dpo_3", "pvduy/exp_dpo_3", "safety"),
)
_EVAL_SOURCES = (
    _arc_source("arc_challenge", "ARC-Challenge", 1_119, 299, 1_172),
    _arc_source("arc_easy", "ARC-Easy", 2_251, 570, 2_376),
    RegisteredSource(
        "mmlu",
        "choice",
        choice.read_choices,
        ("question", "choices", "answer"),
        # auxiliary_train consists of ARC, MCTest, OpenBookQA and RACE: ARC is in it again
        {"auxiliary_train": 99_842, "dev": 285, "validation": 1_531, "test": 14_042},
        HubLocation("cais/mmlu", "all"),
        optional_columns=("subject", "train"),
        train_split="auxiliary_train",
        eval_split="test",
        licence="MIT; auxiliary_train mixed",
        uncertain={"config": "recalled"},
    ),
    RegisteredSource(
        "hellaswag",
        "choice",
        choice.read_hellaswag,
        ("ctx", "endings", "label"),
        {"train": 39_905, "validation": 10_042},  # its test split has no labels
        HubLocation("Rowan/hellaswag"),
        optional_columns=("ctx_a", "ctx_b", "activity_label"),
        eval_split="validation",
        licence="MIT",
        uncertain=_ROWS_RECALLED,
    ),
    RegisteredSource(
        "gsm8k",
        "chat",
        chat.question_answer_reader("question", "answer"),
        ("question", "answer"),
        {"train": 7_473, "test": 1_319},
        HubLocation("openai/gsm8k", "main"),
        eval_split="test",
        licence="MIT",
        uncertain=_ROWS_RECALLED,
    ),
    RegisteredSource(
        "gsm8k_socratic",
        "chat",
        chat.question_answer_reader("question", "answer"),
        ("question", "answer"),
        {"train": 7_473, "test": 1_319},
        HubLocation("openai/gsm8k", "socratic"),
        eval_split="test",
        licence="MIT",
        uncertain=_ROWS_RECALLED,
    ),
    RegisteredSource(
        "mathdial",
        "chat",
        chat.read_mathdial,
        ("question", "student_incorrect_solution", "ground_truth"),
        {"train": None, "test": 599},
        HubLocation("eth-nlped/mathdial"),
        train_split=None,  # its answers are solutions, and a tutor should learn the dialogue
        eval_split="test",
        licence="CC-BY-4.0 on the hub, CC-BY-SA-4.0 by its authors' repository",
        uncertain=_LICENCE_RECALLED,
    ),
    RegisteredSource(
        "wikitext2",
        "passage",
        passage.read_wikitext_line,
        ("text",),
        {"train": 36_718, "validation": 3_760, "test": 4_358},
        HubLocation("Salesforce/wikitext", "wikitext-2-raw-v1"),
        eval_split="test",
        licence="CC-BY-SA-3.0 and GFDL",
        uncertain={"rows": "recalled", "licence": "recalled"},
    ),
)
_TEXT_SOURCES = (
    RegisteredSource(
        "primer", "passage", passage.read_passage, ("text",), {"train": None}, licence="Apache-2.0"
    ),
)
SOURCES: dict[str, RegisteredSource] = {
    source.name: source
    for source in (*_SFT_SOURCES, *_PREFERENCE_SOURCES, *_EVAL_SOURCES, *_TEXT_SOURCES)
}
