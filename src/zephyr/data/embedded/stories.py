"""Everyday activities (for HellaSwag): steps in a fixed order, so that the next one is known."""

from random import Random
from typing import NamedTuple

_SHE = "Ada Cleo Eva Gia Ida Kim Lea Mia Nora Pia Rosa Sara Tess Una Vera Zoe Amy Beth Dora Emma"
_HE = "Ben Dan Finn Hugo Jon Leo Max Nils Otto Paul Ravi Sam Tom Udo Vito Adam Bob Carl Emil Fred"
PRONOUNS = {**dict.fromkeys(_SHE.split(), "she"), **dict.fromkeys(_HE.split(), "he")}
"""Pronouns by the names of people."""

ACTIVITIES: dict[str, tuple[str, ...]] = {
    "Making tea": (
        "fills the kettle with water", "puts the kettle on the stove", "waits until the water boils",
        "pours the water over the leaves", "takes the leaves out of the pot", "drinks the hot tea",
    ),
    "Baking bread": (
        "mixes flour and water", "kneads the dough with both hands", "lets the dough rise",
        "puts the dough into the oven", "takes the bread out of the oven", "cuts the fresh bread",
    ),
    "Planting a tree": (
        "digs a deep hole", "sets the young tree into the hole", "fills the hole with earth",
        "waters the roots of the tree", "ties the tree to a pole", "watches the tree grow",
    ),
    "Writing a letter": (
        "takes a sheet of paper", "writes the words with a pen", "signs at the bottom of the page",
        "folds the sheet and seals it", "puts a stamp in the corner", "drops the letter into a box",
    ),
    "Repairing a tyre": (
        "turns the bicycle upside down", "takes the wheel off", "pulls the tube out of the tyre",
        "finds the hole in the tube", "glues a patch on the hole", "pumps air into the tyre",
    ),
    "Washing a car": (
        "parks the car in the yard", "fills a bucket with soap and water", "wets the whole car",
        "rubs the dirt off with a sponge", "rinses the soap away", "dries the car with a cloth",
    ),
    "Painting a wall": (
        "moves the chairs away from the wall", "covers the floor with paper", "opens the paint",
        "dips the brush into the paint", "spreads the paint on the wall", "lets the wall dry",
    ),
    "Cooking soup": (
        "washes the carrots", "cuts the carrots into pieces", "throws the pieces into the pot",
        "adds salt and stirs", "tastes the soup with a spoon", "serves the soup in bowls",
    ),
    "Going swimming": (
        "packs a towel", "walks to the pool", "puts on a swimsuit",
        "jumps into the pool", "swims ten lengths", "climbs out and dries off",
    ),
    "Taking a photo": (
        "picks up the camera", "takes off the lens cap", "looks for a good view",
        "holds the camera still", "presses the button", "looks at the picture",
    ),
    "Doing an experiment": (
        "reads the task", "sets up the tools on the bench", "puts on safety glasses",
        "heats the liquid slowly", "writes down the temperature", "draws a curve of the numbers",
    ),
    "Borrowing a book": (
        "goes to the library", "searches the shelves for a title", "carries the book to the desk",
        "shows a library card", "reads the book at home", "brings the book back in time",
    ),
}  # fmt: skip


class Scenario(NamedTuple):
    """A scenario: who does which activity; its hash decides the split of a story."""

    activity: str
    person: str


def sample_scenario(random: Random) -> Scenario:
    """Samples an activity and a person."""
    return Scenario(random.choice(list(ACTIVITIES)), random.choice(list(PRONOUNS)))


def format_story(scenario: Scenario, random: Random) -> str:
    """Formats an activity as a passage, from one of its first steps to its last."""
    first, *rest = ACTIVITIES[scenario.activity][random.choice((0, 0, 1, 2)) :]
    pronoun = PRONOUNS[scenario.person].capitalize()
    return " ".join(
        [f"{scenario.activity}: {scenario.person} {first}.", *(f"{pronoun} {s}." for s in rest)]
    )


class StoryScene(NamedTuple):
    """A HellaSwag item: two steps that have been done, the next one's pronoun, four endings."""

    context: str
    pronoun: str
    ending: str
    wrong_endings: tuple[str, ...]


def make_scene(scenario: Scenario, random: Random) -> StoryScene:
    """Makes a HellaSwag item: wrong endings are two steps of the story, and one of another."""
    steps = ACTIVITIES[scenario.activity]
    at, pronoun = random.randrange(4), PRONOUNS[scenario.person]
    context = f"{scenario.person} {steps[at]}. {pronoun.capitalize()} {steps[at + 1]}."
    same = random.sample([s for i, s in enumerate(steps) if i != at + 2], 2)
    other = random.choice([a for a in ACTIVITIES if a != scenario.activity])
    wrong_endings = [*same, random.choice(ACTIVITIES[other])]
    return StoryScene(
        context, pronoun, f"{steps[at + 2]}.", tuple(f"{step}." for step in wrong_endings)
    )
