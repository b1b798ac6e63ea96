"""`lm_eval:NAME`: any task or group of EleutherAI's lm-evaluation-harness, asked of a model here.

Prompts, worked examples, filters and metrics are the harness's own; the model answers by its two
verbs (`harness_model`). The data set is read from this machine alone, by the library `datasets`;
what is not there is not fetched. Only what lies in the folder of a task of the user's own enters
its fingerprint: a data set that changes elsewhere asks nothing again. The questions are not known
to mixtures, which can't look for them among what they take.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError, nearest
from zephyr.evaluate.asking import Asked, Item, Model, Settings, sample
from zephyr.evaluate.task import Metric, Task
from zephyr.recipe.evaluation import LM_EVAL, TaskSpec
from zephyr.records import Record, content_hash

VERSION = 1
EXAMPLE_SEED = 1234
"""The harness's own default, by which it draws worked examples."""
_SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
"""Metrics that are right or wrong for each item."""


def task(name: str) -> Task:
    """The task of this name; whether the harness knows it is seen once it is asked.

    Raises:
        ZephyrError: the harness is not installed.
    """
    return Task(
        name=name,
        version=VERSION,
        asks=None,
        method=f"lm-eval {_installed(name)}",
        sources=(),
        ask=ask,
        metrics=(),
        takes=("shots", "chat", "max_new_tokens"),
    )


def content(settings: TaskSpec, folder: Path) -> dict[str, Any]:
    """What makes the task what it is, beyond its settings; `folder` is that of the recipe.

    Raises:
        ZephyrError: the folder of its files is not there.
    """
    found: dict[str, Any] = {"lm-eval": _installed(settings.name)}
    if settings.path is not None:
        place = folder / settings.path
        files = [p for p in sorted(place.rglob("*")) if p.is_file() and p.suffix != ".pyc"]
        if not files:
            raise ZephyrError(
                "this folder has no task files of lm-eval",
                where=f"evaluate.tasks.{settings.key}.path",
                found=str(place),
                todo="name the folder that holds its .yaml",
            )
        found["files"] = {
            p.relative_to(place).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
        }
    return found


def ask(model: Model, records: Sequence[Record], settings: Settings) -> Asked:
    """All documents of the task, or `n` of them; of a group, of all its tasks together.

    A metric that the harness does not make of a mean over items has no value here; the reason
    says what it is by the harness. Groups weigh every item alike.

    Raises:
        ZephyrError: the harness has no such task, its data set is not on this machine, or the
            task asks for more than a causal language model does.
    """
    import lm_eval  # imports torch

    from zephyr.evaluate.harness_model import HarnessModel  # imports torch

    told = settings.task
    with _offline(), _quiet():
        tasks = _load(told)
        drawn, left = _draw(tasks, settings)
        asked = HarnessModel(model, told, settings.seed, tasks)
        try:
            found = lm_eval.evaluate(
                asked,
                {"tasks": {name: tasks[name] for name in drawn}},
                samples={name: list(documents) for name, documents in drawn.items()},
                apply_chat_template=told.chat,
                bootstrap_iters=0,
            )
        except ValueError as error:
            raise ZephyrError(
                f"lm-eval can't ask task {told.name!r} here",
                where=f"evaluate.tasks.{told.key}",
                found=str(error).partition("\n")[0],
            ) from error
    table = _Table(tasks, found["results"], told.name)
    items = [
        item
        for name, documents in drawn.items()
        for item in table.items(name, documents, found["samples"][name], asked)
    ]
    counts = {"not drawn": left, "cut to the context": asked.cut}
    versions = {str(tasks[name].VERSION) for name in drawn}
    shots = {tasks[name].get_config("num_fewshot") for name in drawn}
    how = [
        f"task version {'/'.join(sorted(versions))}",
        f"{'/'.join(map(str, sorted(shots)))}-shot",
        *(["chat"] if told.chat else []),
    ]
    kept = {reason: count for reason, count in counts.items() if count}
    return Asked(items, kept, tuple(how), table.empty, tuple(table.metrics.values()))


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        raise ZephyrError(
            f"task {name!r} needs lm-evaluation-harness, which is not installed",
            where="evaluate.tasks",
            todo="pip install 'zephyr-tutor[lm-eval]'",
        ) from None


