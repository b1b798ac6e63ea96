"""Arithmetic equations with step-by-step working: +, - and x, digit by digit as on paper.

Every digit and every sign is a separate token (there are no spaces inside an equation, as in
GSM8K's annotations), and each part of a working needs only one fact of the small tables, so that a
network of a million parameters can learn to calculate rather than to guess.
"""

from random import Random
from typing import Literal, NamedTuple

Operator = Literal["+", "-", "x"]


class Equation(NamedTuple):
    """An equation `left operator right`; no difference is negative, and factors have one digit."""

    left: int
    operator: Operator
    right: int

    @property
    def result(self) -> int:
        match self.operator:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case "x":
                return self.left * self.right

    @property
    def expression(self) -> str:
        return f"{self.left}{self.operator}{self.right}"


def format_working(equation: Equation, shown_result: int | None = None) -> str:
    """Formats the working of an equation: `27+35: 7+5=12, 2+3+1=6, so 62`.

    What fits into the small tables is written as it is: `7+5=12`. `shown_result` stands
    in the place of the result, for a working that ends in a mistake.
    """
    left, operator, right = equation
    shown_result = equation.result if shown_result is None else shown_result
    if operator == "x" or max(left, right) < 10:
        return f"{equation.expression}={shown_result}"
    tens, ones = divmod(left, 10)
    right_tens, right_ones = divmod(right, 10)
    if operator == "+":
        carry = (ones + right_ones) // 10
        first = f"{ones}+{right_ones}={ones + right_ones}"
        second = f"{tens}+{right_tens}{'+1' if carry else ''}={tens + right_tens + carry}"
    else:
        borrow = int(ones < right_ones)
        left_ones = ones + 10 * borrow
        first = f"{left_ones}-{right_ones}={left_ones - right_ones}"
        second = f"{tens - borrow}-{right_tens}={tens - borrow - right_tens}"
    return f"{equation.expression}: {first}, {second}, so {shown_result}"


def sample_equation(random: Random, operators: str = "++--x", max_number: int = 99) -> Equation:
    """Samples an equation of numbers up to `max_number`; repeated operators are likelier."""
    match random.choice(operators):
        case "+":
            return Equation(random.randint(2, max_number), "+", random.randint(2, max_number))
        case "-":
            left, right = sorted(
                (random.randint(2, max_number), random.randint(2, max_number)), reverse=True
            )
            return Equation(left, "-", right)
        case _:
            return Equation(random.randint(2, 9), "x", random.randint(2, 9))


def wrong_result(random: Random, number: int) -> int:
    """A wrong result with as many digits: its last digit is changed."""
    tens, ones = divmod(number, 10)
    digits = [d for d in range(10) if d != ones and (tens or d)]
    return 10 * tens + random.choice(digits)
