"""Glossary of physics, mathematics and computing: definitions, units and question templates.

The facts are the same in all sources; only their wording differs.
"""

from random import Random
from typing import NamedTuple


class Term(NamedTuple):
    """A term as phrased in a sentence (`an algorithm`, `force`), with its definition and unit."""

    phrase: str
    field: str
    meaning: str
    detail: str
    unit: str = ""

    @property
    def name(self) -> str:
        """The term without its article."""
        return self.phrase.removeprefix("a ").removeprefix("an ").removeprefix("the ")

    @property
    def definition(self) -> str:
        """Its definition, as a sentence."""
        return f"{capitalize_first(self.phrase)} is {self.meaning}."

    @property
    def unit_sentence(self) -> str:
        """A sentence that names its unit."""
        return f"{capitalize_first(self.phrase)} is measured in {pluralize(self.unit)}."


def capitalize_first(text: str) -> str:
    """Capitalizes the first letter, and leaves the others."""
    return text[:1].upper() + text[1:]


def pluralize(unit: str) -> str:
    """The plural of a unit."""
    return unit if unit == "hertz" else f"{unit}s"


_PHYSICS = (
    ("force", "a push or a pull on a body", "A larger force moves a body faster.", "newton"),
    ("mass", "the amount of matter in a body", "Mass is the same on the Moon.", "kilogram"),
    ("energy", "the ability to do work", "Energy is never lost, it only changes form.", "joule"),
    ("power", "the work done in each second", "A strong motor has much power.", "watt"),
    ("pressure", "the force on each piece of area", "Pressure grows as we dive.", "pascal"),
    ("temperature", "how hot or cold a body is", "Heat flows to a lower temperature.", "kelvin"),
    ("charge", "what makes bodies attract by electricity", "Like charges repel.", "coulomb"),
    ("current", "the flow of charge in a wire", "A current can light a lamp.", "ampere"),
    ("voltage", "what drives a current through a wire", "A battery gives a voltage.", "volt"),
    ("resistance", "what holds a current back", "A thin wire has a high resistance.", "ohm"),
    ("frequency", "the number of waves in each second", "A high tone is fast.", "hertz"),
    ("distance", "how far two places are apart", "A ruler shows a short distance.", "metre"),
    ("time", "what a clock shows", "Time never runs backwards.", "second"),
    ("an angle", "the opening between two lines that meet", "A right angle is square.", "degree"),
    ("speed", "the distance covered in each second", "Light has the highest speed.", ""),
    ("acceleration", "the change of speed in each second", "A brake gives one too.", ""),
    ("momentum", "the mass of a body times its speed", "A heavy truck has much of it.", ""),
    ("density", "the mass in each piece of volume", "Wood floats as its density is low.", ""),
    ("friction", "a force that slows bodies which touch", "Ice has little friction.", ""),
    ("gravity", "the force that pulls bodies together", "It keeps the Moon near us.", ""),
)
_MATHEMATICS = (
    ("a sum", "the result of adding numbers", "The order of the numbers does not matter."),
    ("a difference", "the result of taking one number from another", "It may be zero."),
    ("a product", "the result of multiplying numbers", "Any product with zero is zero."),
    ("a quotient", "the result of dividing one number by another", "Never divide by zero."),
    ("a prime", "a number with just two divisors", "The smallest prime is 2."),
    ("a fraction", "a part of a whole", "One half is a fraction."),
    ("an average", "a sum divided by how many numbers there are", "It lies in the middle."),
    ("a triangle", "a shape with three sides", "Its angles make 180 degrees."),
    ("a square", "a shape with four equal sides", "Its corners are all alike."),
    ("a circle", "a line with one distance from its centre", "A wheel is a circle."),
    ("a radius", "the way from the centre of a circle to its edge", "Two make a diameter."),
    ("an equation", "a claim that two sides are equal", "Solve it for what is unknown."),
    ("a proof", "a chain of steps that shows a claim is true", "It leaves no doubt."),
    ("a set", "a collection of different things", "A set may be empty."),
)
_COMPUTING = (
    ("an algorithm", "a list of steps that solves a problem", "A recipe is one too."),
    ("a program", "a text that tells a computer what to do", "People write programs."),
    ("a loop", "a part of a program that is repeated", "A loop must end some day."),
    ("a function", "a named part of a program that gives a result", "Call it by its name."),
    ("a variable", "a name for a value that may change", "Choose names that say much."),
    ("a string", "a row of letters and signs", "It stands between quotes."),
    ("a list", "values in a row that can be counted", "The first one has number 0."),
    ("a boolean", "a value that is either true or false", "A test gives a boolean."),
    ("a bug", "a mistake in a program", "A good test finds it."),
    ("a compiler", "a tool that turns a program into machine code", "It reads the whole text."),
    ("memory", "the place where a computer keeps its data", "It forgets without power."),
    ("a network", "computers that are joined to each other", "The internet is one."),
    ("a database", "a store of data that can be searched", "Ask it a clear question."),
    ("a password", "a secret that shows who you are", "Never share it."),
    ("a stack", "a store that gives back what came last", "Plates form a stack."),
    ("a queue", "a store that gives back what came first", "People wait in one."),
)