def _load(settings: TaskSpec) -> dict[str, Any]:
    """The harness's tasks of this name, with as many worked examples as are asked for."""
    from datasets.exceptions import DatasetsError
    from lm_eval.tasks import TaskManager

    name = settings.name.removeprefix(LM_EVAL)
    where = f"evaluate.tasks.{settings.key}"
    manager = TaskManager(include_path=settings.path, include_defaults=settings.path is None)
    if name not in manager.all_tasks:
        raise ZephyrError(
            f"lm-eval has no task {name!r}",
            where=where,
            nearest=nearest(name, manager.all_tasks),
            todo="lm-eval ls tasks" if settings.path is None else "name one of those in `path`",
        )
    try:
        tasks: dict[str, Any] = manager.load(name)["tasks"]
    except (OSError, ValueError, DatasetsError) as error:
        raise ZephyrError(
            f"the data set of lm-eval's task {name!r} can't be read on this machine",
            where=where,
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            todo="an evaluation fetches nothing; where there is a network, run once\n"
            f"{'':11}python -c \"from lm_eval.tasks import TaskManager as T; T().load('{name}')\"",
        ) from error
    except ImportError as error:
        raise ZephyrError(
            f"lm-eval's task {name!r} needs a package that is not installed",
            where=where,
            found=str(error).partition("\n")[0],
            todo="install it, or the extra of lm-eval that the task names",
        ) from error
    for one in tasks.values():
        own = one.get_config("num_fewshot")
        if settings.shots is not None and own != 0:
            one.set_config(key="num_fewshot", value=settings.shots)
        elif own is None:
            one.set_config(key="num_fewshot", value=0)
        one.set_fewshot_seed(seed=EXAMPLE_SEED)
    return tasks


def _draw(tasks: Mapping[str, Any], settings: Settings) -> tuple[dict[str, dict[int, str]], int]:
    """Of each task the numbers of the documents that are asked, with their ids; and the others."""
    seen: dict[str, int] = {}
    documents: list[tuple[str, int, str]] = []
    for name, one in tasks.items():
        for number, document in enumerate(one.eval_docs):
            mark = content_hash(name, repr(sorted(document.items())))
            seen[mark] = seen.get(mark, 0) + 1  # the same document may stand there twice
            documents.append((name, number, content_hash(mark, seen[mark])))
    chosen = sample(documents, settings.task.n, settings.seed, lambda one: one[2])
    drawn: dict[str, dict[int, str]] = {}
    for name, number, mark in chosen:
        drawn.setdefault(name, {})[number] = mark
    return drawn, len(documents) - len(chosen)


