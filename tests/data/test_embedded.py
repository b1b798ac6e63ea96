"""The rows that Zephyr makes: true, readable, distinguished by content, and the same everywhere."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

from zephyr.data import embedded, mixture, sources
from zephyr.data.contamination import EvalQuestionIndex
from zephyr.data.embedded import arithmetic, problems, programs, stories
from zephyr.data.embedded.arithmetic import Equation
from zephyr.data.table import SOURCES
from zephyr.errors import ZephyrError
from zephyr.evaluate.tasks import get_task, resolve_sources
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.load import read_recipe
from zephyr.records import Chat, Choice, Pair, Passage, Record, RecordKind

RECIPE = Path(__file__).parents[2] / "recipes" / "embedded.yaml"
ADDED_SOURCES = ("gsm8k_socratic", "mathdial")
"""Sources that came after the version of the rows was raised last, and changed none of them."""
SPLITS = [(name, split) for name, source in embedded._SOURCES.items() for split in source.splits]


def read_split(name: str, split: str) -> list[Record]:
    opened_source = open_embedded(SourceSpec(name=name, split=split), SOURCES[name].kind, "exam")
    found, tally = sources.read_records(opened_source)
    assert not tally.unreadable_reasons, tally.unreadable_reasons
    return found


def open_embedded(source: SourceSpec, kind: RecordKind, use: Use) -> sources.OpenedSource:
    return sources.open_source(
        source, kind=kind, use=use, origin="embedded", base=Path(), where="here"
    )


def iter_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from iter_strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from iter_strings(inner)


def correct_texts(record: Record) -> Iterator[str]:
    """All that a record claims to be right."""
    if isinstance(record, Pair):
        yield record.chosen
    elif isinstance(record, Chat) and record.source == "mathdial":
        yield record.messages[-1].content  # before it, a student is wrong
    else:
        yield from iter_strings(record.content)


def compute(expression: str) -> int:
    left, operator, right, *more = re.split(r"([+\-x])", expression)
    value = Equation(int(left), operator, int(right)).result  # type: ignore[arg-type]
    return value + sum(int(n) for n in more[1::2])


SHORT_EQUATION = re.compile(r"(\d+[+\-x]\d+(?:\+1)?)=(\d+)")
WORKED_EQUATION = re.compile(r"(\d+[+\-]\d+): [^.]*?, so (\d+)")


def test_every_source_of_the_table_is_made() -> None:
    """All but the votes of a class, which are the user's own."""
    made = {name: source for name, source in SOURCES.items() if name != "votes"}
    assert embedded._SOURCES.keys() | embedded.SOURCE_ALIASES.keys() == made.keys()
    for name, source in made.items():
        parts = embedded._SOURCES[embedded.SOURCE_ALIASES.get(name, name)].splits
        assert {source.train_split, source.eval_split} - {None} <= parts.keys()


@pytest.mark.parametrize(("name", "split"), SPLITS, ids=str)
def test_rows_are_read_and_everything_computed_in_them_is_right(name: str, split: str) -> None:
    found = read_split(name, split)
    assert found
    for record in found:
        for text in correct_texts(record):
            for expression, result in [
                *SHORT_EQUATION.findall(text),
                *WORKED_EQUATION.findall(text),
            ]:
                assert compute(expression) == int(result), text


@pytest.mark.parametrize(
    ("left", "operator", "right", "worked"),
    [
        (7, "+", 5, "7+5=12"),
        (27, "+", 35, "27+35: 7+5=12, 2+3+1=6, so 62"),
        (14, "+", 23, "14+23: 4+3=7, 1+2=3, so 37"),
        (97, "+", 35, "97+35: 7+5=12, 9+3+1=13, so 132"),
        (62, "-", 35, "62-35: 12-5=7, 5-3=2, so 27"),
        (37, "-", 9, "37-9: 17-9=8, 2-0=2, so 28"),
        (8, "x", 7, "8x7=56"),
    ],
)
def test_equations_are_worked_digit_by_digit(
    left: int, operator: Any, right: int, worked: str
) -> None:
    assert arithmetic.format_working(Equation(left, operator, right)) == worked


def test_a_mistake_is_another_number_with_as_many_digits() -> None:
    random = Random(0)
    for number in range(100):
        for _ in range(5):
            wrong = arithmetic.wrong_result(random, number)
            assert wrong != number
            assert len(str(wrong)) == len(str(number))


def test_wrong_solutions_differ_from_right_ones_in_their_answer_alone() -> None:
    random = Random(0)
    for _ in range(500):
        problem = problems.sample_problem(random)
        right, wrong = (
            problems.format_solution(problem),
            problems.make_wrong_solution(random, problem),
        )
        assert right.split("#### ")[1] == str(problem.answer) != wrong.split("#### ")[1]
        assert right.splitlines()[0] == wrong.splitlines()[0]
        assert [len(line.split()) for line in right.splitlines()][0::2] == [
            len(line.split()) for line in wrong.splitlines()
        ][0::2]


@pytest.mark.parametrize("task", programs.PROGRAM_TASKS, ids=lambda task: task.name)
def test_programs_do_what_they_say_and_wrong_ones_do_not(task: programs.ProgramTask) -> None:
    argument, expected = task.check
    results = []
    for wrong in (False, True):
        code = programs.format_function(task, "given", wrong=wrong).removeprefix("```python\n")
        names: dict[str, Any] = {}
        exec(code.removesuffix("```"), names)
        try:
            results.append(names[task.name](argument))
        except ArithmeticError:
            results.append(None)
    assert results[0] == expected != results[1]


