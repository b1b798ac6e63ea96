"""Writes what LLaMA-Factory's own metric code says of corrupted answers: of 300 of GSM8K's test,
and of 40 that Zephyr makes itself.

    pip install nltk jieba rouge-chinese torch transformers  # in an environment of its own
    pip download --no-deps llamafactory==0.9.5 && unzip llamafactory-0.9.5-*.whl -d FOLDER
    python -m tests.parity.make_llamafactory FOLDER GSM8K_TEST.jsonl.gz

The module of its metrics is imported alone: the packages around it want a whole installation.
Numbers are stored, and no text; `corrupt_answers` makes the texts again. A number is
LLaMA-Factory's: times 100, and rounded to four digits.
"""

import gzip
import hashlib
import importlib
import json
import logging
import sys
import tempfile
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.parity.corruption import corrupt_answers
from zephyr.data import embedded

STORED = Path(__file__).with_name("llamafactory.json")
NUM_REAL = 300
NUM_EMBEDDED = 40
METRIC_NAMES = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")


class TextLookupTokenizer:
    """A tokenizer whose tokens are whole texts, of which a row of ids names one."""

    pad_token_id = 0

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def batch_decode(self, rows: Any, **_: Any) -> list[str]:
        return [self.texts[int(row[0])] for row in rows]


def embedded_answers() -> list[str]:
    """The answers of the first problems that Zephyr makes itself."""
    return [row["answer"] for row in islice(embedded.make_rows("gsm8k", "test"), NUM_EMBEDDED)]


def read_real_answers(path: Path) -> list[str]:
    """The answers of the first rows of GSM8K's test."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line)["answer"] for line in file][:NUM_REAL]


def texts_digest(texts: list[str]) -> str:
    """A digest by which a test checks that its texts are those that were scored."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def load_metric_module(folder: Path) -> Any:
    """`llamafactory.train.sft.metric`, with empty packages in place of those around it."""
    for name in ("llamafactory", "llamafactory.train", "llamafactory.train.sft"):
        package = ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = package
    return importlib.import_module("llamafactory.train.sft.metric")


def score_answers(module: Any, references: list[str], answers: list[str]) -> dict[str, list[float]]:
    """The four scores of each answer."""
    metric = module.ComputeSimilarity(TextLookupTokenizer(references + answers))
    first = np.arange(len(references))[:, None]
    eval_prediction = SimpleNamespace(predictions=first + len(references), label_ids=first)
    metric(eval_prediction, compute_result=False)
    return {name: [float(value) for value in metric.score_dict[name]] for name in METRIC_NAMES}


def main() -> None:
    folder, path = map(Path, sys.argv[1:])
    [info] = folder.glob("llamafactory-*.dist-info")
    stored: dict[str, Any] = {"by": info.name.removesuffix(".dist-info")}
    module = load_metric_module(folder)
    module.jieba.setLogLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as temp_folder:
        module.jieba.dt.tmp_dir = temp_folder  # where jieba keeps its dictionary
        for name, references in (("own", embedded_answers()), ("real", read_real_answers(path))):
            answers = corrupt_answers(references)
            scores = score_answers(module, references, answers)
            stored[name] = {"texts": texts_digest(references + answers), "scores": scores}
    STORED.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
