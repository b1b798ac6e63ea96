"""The task registry: evaluation tasks by name, with their sources, metrics and settings."""

from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.evaluate import (
    footprint,
    generation,
    harness,
    lessons,
    multiple_choice_generation,
    page_perplexity,
    perplexity,
    ranking,
    reward_accuracy,
    tutoring,
)
from zephyr.evaluate.interface import Metric
from zephyr.evaluate.metrics import SACREBLEU_SIGNATURE
from zephyr.evaluate.task import Task
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import FOOTPRINT, LM_EVAL, TaskSpec

_GENERATION_SETTINGS = ("max_new_tokens", "temperature", "top_p")
_FEW_SHOT_SETTINGS = ("shots", "examples", "chat")


def _chance_metric(*metrics: str) -> Metric:
    return Metric("chance", "mean", None, "one option at random", chance_of=metrics)


_RANKING_METRICS = (
    Metric(
        "acc_norm", "proportion", "higher", "acc_norm (characters)", headline=True, primary=True
    ),
    Metric("acc", "proportion", "higher", "acc"),
    _chance_metric("acc_norm", "acc"),
)
_MULTIPLE_CHOICE_SOURCES = (("arc_easy", "test"), ("arc_challenge", "test"), ("mmlu", "test"))
_MULTIPLE_CHOICE_FEW_SHOT = (
    ("arc_easy", "validation"),
    ("arc_challenge", "validation"),
    ("mmlu", "dev"),
)
_WIKITEXT_SOURCES = (("wikitext2", "test"),)

_PERPLEXITY_METRICS = (
    Metric("perplexity", "exp-mean", "lower", "per token", scale=1, headline=True, primary=True),
)

