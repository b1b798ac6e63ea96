"""The tasks that Zephyr knows, and what each of them reads."""

from zephyr.errors import ZephyrError, unknown
from zephyr.evaluate import (
    footprint,
    harness,
    pages,
    perplexity,
    preferences,
    quizzes,
    ranking,
    tutoring,
    writing,
)
from zephyr.evaluate.metrics import SACREBLEU
from zephyr.evaluate.task import Metric, Task
from zephyr.recipe.data import SourceSpec
from zephyr.recipe.evaluation import FOOTPRINT, LM_EVAL, TaskSpec

_WRITES = ("max_new_tokens", "temperature", "top_p")
_SHOWS = ("shots", "examples", "chat")
_CHANCE = Metric("chance", "mean", None, "one option at random")
_RANKED = (
    Metric("acc_norm", "proportion", "higher", "acc_norm (characters)", headline=True),
    Metric("acc", "proportion", "higher", "acc"),
    _CHANCE,
)
_QUIZZES = (("arc_easy", "test"), ("arc_challenge", "test"), ("mmlu", "test"))
_QUIZ_EXAMPLES = (("arc_easy", "validation"), ("arc_challenge", "validation"), ("mmlu", "dev"))
_WIKITEXT = (("wikitext2", "test"),)

_PERPLEXITY = (Metric("perplexity", "exp-mean", "lower", "per token", scale=1, headline=True),)

