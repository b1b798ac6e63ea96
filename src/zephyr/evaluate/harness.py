"""`lm_eval:NAME`: any task or group of EleutherAI's lm-evaluation-harness, run on our models.

Prompts, few-shot examples, filters and metrics are the harness's own; the model is adapted to its
`LM` interface (`harness_model`). The data set is read from this machine by the library `datasets`;
nothing is downloaded. Of a user's own task, the files in its folder are part of its fingerprint: a
data set that changes elsewhere does not run the task again. Mixtures do not know the questions, and
are not decontaminated of them.
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

from zephyr.errors import ZephyrError, closest_name
from zephyr.evaluate.interface import EvalModel, EvalSettings, Item, Metric, TaskOutput, sample
from zephyr.evaluate.task import Task
from zephyr.recipe.evaluation import LM_EVAL, TaskSpec
from zephyr.records import Record, content_hash

TASK_VERSION = 1
FEW_SHOT_SEED = 1234
"""The harness's default seed for sampling few-shot examples."""
_PROPORTION_METRICS = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
"""Metrics that are 0 or 1 for each item."""


def make_task(name: str) -> Task:
    """Makes the Task of an lm-eval task name, which is only looked up when it runs.

    Raises:
        ZephyrError: the harness is not installed.
    """
    return Task(
        name=name,
        version=TASK_VERSION,
        record_kind=None,
        method=f"lm-eval {_lm_eval_version(name)}",
        sources=(),
        evaluate=evaluate_lm_eval_task,
        metrics=(),
        accepted_settings=("shots", "chat", "max_new_tokens"),
    )


