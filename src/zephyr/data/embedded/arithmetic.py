"""Sums, differences and products, worked digit by digit as on paper.

Every digit and every sign is a token of its own (there are no blanks inside a sum, as in GSM8K's own
marks), and each part of a working needs but one fact of the small tables, so that a network of a million parameters can learn to calculate rather than to guess.
"""

from random import Random
from typing import Literal, NamedTuple

Operator = Literal["+", "-", "x"]


class Sum(NamedTuple):
    """`left operator right`; differences are not negative, factors have one digit."""

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
    def asked(self) -> str:
        return f"{self.left}{self.operator}{self.right}"


def work(sum_: Sum, found: int | None = None) -> str:
    """The working of a sum: `27+35: 7+5=12, 2+3+1=6, so 62`.

    What fits into the small tables is written as it is: `7+5=12`. `found` stands in the place
    of the result, for a working that ends in a mistake.
    """
    left, operator, right = sum_
    found = sum_.result if found is None else found
    if operator == "x" or max(left, right) < 10:
        return f"{sum_.asked}={found}"
    tens, ones = divmod(left, 10)
    more_tens, more_ones = divmod(right, 10)
    if operator == "+":
        carry = (ones + more_ones) // 10
        first = f"{ones}+{more_ones}={ones + more_ones}"
        second = f"{tens}+{more_tens}{'+1' if carry else ''}={tens + more_tens + carry}"
    else:
        borrow = int(ones < more_ones)
        above = ones + 10 * borrow
        first = f"{above}-{more_ones}={above - more_ones}"
        second = f"{tens - borrow}-{more_tens}={tens - borrow - more_tens}"
    return f"{sum_.asked}: {first}, {second}, so {found}"


def draw(random: Random, operators: str = "++--x", most: int = 99) -> Sum:
    """A sum of numbers up to `most`; repeat an operator to make it more frequent."""
    match random.choice(operators):
        case "+":
            return Sum(random.randint(2, most), "+", random.randint(2, most))
        case "-":
            left, right = sorted((random.randint(2, most), random.randint(2, most)), reverse=True)
            return Sum(left, "-", right)
        case _:
            return Sum(random.randint(2, 9), "x", random.randint(2, 9))


def mistaken(random: Random, number: int) -> int:
    """Another number with as many digits: the last one is wrong."""
    tens, ones = divmod(number, 10)
    digits = [d for d in range(10) if d != ones and (tens or d)]
    return 10 * tens + random.choice(digits)