TERMS = (
    *(Term(said, "physics", meaning, more, unit) for said, meaning, more, unit in _PHYSICS),
    *(Term(said, "mathematics", meaning, more) for said, meaning, more in _MATHEMATICS),
    *(Term(said, "computing", meaning, more) for said, meaning, more in _COMPUTING),
)
TERMS_WITH_UNITS = tuple(term for term in TERMS if term.unit)
FIELDS = ("physics", "mathematics", "computing")


class Formula(NamedTuple):
    """A formula `result is left times right`, with the units of the quantities."""

    result: str
    left: str
    right: str
    units: tuple[str, str, str]

    @property
    def sentence(self) -> str:
        return f"{capitalize_first(self.result)} is {self.left} times {self.right}."


FORMULAS = (
    Formula("force", "mass", "acceleration", ("newtons", "kg", "m/s2")),
    Formula("work", "force", "distance", ("joules", "newtons", "metres")),
    Formula("energy", "power", "time", ("joules", "watts", "seconds")),
    Formula("voltage", "current", "resistance", ("volts", "amperes", "ohms")),
    Formula("momentum", "mass", "speed", ("kg m/s", "kg", "m/s")),
    Formula("distance", "speed", "time", ("metres", "m/s", "seconds")),
    Formula("charge", "current", "time", ("coulombs", "amperes", "seconds")),
    Formula("force", "pressure", "area", ("newtons", "pascals", "m2")),
    Formula("mass", "density", "volume", ("kg", "kg/m3", "m3")),
    Formula("area", "length", "width", ("m2", "metres", "metres")),
)

DEFINITION_TEMPLATES = (
    "What is {said}?",
    "Define {said}.",
    "What does the word {name} mean?",
    "Explain {said} in one sentence.",
    "What is meant by {said} in {field}?",
    "Tell me what {said} is.",
    "I am new to {field}. What is {said}?",
    "Give a short definition of {said}.",
    "How would you explain {said} to a friend?",
    "My teacher spoke of {said}. What is that?",
    "In {field}, what is {said}?",
    "Can you say what {said} is?",
)
"""Templates of questions for the definition of a term."""

UNIT_TEMPLATES = (
    "What is the unit of {name}?",
    "In which unit is {said} measured?",
    "How do we measure {said}?",
    "Which unit belongs to {name}?",
)


def make_question(random: Random, term: Term) -> str:
    """Makes a question for the definition of a term."""
    return random.choice(DEFINITION_TEMPLATES).format(**template_values(term))


def template_values(term: Term) -> dict[str, str]:
    """The values of the placeholders in question templates."""
    return {"said": term.phrase, "name": term.name, "field": term.field}


def other_terms(random: Random, term: Term, count: int) -> list[Term]:
    """Samples other terms of the same field."""
    return random.sample([t for t in TERMS if t.field == term.field and t != term], count)