def test_endings_come_next_and_no_other_does() -> None:
    random = Random(0)
    for _ in range(300):
        scenario = stories.sample_scenario(random)
        scene = stories.make_scene(scenario, random)
        steps = stories.ACTIVITIES[scenario.activity]
        assert len({scene.ending, *scene.wrong_endings}) == 4
        before = scene.context.removesuffix(".").split(f"{scene.pronoun.capitalize()} ")[-1]
        assert steps[steps.index(before) + 1] == scene.ending.removesuffix(".")


def question_text(record: Record) -> str:
    match record:
        case Chat():
            return record.messages[0].content
        case Pair():
            return record.prompt[-1].content.removeprefix("Question: ")
        case Choice() | Passage():
            return record.text
    raise AssertionError


def test_no_question_of_a_test_is_met_in_training() -> None:
    training_questions: set[str] = set()
    eval_questions: dict[str, set[str]] = {}
    text = ""
    for name, split in SPLITS:
        if name in ("primer", "wikitext2"):
            if split == "train":
                text += "\n".join(question_text(r) for r in read_split(name, split))
            continue
        split_questions = {question_text(record) for record in read_split(name, split)}
        if split in ("train", "auxiliary_train"):
            if SOURCES[name].kind != "pair":
                training_questions |= split_questions
        else:
            eval_questions[f"{name}/{split}"] = split_questions
    for name, split_questions in eval_questions.items():
        assert not split_questions & training_questions, name
        assert not {question for question in split_questions if question in text}, name
    assert not eval_questions["mmlu/test"] & (
        eval_questions["mmlu/dev"] | eval_questions["mmlu/validation"]
    )


def articles(split: str) -> set[str]:
    """The articles of a split of WikiText, each joined as the primer has it."""
    lines = [row["text"] for row in embedded.make_rows("wikitext2", split)]
    starts = [i - 1 for i, line in enumerate(lines) if line.startswith(" = ")]
    pairs = zip(starts, [*starts[1:], len(lines)], strict=True)
    return {"\n\n".join(lines[start:end]) for start, end in pairs}


def test_no_article_of_wikitext_stands_on_two_sides() -> None:
    sides = [articles(split) for split in ("train", "validation", "test")]
    assert [len(side) for side in sides] == [1_000, 150, 250]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]


def test_no_article_of_a_test_stands_in_the_primer() -> None:
    primer_texts = {row["text"] for row in embedded.make_rows("primer", "train")}
    assert articles("train") & primer_texts, "joined as the primer has them, some would be found"
    assert not (articles("validation") | articles("test")) & primer_texts


def test_the_mixtures_of_the_recipe_have_a_tenth_of_the_seeds_sizes() -> None:
    """8 x 1,200 + 500 + 103 = 10,203 conversations, 150 + 11 x 100 = 1,250 pairs."""
    assert mixture_sizes("report", check_contamination=False) == {"sft": 10_203, "pairs": 1_250}


def test_what_stands_in_a_test_is_removed() -> None:
    """Generated texts repeat themselves: of the tenth, this is left to learn from."""
    assert mixture_sizes("remove", check_contamination=True) == {"sft": 9_921, "pairs": 1_249}


def mixture_sizes(
    clean: Literal["remove", "report"], *, check_contamination: bool
) -> dict[str, int]:
    """The sizes of the mixtures of the recipe, looked through for the questions of its tasks."""
    recipe = read_recipe(RECIPE)
    eval_questions = [
        (task.key, record)
        for task in recipe.evaluate.tasks
        for source in resolve_sources(task)
        for record in sources.read_records(
            open_embedded(source, get_task(task.name).record_kind, "exam")
        )[0]
        if check_contamination
    ]
    found = {}
    for name in ("sft", "pairs"):
        spec = recipe.data[name].model_copy(update={"clean": clean})
        opened_sources = [open_embedded(source, spec.kind, "train") for source in spec.sources]
        built = mixture.build_mixture(
            spec,
            opened_sources,
            seed=recipe.seed,
            question_index=EvalQuestionIndex(eval_questions, spec.ngram),
        )
        found[name] = built.manifest["totals"]["kept"]
    return found


def test_pairs_about_correctness_do_not_give_themselves_away_by_length() -> None:
    longer = []
    for name, source in SOURCES.items():
        if source.kind == "pair" and source.aspect in ("correctness", "truth"):
            for record in read_split(name, "train"):
                assert isinstance(record, Pair)
                longer.append(
                    (len(record.chosen) > len(record.rejected))
                    - (len(record.chosen) < len(record.rejected))
                )
    assert abs(sum(longer) / len(longer)) < 0.1


def test_rows_are_the_same_everywhere() -> None:
    """A literal digest: rows that change need another `embedded.VERSION`."""
    digests = {True: hashlib.sha256(), False: hashlib.sha256()}
    for name, split in SPLITS:
        for row in embedded.make_rows(name, split):
            digests[name in ADDED_SOURCES].update(json.dumps(row).encode())
    assert (embedded.VERSION, digests[False].hexdigest()[:16]) == (2, "25787c51d9d5afb2")
    assert digests[True].hexdigest()[:16] == "18290f83d9d927c8"


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ZephyrError, match="unknown split 'tset'") as error:
        list(embedded.make_rows("gsm8k", "tset"))
    assert "nearest: test" in str(error.value)