def fingerprint_content(settings: TaskSpec, folder: Path) -> dict[str, Any]:
    """The content of a task that enters its fingerprint, beyond its settings.

    Raises:
        ZephyrError: the folder of its files is not there.
    """
    parts: dict[str, Any] = {"lm-eval": _lm_eval_version(settings.name)}
    if settings.path is not None:
        task_folder = folder / settings.path
        files = [p for p in sorted(task_folder.rglob("*")) if p.is_file() and p.suffix != ".pyc"]
        if not files:
            raise ZephyrError(
                "this folder has no task files of lm-eval",
                where=f"evaluate.tasks.{settings.key}.path",
                found=str(task_folder),
                todo="name the folder that holds its .yaml",
            )
        parts["files"] = {
            p.relative_to(task_folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
        }
    return parts


def evaluate_lm_eval_task(
    model: EvalModel, records: Sequence[Record], settings: EvalSettings
) -> TaskOutput:
    """All documents of the task, or `n` of them; of a group, of all its tasks together.

    A metric that the harness does not make of a mean over items has no value here; the reason
    says what it is by the harness. Groups weigh every item alike.

    Raises:
        ZephyrError: the harness has no such task, its data set is not on this machine, or the
            task asks for more than a causal language model does.
    """
    import lm_eval  # imports torch

    from zephyr.evaluate.harness_model import LmEvalModel  # imports torch

    task_config = settings.task
    with _block_dataset_downloads(), _silence_lm_eval():
        tasks = _load_tasks(task_config)
        documents_by_task, undrawn_count = _sample_documents(tasks, settings)
        lm = LmEvalModel(model, task_config, settings.seed, tasks)
        try:
            results = lm_eval.evaluate(
                lm,
                {"tasks": {name: tasks[name] for name in documents_by_task}},
                samples={name: list(documents) for name, documents in documents_by_task.items()},
                apply_chat_template=task_config.chat,
                bootstrap_iters=0,
            )
        except ValueError as error:
            raise ZephyrError(
                f"lm-eval can't ask task {task_config.name!r} here",
                where=f"evaluate.tasks.{task_config.key}",
                found=str(error).partition("\n")[0],
            ) from error
    table = _ItemBuilder(tasks, results["results"], task_config.name)
    items = [
        item
        for name, documents in documents_by_task.items()
        for item in table.build_items(name, documents, results["samples"][name], lm)
    ]
    counts = {"not drawn": undrawn_count, "cut to the context": lm.truncated_count}
    versions = {str(tasks[name].VERSION) for name in documents_by_task}
    shot_counts = {tasks[name].get_config("num_fewshot") for name in documents_by_task}
    protocol = [
        f"task version {'/'.join(sorted(versions))}",
        f"{'/'.join(map(str, sorted(shot_counts)))}-shot",
        *(["chat"] if task_config.chat else []),
    ]
    nonzero_counts = {reason: count for reason, count in counts.items() if count}
    return TaskOutput(
        items, nonzero_counts, tuple(protocol), table.empty_reasons, tuple(table.metrics.values())
    )


def _lm_eval_version(name: str) -> str:
    """The installed version of lm-eval."""
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        raise ZephyrError(
            f"task {name!r} needs lm-evaluation-harness, which is not installed",
            where="evaluate.tasks",
            todo="pip install 'zephyr-tutor[lm-eval]'",
        ) from None


def _load_tasks(settings: TaskSpec) -> dict[str, Any]:
    """Loads the lm-eval tasks of this name, with the number of few-shot examples set."""
    from datasets.exceptions import DatasetsError
    from lm_eval.tasks import TaskManager

    name = settings.name.removeprefix(LM_EVAL)
    where = f"evaluate.tasks.{settings.key}"
    manager = TaskManager(include_path=settings.path, include_defaults=settings.path is None)
    if name not in manager.all_tasks:
        raise ZephyrError(
            f"lm-eval has no task {name!r}",
            where=where,
            nearest=closest_name(name, manager.all_tasks),
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
    for task in tasks.values():
        own_shots = task.get_config("num_fewshot")
        if settings.shots is not None and own_shots != 0:
            task.set_config(key="num_fewshot", value=settings.shots)
        elif own_shots is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    return tasks


def _sample_documents(
    tasks: Mapping[str, Any], settings: EvalSettings
) -> tuple[dict[str, dict[int, str]], int]:
    """Samples documents: their ids by task and index, and how many were left out."""
    occurrences: dict[str, int] = {}
    documents: list[tuple[str, int, str]] = []
    for name, task in tasks.items():
        for number, document in enumerate(task.eval_docs):
            fingerprint = content_hash(name, repr(sorted(document.items())))
            occurrences[fingerprint] = (
                occurrences.get(fingerprint, 0) + 1
            )  # the data set may have it twice
            documents.append((name, number, content_hash(fingerprint, occurrences[fingerprint])))
    selection = sample(documents, settings.task.n, settings.seed, lambda one: one[2])
    documents_by_task: dict[str, dict[int, str]] = {}
    for name, number, fingerprint in selection:
        documents_by_task.setdefault(name, {})[number] = fingerprint
    return documents_by_task, len(documents) - len(selection)


class _ItemBuilder:
    """Builds items from lm-eval's logged samples, and collects their metrics."""

    def __init__(self, tasks: Mapping[str, Any], results: Mapping[str, Any], name: str) -> None:
        self.tasks, self.results, self.name = tasks, results, name
        self.metrics: dict[str, Metric] = {}
        self.empty_reasons: dict[str, str] = {}

    def build_items(
        self,
        name: str,
        documents: Mapping[int, str],
        samples: Sequence[Mapping[str, Any]],
        lm: Any,
    ) -> list[Item]:
        """Builds an item for each document, with the scores of all filters."""
        item_by_document: dict[int, Item] = {}
        for row in samples:
            number = row["doc_id"]
            if number not in item_by_document:
                item_by_document[number] = self._build_item(name, documents[number], row, lm)
            self._add_scores(name, row, item_by_document[number])
        return list(item_by_document.values())

    def _build_item(self, name: str, fingerprint: str, row: Mapping[str, Any], lm: Any) -> Item:
        arguments = row["arguments"]
        request = arguments[0][0]
        detail: dict[str, Any] = {"request": request}
        if self.tasks[name].OUTPUT_TYPE == "generate_until":
            detail |= {"reference": str(row["target"]), "output": row["resps"][0][0]}
            detail["ended"] = lm.finish_reasons[request]
        elif len(arguments[0]) > 1:
            detail |= self._logprob_detail(name, row)
        group = name if len(self.tasks) > 1 else ""
        return {
            "id": fingerprint,
            "source": self.name,
            "group": group,
            "scores": {},
            "weight": {},
            "detail": detail,
        }

    def _logprob_detail(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Log-probabilities of the options; with the right option, where one is right."""
        logprobs = [answer[0][0] for answer in row["resps"]]
        task = self.tasks[name]
        if task.OUTPUT_TYPE != "multiple_choice" or not isinstance(row["target"], int):
            return {
                "reference": str(row["target"]),
                "continuations": [pair[1] for pair in row["arguments"]],
                "logprobs": logprobs,
            }
        choices = task.doc_to_choice(row["doc"])
        logprobs = logprobs[: len(choices)]  # others may stand there without what comes before
        return {
            "choices": choices,
            "answer": row["target"],
            "chosen": logprobs.index(max(logprobs)),
            "logprobs": logprobs,
        }

    def _add_scores(self, name: str, row: Mapping[str, Any], item: Item) -> None:
        for metric in row["metrics"]:
            label = metric if row["filter"] == "none" else f"{metric},{row['filter']}"
            aggregation = self.tasks[name].aggregation().get(metric, _mean_aggregations()["mean"])
            read_score = _SCORE_READERS.get(
                next((k for k, f in _mean_aggregations().items() if f is aggregation), "")
            )
            self._declare_metric(name, metric, label, read_score)
            value = row[metric]
            if read_score is None or (read_score is _read_value and not _is_number(value)):
                aggregate_value = self.results[name].get(f"{metric},{row['filter']}")
                self.empty_reasons[label] = (
                    f"{aggregation.__name__} of the whole, by lm-eval {aggregate_value:.6g}: "
                    "no mean over items"
                    if _is_number(aggregate_value)
                    else f"lm-eval's {aggregation.__name__} is no mean over items"
                )
                continue
            item["scores"][label], weight = read_score(value)
            if weight != 1:
                item["weight"][label] = weight
        if row["filter"] != "none":
            item["detail"].setdefault("filtered", {})[row["filter"]] = row["filtered_resps"][0]

    def _declare_metric(self, name: str, metric: str, label: str, read_score: Any) -> None:
        if label in self.metrics:
            return
        higher = self.tasks[name].higher_is_better().get(metric)
        is_proportion = read_score is _read_value and metric in _PROPORTION_METRICS
        self.metrics[label] = Metric(
            name=label,
            kind="proportion"
            if is_proportion
            else "exp-mean"
            if read_score in _PERPLEXITY_READERS
            else "mean",
            better=None if higher is None else "higher" if higher else "lower",
            protocol_label=label.replace(",", ", "),
            scale=100 if is_proportion else 1,
            headline=not self.metrics,
            primary=not self.metrics,
        )


_ScoreReader = Callable[[Any], tuple[float, float]]
"""Reads a value of lm-eval as an item's score and its weight."""


def _read_value(value: Any) -> tuple[float, float]:
    return float(value), 1


def _read_negative_logprob(value: Any) -> tuple[float, float]:
    return -float(value), 1


def _read_negative_logprob_per_unit(value: Any) -> tuple[float, float]:
    return -float(value[0]), value[1]


def _read_bits_per_unit(value: Any) -> tuple[float, float]:
    return -float(value[0]) / value[1] / math.log(2), value[1]


_SCORE_READERS: dict[str, _ScoreReader] = {
    "mean": _read_value,
    "perplexity": _read_negative_logprob,
    "weighted_perplexity": _read_negative_logprob_per_unit,
    "bits_per_byte": _read_bits_per_unit,
}
_PERPLEXITY_READERS = (_read_negative_logprob, _read_negative_logprob_per_unit)


def _mean_aggregations() -> dict[str, Any]:
    """lm-eval's aggregations that are means over items, by name."""
    from lm_eval.api import metrics

    return {name: vars(metrics)[name] for name in _SCORE_READERS}


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (hasattr(value, "dtype") and value.ndim == 0)


@contextlib.contextmanager
def _block_dataset_downloads() -> Iterator[None]:
    """Context in which data set downloads are blocked (the libraries' offline mode)."""
    import datasets
    import huggingface_hub

    dataset_switches = (
        (datasets.config, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_DATASETS_OFFLINE"),
    )
    switches = (*dataset_switches, (huggingface_hub.constants, "HF_HUB_OFFLINE"))
    before = [vars(module)[name] for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


@contextlib.contextmanager
def _silence_lm_eval() -> Iterator[None]:
    """Silences lm-eval's progress bars and notices."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars_disabled = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        if not bars_disabled:
            datasets.enable_progress_bars()