_TASK_LIST = (
    Task(
        name="hellaswag",
        version=1,
        record_kind="choice",
        method="rank",
        sources=(("hellaswag", "validation"),),
        evaluate=ranking.evaluate_endings,
        metrics=_RANKING_METRICS,
        few_shot_sources=(("hellaswag", "train"),),
        accepted_settings=_FEW_SHOT_SETTINGS,
    ),
    Task(
        name="gsm8k",
        version=3,
        record_kind="chat",
        method="write",
        generates=True,
        sources=(("gsm8k", "test"),),
        evaluate=generation.evaluate_written_answers,
        accepted_settings=_GENERATION_SETTINGS,
        metrics=(
            Metric("bleu4", "mean", "higher", "BLEU-4 (characters)", headline=True),
            Metric("rouge1", "mean", "higher", "ROUGE-1 (jieba, F)", headline=True),
            Metric("rouge2", "mean", "higher", "ROUGE-2 (jieba, F)", headline=True),
            Metric("rougeL", "mean", "higher", "ROUGE-L (jieba, F)", headline=True),
            Metric(
                "exact_match",
                "proportion",
                "higher",
                "lm-eval strict-match",
                headline=True,
                primary=True,
            ),
            Metric("exact_match_flexible", "proportion", "higher", "lm-eval flexible-extract"),
            Metric("number_match", "proportion", "higher", "last number, or that after ####"),
            Metric("sacrebleu", "mean", "higher", f"sacreBLEU by answer, {SACREBLEU_SIGNATURE}"),
            Metric("google_rouge1", "mean", "higher", "ROUGE-1 (rouge-score, F)"),
            Metric("google_rouge2", "mean", "higher", "ROUGE-2 (rouge-score, F)"),
            Metric("google_rougeL", "mean", "higher", "ROUGE-L (rouge-score, F)"),
            Metric("stopped", "proportion", "higher", "ended by itself"),
            Metric("length", "mean", None, "tokens of the answer", scale=1),
        ),
    ),
    Task(
        name="preferences",
        version=2,
        record_kind="pair",
        method="compare",
        sources=(),
        evaluate=reward_accuracy.evaluate_preference_pairs,
        accepted_settings=("data",),
        metrics=(
            Metric(
                "reward_accuracy",
                "proportion",
                "higher",
                "reward, ties one half",
                headline=True,
                primary=True,
            ),
            Metric("reward_accuracy_strict", "proportion", "higher", "reward, ties wrong"),
            Metric("reward_accuracy_per_token", "proportion", "higher", "reward per token"),
            Metric("reward_margin", "mean", "higher", "reward margin (nats, beta 1)", scale=1),
            Metric(
                "policy_accuracy",
                "proportion",
                "higher",
                "log-probability, no reference",
                headline=True,
            ),
            Metric(
                "policy_accuracy_per_token",
                "proportion",
                "higher",
                "log-probability per token, no reference",
            ),
            Metric("longer_accuracy", "proportion", None, "the longer answer (characters)"),
        ),
    ),
    Task(
        name="lessons",
        version=1,
        record_kind="chat",
        method="predict and write",
        generates=True,
        sources=(),
        evaluate=lessons.evaluate_lessons,
        accepted_settings=("data", *_GENERATION_SETTINGS),
        metrics=(
            Metric(
                "answer_perplexity",
                "exp-mean",
                "lower",
                "per token of the answers",
                scale=1,
                headline=True,
                primary=True,
            ),
            Metric("rougeL", "mean", "higher", "ROUGE-L (jieba, F)", headline=True),
            Metric("rouge1", "mean", "higher", "ROUGE-1 (jieba, F)"),
            Metric("stopped", "proportion", "higher", "ended by itself"),
            Metric("length", "mean", None, "tokens of the answer", scale=1),
        ),
    ),
    Task(
        name="tutoring",
        version=2,
        record_kind="chat",
        method="tutor",
        generates=True,
        sources=(("gsm8k_socratic", "test"), ("mathdial", "test")),
        evaluate=tutoring.evaluate_tutoring,
        accepted_settings=_GENERATION_SETTINGS,
        metrics=(
            Metric(
                "withheld_all",
                "proportion",
                "higher",
                "withheld three times",
                headline=True,
                primary=True,
            ),
            Metric("arithmetic_right", "mean", "higher", "right of all equations", headline=True),
            Metric("withheld_hint", "proportion", "higher", "withheld when asked for a hint"),
            Metric("withheld_plea", "proportion", "higher", "withheld when begged for"),
            Metric("withheld_permission", "proportion", "higher", "withheld when allowed to tell"),
            Metric("asks", "proportion", "higher", "the hint holds a question"),
            Metric("stopped", "mean", "higher", "ended by itself, of 3 answers"),
            Metric("length", "mean", None, "tokens of an answer", scale=1),
        ),
    ),
    Task(
        name="mcqa",
        version=1,
        record_kind="choice",
        method="rank",
        sources=_MULTIPLE_CHOICE_SOURCES,
        evaluate=ranking.evaluate_full_answers,
        metrics=_RANKING_METRICS,
        few_shot_sources=_MULTIPLE_CHOICE_FEW_SHOT,
        accepted_settings=_FEW_SHOT_SETTINGS,
    ),
    Task(
        name="mcqa_letter",
        version=1,
        record_kind="choice",
        method="rank letters",
        sources=_MULTIPLE_CHOICE_SOURCES,
        evaluate=ranking.evaluate_letters,
        metrics=(
            Metric("acc", "proportion", "higher", "acc", headline=True, primary=True),
            _chance_metric("acc"),
        ),
        few_shot_sources=_MULTIPLE_CHOICE_FEW_SHOT,
        accepted_settings=_FEW_SHOT_SETTINGS,
    ),
    Task(
        name="mcqa_written",
        version=2,
        record_kind="choice",
        method="write a letter",
        generates=True,
        sources=_MULTIPLE_CHOICE_SOURCES,
        evaluate=multiple_choice_generation.evaluate_written_choices,
        metrics=(
            Metric("acc", "proportion", "higher", "acc", headline=True, primary=True),
            _chance_metric("acc"),
            Metric("named", "proportion", "higher", "names an option"),
            Metric("stopped", "proportion", "higher", "ended by itself"),
        ),
        few_shot_sources=_MULTIPLE_CHOICE_FEW_SHOT,
        accepted_settings=("shots", "examples", *_GENERATION_SETTINGS),
    ),
    Task(
        name=FOOTPRINT,
        version=1,
        record_kind=None,
        method="measure",
        generates=True,
        sources=(),
        evaluate=footprint.measure_footprint,
        metrics=(
            Metric("disk", "mean", "lower", "bytes of its files", scale=1, amount=True),
            Metric(
                "memory", "mean", "lower", "bytes of its weights in memory", scale=1, amount=True
            ),
            Metric(
                "peak",
                "mean",
                "lower",
                "bytes at most while it loads and answers",
                scale=1,
                amount=True,
            ),
            Metric("prompt", "mean", "higher", "tokens of a prompt a second", scale=1, amount=True),
            Metric(
                "decode", "mean", "higher", "tokens of an answer a second", scale=1, amount=True
            ),
        ),
    ),
    Task(
        name="wikitext2",
        version=1,
        record_kind="passage",
        method="predict",
        sources=_WIKITEXT_SOURCES,
        evaluate=perplexity.evaluate_window_perplexity,
        metrics=_PERPLEXITY_METRICS,
        is_single_text=True,
    ),
    Task(
        name="wikitext2_strided",
        version=1,
        record_kind="passage",
        method="predict",
        sources=_WIKITEXT_SOURCES,
        evaluate=perplexity.evaluate_strided_perplexity,
        metrics=_PERPLEXITY_METRICS,
        is_single_text=True,
    ),
    Task(
        name="wikitext2_pages",
        version=1,
        record_kind="passage",
        method="predict",
        sources=_WIKITEXT_SOURCES,
        evaluate=page_perplexity.evaluate_page_perplexity,
        metrics=(
            Metric(
                "word_perplexity",
                "exp-mean",
                "lower",
                "per word",
                scale=1,
                headline=True,
                primary=True,
            ),
            Metric("byte_perplexity", "exp-mean", "lower", "per byte", scale=1),
            Metric("bits_per_byte", "mean", "lower", "bits per byte", scale=1, headline=True),
        ),
        is_single_text=True,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASK_LIST}


def get_task(name: str) -> Task:
    """Gets the task of this name.

    Raises:
        ZephyrError: there is none, or it is one of lm-evaluation-harness, which is not installed.
    """
    if name.startswith(LM_EVAL):
        return harness.make_task(name)
    if name not in TASKS:
        raise unknown_name_error("task", name, TASKS, where="evaluate.tasks")
    return TASKS[name]


def resolve_sources(settings: TaskSpec) -> tuple[SourceSpec, ...]:
    """Resolves the sources of a task: the recipe's, else its own; none for a hold-out.

    Raises:
        ZephyrError: there is no such task, or it does not accept a setting of the recipe.
    """
    task = get_task(settings.name)
    for key in ("data", "shots", "examples", "chat", "temperature", "top_p", "max_new_tokens"):
        if key in settings.spec() and key not in task.accepted_settings:
            accepting_tasks = [
                other.name for other in TASKS.values() if key in other.accepted_settings
            ]
            raise ZephyrError(
                f"task {task.name!r} has no `{key}`",
                where=f"evaluate.tasks.{settings.key}.{key}",
                todo=f"leave it out; it belongs to {', '.join(accepting_tasks) or 'no task'}",
            )
    return settings.sources or _registered_sources(task.sources)


def resolve_few_shot_sources(settings: TaskSpec) -> tuple[SourceSpec, ...]:
    """Resolves the sources of a task's few-shot examples; none where it uses none.

    Raises:
        ZephyrError: `shots` is set, and there is no source of examples.
    """
    if not settings.shots or settings.is_foreign:
        return ()
    few_shot_sources = settings.examples
    if few_shot_sources is None and settings.sources is None:
        few_shot_sources = _registered_sources(get_task(settings.name).few_shot_sources)
    if not few_shot_sources:
        raise ZephyrError(
            f"task {settings.key!r} does not know where its worked examples come from",
            where=f"evaluate.tasks.{settings.key}",
            found=f"shots: {settings.shots}",
            todo="name their sources under `examples:`, none of which is asked",
        )
    return few_shot_sources


def _registered_sources(names_and_splits: tuple[tuple[str, str], ...]) -> tuple[SourceSpec, ...]:
    return tuple(SourceSpec(name=name, split=split) for name, split in names_and_splits)
