"""Writes what LLaMA-Factory's own metric code says of imperfect answers: of 300 of GSM8K's test,
and of 40 that Zephyr makes itself.

    pip install nltk jieba rouge-chinese torch transformers  # in an environment of its own
    pip download --no-deps llamafactory==0.9.5 && unzip llamafactory-0.9.5-*.whl -d FOLDER
    python -m tests.parity.make_llamafactory FOLDER GSM8K_TEST.jsonl.gz

The module of its metrics is imported alone: the packages around it want a whole installation.
Numbers are stored, and no text; `imperfect` makes the texts again. A number is LLaMA-Factory's:
times 100, and rounded to four digits.
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

from tests.parity.imperfect import imperfect
from zephyr.data import embedded

STORED = Path(__file__).with_name("llamafactory.json")
ROWS = 300
OWN = 40
NAMES = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")


class Texts:
    """A tokenizer whose tokens are whole texts, of which a row of ids names one."""

    pad_token_id = 0

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def batch_decode(self, rows: Any, **_: Any) -> list[str]:
        return [self.texts[int(row[0])] for row in rows]


def own() -> list[str]:
    """The answers of the first problems that Zephyr makes itself."""
    return [row["answer"] for row in islice(embedded.make_rows("gsm8k", "test"), OWN)]


def real(path: Path) -> list[str]:
    """The answers of the first rows of GSM8K's test."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line)["answer"] for line in file][:ROWS]


def digest(texts: list[str]) -> str:
    """What tells whether the texts are those that were scored."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def metrics_of(folder: Path) -> Any:
    """`llamafactory.train.sft.metric`, with empty packages in place of those around it."""
    for name in ("llamafactory", "llamafactory.train", "llamafactory.train.sft"):
        package = ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = package
    return importlib.import_module("llamafactory.train.sft.metric")


def score(module: Any, references: list[str], written: list[str]) -> dict[str, list[float]]:
    """The four scores of each answer."""
    metric = module.ComputeSimilarity(Texts(references + written))
    first = np.arange(len(references))[:, None]
    seen = SimpleNamespace(predictions=first + len(references), label_ids=first)
    metric(seen, compute_result=False)
    return {name: [float(value) for value in metric.score_dict[name]] for name in NAMES}


def main() -> None:
    folder, path = map(Path, sys.argv[1:])
    [info] = folder.glob("llamafactory-*.dist-info")
    stored: dict[str, Any] = {"by": info.name.removesuffix(".dist-info")}
    module = metrics_of(folder)
    module.jieba.setLogLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as private:
        module.jieba.dt.tmp_dir = private  # where jieba keeps its dictionary
        for name, right in (("own", own()), ("real", real(path))):
            written = imperfect(right)
            scores = score(module, right, written)
            stored[name] = {"texts": digest(right + written), "scores": scores}
    STORED.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
