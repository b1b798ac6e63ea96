"""Word problems of two steps about everyday things, and problems about quantities with units."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from zephyr.data.embedded.arithmetic import Sum, mistaken, work
from zephyr.data.embedded.glossary import FORMULAS, capital


class Problem(NamedTuple):
    """A question, and its two sums with what each of them finds."""

    question: str
    steps: tuple[tuple[str, Sum], tuple[str, Sum]]

    @property
    def answer(self) -> int:
        return self.steps[-1][1].result


NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon", "Kim", "Lea")
THINGS = ("pens", "books", "apples", "cards", "coins", "stamps", "shells", "beads", "nuts", "keys")
BOXES = ("boxes", "bags", "baskets", "shelves", "rows", "trays")


def solution(problem: Problem) -> str:
    """Both steps with their working, and the answer after `####`, as GSM8K writes it."""
    return _written(problem.steps, problem.answer)


def wrong_solution(random: Random, problem: Problem) -> str:
    """A solution of the same form that is wrong: a slip of the pen, or adding for subtracting."""
    first, (found, sum_) = problem.steps
    swapped = Sum(sum_.left, "-" if sum_.operator == "+" else "+", sum_.right)
    if random.random() < 0.5 and 0 < swapped.result < 100 and swapped.result != sum_.result:
        return _written((first, (found, swapped)), swapped.result)
    return _written(problem.steps, mistaken(random, problem.answer))


def _written(steps: tuple[tuple[str, Sum], tuple[str, Sum]], answer: int) -> str:
    (found, first), (asked_for, second) = steps
    return f"{found}: {work(first)}.\n{asked_for}: {work(second, answer)}.\n#### {answer}"


def draw(random: Random) -> Problem:
    """A problem whose numbers all lie between 1 and 99."""
    while True:
        problem = random.choice(_FAMILIES)(random, random.choice(NAMES), random.choice(THINGS))
        if all(0 < s.result < 100 and s.left > 0 and s.right > 0 for _, s in problem.steps):
            return problem


def _two_digits(random: Random) -> int:
    return random.randint(11, 60)


def _few(random: Random) -> int:
    return random.randint(2, 9)


def _bought_and_gave(random: Random, name: str, things: str) -> Problem:
    a, b, c = _two_digits(random), random.randint(3, 39), random.randint(3, 39)
    asked = random.choice(
        (
            (
                f"{name} has {a} {things}. {name} buys {b} more and then gives {c} away."
                f" How many {things} does {name} have now?"
            ),
            (
                f"{name} had {a} {things}, bought {b} {things} and gave {c} of them to a friend."
                f" How many {things} are left?"
            ),
        )
    )
    first = Sum(a, "+", b)
    return Problem(asked, (("All", first), ("Left", Sum(first.result, "-", c))))


def _lost_and_found(random: Random, name: str, things: str) -> Problem:
    a, b, c = _two_digits(random), random.randint(3, 39), random.randint(3, 39)
    asked = random.choice(
        (
            (
                f"{name} has {a} {things}. {name} loses {b} and later finds {c}."
                f" How many {things} does {name} have in the end?"
            ),
            (
                f"There are {a} {things}. {name} takes {b} away and puts {c} back."
                f" How many {things} are there now?"
            ),
        )
    )
    first = Sum(a, "-", b)
    return Problem(asked, (("Left", first), ("In the end", Sum(first.result, "+", c))))


def _filled_boxes(random: Random, name: str, things: str) -> Problem:
    k, m, c, box = _few(random), _few(random), random.randint(3, 29), random.choice(BOXES)
    asked = random.choice(
        (
            (
                f"{name} has {k} {box} with {m} {things} each, and {c} more {things}."
                f" How many {things} is that in all?"
            ),
            (
                f"There are {m} {things} in each of {k} {box}. {name} brings {c} more {things}."
                f" How many {things} are there in all?"
            ),
        )
    )
    first = Sum(k, "x", m)
    return Problem(asked, (("In the " + box, first), ("In all", Sum(first.result, "+", c))))


def _emptied_boxes(random: Random, name: str, things: str) -> Problem:
    k, m, c, box = _few(random), _few(random), random.randint(2, 29), random.choice(BOXES)
    asked = random.choice(
        (
            (
                f"{name} fills {k} {box} with {m} {things} each. Then {c} {things} are sold."
                f" How many {things} are left?"
            ),
            (
                f"{name} has {k} {box} of {m} {things}. {c} of the {things} are broken."
                f" How many {things} are whole?"
            ),
        )
    )
    first = Sum(k, "x", m)
    return Problem(asked, (("In the " + box, first), ("Left", Sum(first.result, "-", c))))


def _more_than(random: Random, name: str, things: str) -> Problem:
    a, b = random.randint(5, 39), random.randint(3, 19)
    friend = random.choice([other for other in NAMES if other != name])
    asked = random.choice(
        (
            (
                f"{name} has {a} {things}. {friend} has {b} {things} more than {name}."
                f" How many {things} do they have together?"
            ),
            (
                f"{friend} has {b} {things} more than {name}, who has {a}."
                f" How many {things} do both have together?"
            ),
        )
    )
    first = Sum(a, "+", b)
    return Problem(asked, ((friend, first), ("Together", Sum(a, "+", first.result))))


def _still_to_go(random: Random, name: str, things: str) -> Problem:
    a, b, rest = random.randint(5, 39), random.randint(5, 39), random.randint(3, 39)
    whole = a + b + rest
    asked = random.choice(
        (
            (
                f"A book has {whole} pages. {name} reads {a} pages on Monday and {b} on Tuesday."
                " How many pages are left?"
            ),
            (
                f"{name} wants to walk {whole} km. {name} walks {a} km today and {b} km tomorrow."
                " How many km are left?"
            ),
        )
    )
    first = Sum(a, "+", b)
    return Problem(asked, (("Done", first), ("Left", Sum(whole, "-", first.result))))


def _change(random: Random, name: str, things: str) -> Problem:
    k, p = _few(random), _few(random)
    paid = min(99, k * p + random.randint(3, 40))
    asked = random.choice(
        (
            (
                f"{name} buys {k} {things} for {p} euros each and pays with {paid} euros."
                " How many euros does the shop give back?"
            ),
            (
                f"{things.capitalize()} cost {p} euros each. {name} has {paid} euros and buys {k}."
                f" How many euros does {name} keep?"
            ),
        )
    )
    first = Sum(k, "x", p)
    return Problem(asked, (("Cost", first), ("Back", Sum(paid, "-", first.result))))


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
