"""Word problems of two steps about everyday things, and problems about quantities with units."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from zephyr.data.embedded.arithmetic import Sum, mistaken, work
from zephyr.data.embedded.glossary import FORMULAS, capital


class Step(NamedTuple):
    """What is given, in the words of the question, and the sum that it leads to."""

    given: str
    sum: Sum


class Problem(NamedTuple):
    """A question, and its two steps."""

    question: str
    steps: tuple[Step, Step]

    @property
    def answer(self) -> int:
        return self.steps[1].sum.result


NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon", "Kim", "Lea")
THINGS = ("pens", "books", "apples", "cards", "coins", "stamps", "shells", "beads", "nuts", "keys")
BOXES = ("boxes", "bags", "baskets", "shelves", "rows", "trays")


def working(problem: Problem, answer: int | None = None) -> list[str]:
    """Both steps, each with what is given and its sum; `answer` may stand for the last result."""
    first, second = problem.steps
    return [f"{first.given}. {work(first.sum)}.", f"{second.given}. {work(second.sum, answer)}."]


def solution(problem: Problem) -> str:
    """Both steps with their working, and the answer after `####`, as GSM8K writes it."""
    return _written(problem, problem.answer)


def wrong_solution(random: Random, problem: Problem) -> str:
    """A solution of the same form that is wrong: a slip of the pen, or adding for subtracting."""
    first, (given, sum_) = problem.steps
    swapped = Sum(sum_.left, "-" if sum_.operator == "+" else "+", sum_.right)
    if random.random() < 0.5 and 0 < swapped.result < 100 and swapped.result != sum_.result:
        wrong = problem._replace(steps=(first, Step(given, swapped)))
        return _written(wrong, wrong.answer)
    return _written(problem, mistaken(random, problem.answer))


def _written(problem: Problem, answer: int) -> str:
    return "\n".join([*working(problem, answer), f"#### {answer}"])


def draw(random: Random) -> Problem:
    """A problem whose numbers all lie between 1 and 99."""
    while True:
        make = random.choice(_FAMILIES)
        problem = make(random, random.choice(NAMES), random.choice(THINGS))
        sums = [step.sum for step in problem.steps]
        if all(0 < s.result < 100 and s.left > 0 and s.right > 0 for s in sums):
            return problem


def _two_steps(first: tuple[str, Sum], second: tuple[str, Sum]) -> tuple[Step, Step]:
    return Step(*first), Step(*second)


def _few(random: Random) -> int:
    return random.randint(2, 9)


def _bought_and_gave(random: Random, name: str, things: str) -> Problem:
    a, b, c = random.randint(11, 60), random.randint(3, 39), random.randint(3, 39)
    first = Sum(a, "+", b)
    second = Sum(first.result, "-", c)
    if random.random() < 0.5:
        return Problem(
            f"{name} has {a} {things}. {name} buys {b} more and then gives {c} away."
            f" How many {things} does {name} have now?",
            _two_steps((f"{name} has {a} and buys {b}", first), (f"{name} gives {c}", second)),
        )
    return Problem(
        f"{name} had {a} {things}, bought {b} {things} and gave {c} of them to a friend."
        f" How many {things} are left?",
        _two_steps((f"{name} had {a} and bought {b}", first), (f"{name} gave {c}", second)),
    )


def _lost_and_found(random: Random, name: str, things: str) -> Problem:
    a, b, c = random.randint(11, 60), random.randint(3, 39), random.randint(3, 39)
    first = Sum(a, "-", b)
    second = Sum(first.result, "+", c)
    if random.random() < 0.5:
        return Problem(
            f"{name} has {a} {things}. {name} loses {b} and later finds {c}."
            f" How many {things} does {name} have in the end?",
            _two_steps((f"{name} has {a} and loses {b}", first), (f"{name} finds {c}", second)),
        )
    return Problem(
        f"There are {a} {things}. {name} takes {b} away and puts {c} back."
        f" How many {things} are there now?",
        _two_steps((f"There are {a} and {name} takes {b}", first), (f"{name} puts {c}", second)),
    )


def _filled_boxes(random: Random, name: str, things: str) -> Problem:
    k, m, c, box = _few(random), _few(random), random.randint(3, 29), random.choice(BOXES)
    first = Sum(k, "x", m)
    second = Sum(first.result, "+", c)
    if random.random() < 0.5:
        return Problem(
            f"{name} has {k} {box} with {m} {things} each, and finds {c} more {things}."
            f" How many {things} is that in all?",
            _two_steps((f"{name} has {k} {box} with {m}", first), (f"{name} finds {c}", second)),
        )
    return Problem(
        f"There are {k} {box} of {m} {things}. {name} brings {c} more {things}."
        f" How many {things} are there in all?",
        _two_steps((f"There are {k} {box} of {m}", first), (f"{name} brings {c}", second)),
    )


def _emptied_boxes(random: Random, name: str, things: str) -> Problem:
    k, m, c, box = _few(random), _few(random), random.randint(2, 29), random.choice(BOXES)
    first = Sum(k, "x", m)
    second = Sum(first.result, "-", c)
    if random.random() < 0.5:
        return Problem(
            f"{name} fills {k} {box} with {m} {things} each. Then {name} sells {c} {things}."
            f" How many {things} are left?",
            _two_steps((f"{name} fills {k} {box} with {m}", first), (f"{name} sells {c}", second)),
        )
    return Problem(
        f"{name} has {k} {box} of {m} {things}. {name} breaks {c} of the {things}."
        f" How many {things} are whole?",
        _two_steps((f"{name} has {k} {box} of {m}", first), (f"{name} breaks {c}", second)),
    )


def _more_than(random: Random, name: str, things: str) -> Problem:
    a, b = random.randint(5, 39), random.randint(3, 19)
    friend = random.choice([other for other in NAMES if other != name])
    first = Sum(a, "+", b)
    second = Sum(a, "+", first.result)
    steps = _two_steps(
        (f"{name} has {a} and {friend} has {b} more", first),
        (f"{name} has {a} and {friend} has {first.result}", second),
    )
    if random.random() < 0.5:
        return Problem(
            f"{name} has {a} {things}. {friend} has {b} more than {name}."
            f" How many {things} do they have together?",
            steps,
        )
    return Problem(
        f"{friend} has {b} more {things} than {name}. {name} has {a}."
        f" How many {things} do both have together?",
        steps,
    )


def _still_to_go(random: Random, name: str, things: str) -> Problem:
    a, b, rest = random.randint(5, 39), random.randint(5, 39), random.randint(3, 39)
    whole = a + b + rest
    first = Sum(a, "+", b)
    second = Sum(whole, "-", first.result)
    if random.random() < 0.5:
        return Problem(
            f"A book has {whole} pages. {name} reads {a} pages on Monday and {b} on Tuesday."
            " How many pages are left?",
            _two_steps((f"{name} reads {a} and {b}", first), (f"A book has {whole} pages", second)),
        )
    return Problem(
        f"A way has {whole} km. {name} walks {a} km today and {b} km tomorrow."
        " How many km are left?",
        _two_steps((f"{name} walks {a} and {b}", first), (f"A way has {whole} km", second)),
    )


def _change(random: Random, name: str, things: str) -> Problem:
    k, p = _few(random), _few(random)
    paid = min(99, k * p + random.randint(3, 40))
    first = Sum(k, "x", p)
    second = Sum(paid, "-", first.result)
    if random.random() < 0.5:
        return Problem(
            f"{name} buys {k} {things} for {p} euros each and pays with {paid} euros."
            " How many euros does the shop give back?",
            _two_steps(
                (f"{name} buys {k} for {p} euros", first), (f"{name} pays with {paid}", second)
            ),
        )
    return Problem(
        f"Each of the {things} costs {p} euros. {name} has {paid} euros and buys {k}."
        f" How many euros does {name} keep?",
        _two_steps((f"{name} buys {k} for {p} euros", first), (f"{name} has {paid} euros", second)),
    )


_FAMILIES: tuple[Callable[[Random, str, str], Problem], ...] = (
    _bought_and_gave,
    _lost_and_found,
    _filled_boxes,
    _emptied_boxes,
    _more_than,
    _still_to_go,
    _change,
)


class Quantity(NamedTuple):
    """A question for a quantity that is the product of two others, and the worked answer.

    `wrong` has a slip in its last numbers.
    """

    question: str
    answer: str
    wrong: str


def quantity(random: Random) -> Quantity:
    """A problem solved by one formula."""
    formula, left, right = random.choice(FORMULAS), _few(random), _few(random)
    unit, left_unit, right_unit = formula.units
    given = f"the {formula.left} is {left} {left_unit} and the {formula.right} {right} {right_unit}"
    asked = random.choice(
        (
            f"{capital(given)}. What is the {formula.result}?",
            f"Find the {formula.result} if {given}.",
            f"Compute the {formula.result}: {given}.",
        )
    )
    sum_ = Sum(left, "x", right)
    right_answer, wrong = (
        f"{formula.sentence} {work(sum_, n)}. The {formula.result} is {n} {unit}."
        for n in (sum_.result, mistaken(random, sum_.result))
    )
    return Quantity(asked, right_answer, wrong)