class _Table:
    """The harness's samples as items, and its metrics as they come."""

    def __init__(self, tasks: Mapping[str, Any], results: Mapping[str, Any], name: str) -> None:
        self.tasks, self.results, self.name = tasks, results, name
        self.metrics: dict[str, Metric] = {}
        self.empty: dict[str, str] = {}

    def items(
        self,
        name: str,
        documents: Mapping[int, str],
        samples: Sequence[Mapping[str, Any]],
        asked: Any,
    ) -> list[Item]:
        """An item for each document, with the scores of all filters."""
        made: dict[int, Item] = {}
        for row in samples:
            number = row["doc_id"]
            if number not in made:
                made[number] = self._item(name, documents[number], row, asked)
            self._add(name, row, made[number])
        return list(made.values())

    def _item(self, name: str, mark: str, row: Mapping[str, Any], asked: Any) -> Item:
        arguments = row["arguments"]
        request = arguments[0][0]
        detail: dict[str, Any] = {"request": request}
        if self.tasks[name].OUTPUT_TYPE == "generate_until":
            detail |= {"reference": str(row["target"]), "output": row["resps"][0][0]}
            detail["ended"] = asked.ended[request]
        elif len(arguments[0]) > 1:
            detail |= self._weighed(name, row)
        group = name if len(self.tasks) > 1 else ""
        return {
            "id": mark,
            "source": self.name,
            "group": group,
            "scores": {},
            "weight": {},
            "detail": detail,
        }

    def _weighed(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Log-probabilities of what was weighed; with the right option, where one is right."""
        logprobs = [answer[0][0] for answer in row["resps"]]
        one = self.tasks[name]
        if one.OUTPUT_TYPE != "multiple_choice" or not isinstance(row["target"], int):
            return {
                "reference": str(row["target"]),
                "continuations": [pair[1] for pair in row["arguments"]],
                "logprobs": logprobs,
            }
        choices = one.doc_to_choice(row["doc"])
        logprobs = logprobs[: len(choices)]  # others may stand there without what comes before
        return {
            "choices": choices,
            "answer": row["target"],
            "chosen": logprobs.index(max(logprobs)),
            "logprobs": logprobs,
        }

    def _add(self, name: str, row: Mapping[str, Any], item: Item) -> None:
        for metric in row["metrics"]:
            label = metric if row["filter"] == "none" else f"{metric},{row['filter']}"
            how = self.tasks[name].aggregation().get(metric, _means()["mean"])
            reading = _READ.get(next((k for k, f in _means().items() if f is how), ""))
            self._declare(name, metric, label, reading)
            value = row[metric]
            if reading is None or (reading is _plain and not _is_number(value)):
                whole = self.results[name].get(f"{metric},{row['filter']}")
                self.empty[label] = (
                    f"{how.__name__} of the whole, by lm-eval {whole:.6g}: no mean over items"
                    if _is_number(whole)
                    else f"lm-eval's {how.__name__} is no mean over items"
                )
                continue
            item["scores"][label], weight = reading(value)
            if weight != 1:
                item["weight"][label] = weight
        if row["filter"] != "none":
            item["detail"].setdefault("filtered", {})[row["filter"]] = row["filtered_resps"][0]

    def _declare(self, name: str, metric: str, label: str, reading: Any) -> None:
        if label in self.metrics:
            return
        higher = self.tasks[name].higher_is_better().get(metric)
        share = reading is _plain and metric in _SHARES
        self.metrics[label] = Metric(
            name=label,
            kind="proportion" if share else "exp-mean" if reading in _EXPONENTIAL else "mean",
            better=None if higher is None else "higher" if higher else "lower",
            rule=label.replace(",", ", "),
            scale=100 if share else 1,
            headline=not self.metrics,
        )


_Reading = Callable[[Any], tuple[float, float]]
"""A value of the harness as an item's score and its weight."""


def _plain(value: Any) -> tuple[float, float]:
    return float(value), 1


def _lost(value: Any) -> tuple[float, float]:
    return -float(value), 1


def _lost_by_unit(value: Any) -> tuple[float, float]:
    return -float(value[0]), value[1]


def _bits_by_unit(value: Any) -> tuple[float, float]:
    return -float(value[0]) / value[1] / math.log(2), value[1]


_READ: dict[str, _Reading] = {
    "mean": _plain,
    "perplexity": _lost,
    "weighted_perplexity": _lost_by_unit,
    "bits_per_byte": _bits_by_unit,
}
_EXPONENTIAL = (_lost, _lost_by_unit)


def _means() -> dict[str, Any]:
    """The harness's functions over items that are means, by their names."""
    from lm_eval.api import metrics

    return {name: vars(metrics)[name] for name in _READ}


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (hasattr(value, "dtype") and value.ndim == 0)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keeps the libraries that find data sets from the network."""
    import datasets
    import huggingface_hub

    places = ((datasets.config, "HF_HUB_OFFLINE"), (datasets.config, "HF_DATASETS_OFFLINE"))
    switches = (*places, (huggingface_hub.constants, "HF_HUB_OFFLINE"))
    before = [vars(module)[name] for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the harness's progress bars and notices out of what people see."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
