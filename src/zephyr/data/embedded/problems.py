"""Word problems (as in GSM8K) with two-step solutions, and problems about physical quantities."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from zephyr.data.embedded.arithmetic import Equation, format_working, wrong_result
from zephyr.data.embedded.glossary import FORMULAS, capitalize_first


class SolutionStep(NamedTuple):
    """A solution step: a premise in the words of the question, and the equation it leads to."""

    premise: str
    equation: Equation


class Problem(NamedTuple):
    """A word problem: a question, and the two steps of its solution."""

    question: str
    steps: tuple[SolutionStep, SolutionStep]

    @property
    def answer(self) -> int:
        return self.steps[1].equation.result


NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon", "Kim", "Lea")
THINGS = ("pens", "books", "apples", "cards", "coins", "stamps", "shells", "beads", "nuts", "keys")
BOXES = ("boxes", "bags", "baskets", "shelves", "rows", "trays")


def format_steps(problem: Problem, answer: int | None = None) -> list[str]:
    """Formats both steps, each premise with its equation; `answer` may replace the last result."""
    first, second = problem.steps
    return [
        f"{first.premise}. {format_working(first.equation)}.",
        f"{second.premise}. {format_working(second.equation, answer)}.",
    ]


def format_solution(problem: Problem) -> str:
    """Formats a solution as GSM8K does: both steps, and the final answer after `####`."""
    return _format_solution(problem, problem.answer)


def make_wrong_solution(random: Random, problem: Problem) -> str:
    """Makes a wrong solution in the same format: a wrong digit, or adding for subtracting."""
    first, (premise, equation) = problem.steps
    swapped = Equation(equation.left, "-" if equation.operator == "+" else "+", equation.right)
    if random.random() < 0.5 and 0 < swapped.result < 100 and swapped.result != equation.result:
        wrong = problem._replace(steps=(first, SolutionStep(premise, swapped)))
        return _format_solution(wrong, wrong.answer)
    return _format_solution(problem, wrong_result(random, problem.answer))


def _format_solution(problem: Problem, answer: int) -> str:
    return "\n".join([*format_steps(problem, answer), f"#### {answer}"])


def sample_problem(random: Random) -> Problem:
    """Samples a word problem whose numbers all lie between 1 and 99."""
    while True:
        make_problem = random.choice(_PROBLEM_TEMPLATES)
        problem = make_problem(random, random.choice(NAMES), random.choice(THINGS))
        equations = [step.equation for step in problem.steps]
        if all(0 < s.result < 100 and s.left > 0 and s.right > 0 for s in equations):
            return problem


def _two_steps(
    first: tuple[str, Equation], second: tuple[str, Equation]
) -> tuple[SolutionStep, SolutionStep]:
    return SolutionStep(*first), SolutionStep(*second)


def _small_number(random: Random) -> int:
    return random.randint(2, 9)


def _bought_and_gave(random: Random, name: str, things: str) -> Problem:
    a, b, c = random.randint(11, 60), random.randint(3, 39), random.randint(3, 39)
    first = Equation(a, "+", b)
    second = Equation(first.result, "-", c)
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
    first = Equation(a, "-", b)
    second = Equation(first.result, "+", c)
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
    k, m, c, box = (
        _small_number(random),
        _small_number(random),
        random.randint(3, 29),
        random.choice(BOXES),
    )
    first = Equation(k, "x", m)
    second = Equation(first.result, "+", c)
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
    k, m, c, box = (
        _small_number(random),
        _small_number(random),
        random.randint(2, 29),
        random.choice(BOXES),
    )
    first = Equation(k, "x", m)
    second = Equation(first.result, "-", c)
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
    first = Equation(a, "+", b)
    second = Equation(a, "+", first.result)
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
    first = Equation(a, "+", b)
    second = Equation(whole, "-", first.result)
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
    k, p = _small_number(random), _small_number(random)
    paid = min(99, k * p + random.randint(3, 40))
    first = Equation(k, "x", p)
    second = Equation(paid, "-", first.result)
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


_PROBLEM_TEMPLATES: tuple[Callable[[Random, str, str], Problem], ...] = (
    _bought_and_gave,
    _lost_and_found,
    _filled_boxes,
    _emptied_boxes,
    _more_than,
    _still_to_go,
    _change,
)


class QuantityProblem(NamedTuple):
    """A question for the product of two quantities, and the worked solution.

    `wrong_answer` has a slip in its last numbers.
    """

    question: str
    answer: str
    wrong_answer: str


def sample_quantity(random: Random) -> QuantityProblem:
    """Samples a problem that is solved by one formula."""
    formula, left, right = random.choice(FORMULAS), _small_number(random), _small_number(random)
    unit, left_unit, right_unit = formula.units
    premise = (
        f"the {formula.left} is {left} {left_unit} and the {formula.right} {right} {right_unit}"
    )
    question = random.choice(
        (
            f"{capitalize_first(premise)}. What is the {formula.result}?",
            f"Find the {formula.result} if {premise}.",
            f"Compute the {formula.result}: {premise}.",
        )
    )
    equation = Equation(left, "x", right)
    right_answer, wrong_answer = (
        f"{formula.sentence} {format_working(equation, n)}. The {formula.result} is {n} {unit}."
        for n in (equation.result, wrong_result(random, equation.result))
    )
    return QuantityProblem(question, right_answer, wrong_answer)