_ALL = (
    Task(
        name="hellaswag",
        version=1,
        asks="choice",
        method="rank",
        sources=(("hellaswag", "validation"),),
        ask=ranking.ask_endings,
        metrics=_RANKED,
        examples=(("hellaswag", "train"),),
        takes=_SHOWS,
    ),
    Task(
        name="gsm8k",
        version=2,
        asks="chat",
        method="write",
        sources=(("gsm8k", "test"),),
        ask=writing.ask_problems,
        takes=_WRITES,
        metrics=(
            Metric("bleu4", "mean", "higher", "BLEU-4 (characters)", headline=True),
            Metric("rouge1", "mean", "higher", "ROUGE-1 (jieba, F)", headline=True),
            Metric("rouge2", "mean", "higher", "ROUGE-2 (jieba, F)", headline=True),
            Metric("rougeL", "mean", "higher", "ROUGE-L (jieba, F)", headline=True),
            Metric("exact_match", "proportion", "higher", "lm-eval strict-match", headline=True),
            Metric("exact_match_flexible", "proportion", "higher", "lm-eval flexible-extract"),
            Metric("number_match", "proportion", "higher", "last number, or that after ####"),
            Metric("sacrebleu", "mean", "higher", f"sacreBLEU by answer, {SACREBLEU}"),
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
        asks="pair",
        method="compare",
        sources=(),
        ask=preferences.ask_pairs,
        metrics=(
            Metric(
                "reward_accuracy", "proportion", "higher", "reward, ties one half", headline=True
            ),
            Metric("reward_accuracy_strict", "proportion", "higher", "reward, ties wrong"),
            Metric("reward_accuracy_per_token", "proportion", "higher", "reward per token"),
            Metric("reward_margin", "mean", "higher", "reward margin (nats, beta 1)", scale=1),
            Metric("policy_accuracy", "proportion", "higher", "log-probability, no reference"),
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
        name="tutoring",
        version=1,
        asks="chat",
        method="tutor",
        sources=(("gsm8k_socratic", "test"), ("mathdial", "test")),
        ask=tutoring.ask_script,
        takes=_WRITES,
        metrics=(
            Metric("withheld_all", "proportion", "higher", "withheld three times", headline=True),
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
        asks="choice",
        method="rank",
        sources=_QUIZZES,
        ask=ranking.ask_questions,
        metrics=_RANKED,
        examples=_QUIZ_EXAMPLES,
        takes=_SHOWS,
    ),
    Task(
        name="mcqa_letter",
        version=1,
        asks="choice",
        method="rank letters",
        sources=_QUIZZES,
        ask=ranking.ask_letters,
        metrics=(Metric("acc", "proportion", "higher", "acc", headline=True), _CHANCE),
        examples=_QUIZ_EXAMPLES,
        takes=_SHOWS,
    ),
    Task(
        name="mcqa_written",
        version=1,
        asks="choice",
        method="write a letter",
        sources=_QUIZZES,
        ask=quizzes.ask_quizzes,
        metrics=(
            Metric("acc", "proportion", "higher", "acc", headline=True),
            _CHANCE,
            Metric("named", "proportion", "higher", "names an option"),
            Metric("stopped", "proportion", "higher", "ended by itself"),
        ),
        examples=_QUIZ_EXAMPLES,
        takes=("shots", "examples", *_WRITES),
    ),
    Task(
        name=FOOTPRINT,
        version=1,
        asks=None,
        method="measure",
        sources=(),
        ask=footprint.ask_footprint,
        metrics=(
            Metric("disk", "mean", "lower", "bytes of its files", scale=1),
            Metric("memory", "mean", "lower", "bytes of its weights in memory", scale=1),
            Metric("peak", "mean", "lower", "bytes at most while it loads and answers", scale=1),
            Metric("prompt", "mean", "higher", "tokens of a prompt a second", scale=1),
            Metric("decode", "mean", "higher", "tokens of an answer a second", scale=1),
        ),
    ),
    Task(
        name="wikitext2",
        version=1,
        asks="passage",
        method="predict",
        sources=_WIKITEXT,
        ask=perplexity.ask_windows,
        metrics=_PERPLEXITY,
        one_text=True,
    ),
    Task(
        name="wikitext2_strided",
        version=1,
        asks="passage",
        method="predict",
        sources=_WIKITEXT,
        ask=perplexity.ask_strided,
        metrics=_PERPLEXITY,
        one_text=True,
    ),
    Task(
        name="wikitext2_pages",
        version=1,
        asks="passage",
        method="predict",
        sources=_WIKITEXT,
        ask=pages.ask_pages,
        metrics=(
            Metric("word_perplexity", "exp-mean", "lower", "per word", scale=1, headline=True),
            Metric("byte_perplexity", "exp-mean", "lower", "per byte", scale=1),
            Metric("bits_per_byte", "mean", "lower", "bits per byte", scale=1, headline=True),
        ),
        one_text=True,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def find(name: str) -> Task:
    """The task of this name.

    Raises:
        ZephyrError: there is none, or it is one of lm-evaluation-harness, which is not installed.
    """
    if name.startswith(LM_EVAL):
        return harness.task(name)
    if name not in TASKS:
        raise unknown("task", name, TASKS, where="evaluate.tasks")
    return TASKS[name]


def sources_of(settings: TaskSpec) -> tuple[SourceSpec, ...]:
    """What a task asks: the recipe's sources, else its own; none where it asks a hold-out.

    Raises:
        ZephyrError: there is no such task, or it does not heed what the recipe sets.
    """
    task = find(settings.name)
    for key in ("shots", "examples", "chat", "temperature", "top_p", "max_new_tokens"):
        if key in settings.spec() and key not in task.takes:
            heed = [other.name for other in TASKS.values() if key in other.takes]
            raise ZephyrError(
                f"task {task.name!r} has no `{key}`",
                where=f"evaluate.tasks.{settings.key}.{key}",
                todo=f"leave it out; it belongs to {', '.join(heed) or 'no task'}",
            )
    return settings.sources or _registered(task.sources)


def examples_of(settings: TaskSpec) -> tuple[SourceSpec, ...]:
    """Where a task's worked examples come from; none where it shows none.

    Raises:
        ZephyrError: it is to show some, and there is no source of them.
    """
    if not settings.shots or settings.is_foreign:
        return ()
    found = settings.examples
    if found is None and settings.sources is None:
        found = _registered(find(settings.name).examples)
    if not found:
        raise ZephyrError(
            f"task {settings.key!r} does not know where its worked examples come from",
            where=f"evaluate.tasks.{settings.key}",
            found=f"shots: {settings.shots}",
            todo="name their sources under `examples:`, none of which is asked",
        )
    return found


def _registered(named: tuple[tuple[str, str], ...]) -> tuple[SourceSpec, ...]:
    return tuple(SourceSpec(name=name, split=split) for name, split in named)
