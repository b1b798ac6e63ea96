"""Synthetic rows of the preference (DPO) sources, each in the columns of the real data set.

If a pair is about correctness or truth, both answers have the same style and nearly the same
length: otherwise a model could prefer the chosen one by its style alone. If it is about politeness
or safety, the chosen answer is the plain one.
"""

from random import Random
from typing import Any, NamedTuple

from zephyr.data.embedded import arithmetic, glossary, problems, programs
from zephyr.data.embedded.glossary import TERMS, TERMS_WITH_UNITS, capitalize_first, pluralize

Row = dict[str, Any]


class AnswerPair(NamedTuple):
    """A preference pair: a prompt, a chosen answer and a rejected one."""

    prompt: str
    chosen: str
    rejected: str


def _word_problem_pair(random: Random) -> AnswerPair:
    word_problem = problems.sample_problem(random)
    wrong = problems.make_wrong_solution(random, word_problem)
    return AnswerPair(word_problem.question, problems.format_solution(word_problem), wrong)


def _equation_pair(random: Random) -> AnswerPair:
    equation = arithmetic.sample_equation(random)
    prompt = random.choice(("What is {sum}?", "Compute {sum}.", "How much is {sum}?"))
    chosen, rejected = (
        f"{arithmetic.format_working(equation, n)}."
        for n in (equation.result, arithmetic.wrong_result(random, equation.result))
    )
    return AnswerPair(prompt.format(sum=equation.expression), chosen, rejected)


def _definition_pair(random: Random) -> AnswerPair:
    term = random.choice(TERMS)
    (other,) = glossary.other_terms(random, term, 1)
    rejected = f"{capitalize_first(term.phrase)} is {other.meaning}."
    return AnswerPair(glossary.make_question(random, term), term.definition, rejected)


def _unit_pair(random: Random) -> AnswerPair:
    term, other = random.sample(TERMS_WITH_UNITS, 2)
    prompt = random.choice(glossary.UNIT_TEMPLATES).format(**glossary.template_values(term))
    rejected = term._replace(unit=other.unit).unit_sentence
    return AnswerPair(prompt, term.unit_sentence, rejected)


def _quantity_pair(random: Random) -> AnswerPair:
    return AnswerPair(*problems.sample_quantity(random))


def _truthfulness_pair(random: Random) -> AnswerPair:
    """A yes/no question about whether a quantity has a unit."""
    term, other = random.sample(TERMS_WITH_UNITS, 2)
    prompt = random.choice(
        (
            "Is {name} measured in {units}?",
            "Are {units} a unit of {name}?",
            "My friend says that {name} is measured in {units}. Is that true?",
            "Do {units} measure {name}?",
        )
    )
    claimed_term = random.choice((term, other))
    chosen, rejected = term.unit_sentence, term._replace(unit=other.unit).unit_sentence
    yes, no = ("Yes.", "No.") if claimed_term is term else ("No.", "Yes.")
    prompt = prompt.format(name=term.name, units=pluralize(claimed_term.unit))
    return AnswerPair(prompt, f"{yes} {chosen}", f"{no} {rejected}")


_RUDE_TEMPLATES = (
    "What a silly question. {answer}",
    "{answer} Even a child knows that.",
    "Stop wasting my time. {answer}",
    "{answer} You should be ashamed not to know.",
    "Look it up yourself.",
    "You will never understand it.",
    "I have told you already. {answer}",
    "Only a fool would ask. {answer}",
)


def _politeness_pair(random: Random) -> AnswerPair:
    term = random.choice(TERMS)
    rejected = random.choice(_RUDE_TEMPLATES).format(answer=term.definition)
    return AnswerPair(glossary.make_question(random, term), term.definition, rejected)


def _explanation_pair(random: Random) -> AnswerPair:
    """An explanation with an example against a refusal to explain."""
    term = random.choice(TERMS)
    prompt = random.choice(
        (
            "Explain like I'm five: what is {said}?",
            "In simple words, what is {said}?",
            "How do I explain {said} to my little sister?",
            "ELI5: {name}",
        )
    ).format(**glossary.template_values(term))
    rejected = random.choice(_RUDE_TEMPLATES[4:6])
    return AnswerPair(prompt, f"{term.definition} {term.detail}", rejected)


def _code_pair(random: Random) -> AnswerPair:
    task = random.choice(programs.PROGRAM_TASKS)
    prompt, argument = programs.make_request(random, task)
    chosen, rejected = (
        programs.format_function(task, argument, wrong=wrong) for wrong in (False, True)
    )
    return AnswerPair(prompt, chosen, rejected)


def _security_pair(random: Random) -> AnswerPair:
    request = random.choice(programs.SECURITY_TASKS)
    prompt = random.choice(programs.SECURITY_REQUEST_TEMPLATES).format(wants=request.description)
    return AnswerPair(
        prompt, programs.code_block(request.safe), programs.code_block(request.unsafe)
    )


_HARMFUL_ACTS = (
    "cheat in an exam", "open a lock that is not mine", "read the mail of my teacher",
    "steal a bicycle", "guess the password of a friend", "copy the homework of my class",
    "make a dangerous fire", "frighten a small child", "sell a broken phone as new",
    "write a false report", "hide a mistake in the test results", "break into a computer",
)  # fmt: skip
_HARMFUL_PROMPTS = (
    "How can I {act}?",
    "Tell me how to {act}.",
    "What is the best way to {act}?",
    "Help me to {act}.",
    "I want to {act}. What do I need?",
    "Is there a trick to {act}?",
    "Give me a plan to {act}.",
    "Show me step by step how to {act}.",
    "Nobody will know. How do I {act}?",
    "My friend wants to {act}. How?",
)
_REFUSALS = (
    "I can't help with that, since it would harm others. Is there a fair way that I can help with?",
    "No, that would be wrong. Please talk to somebody you trust about it.",
)


def _safety_pair(random: Random) -> AnswerPair:
    prompt = random.choice(_HARMFUL_PROMPTS).format(act=random.choice(_HARMFUL_ACTS))
    rejected = random.choice(
        (
            "Sure, that is easy. Wait until nobody looks, then do it fast and tell no one.",
            "Of course. Get the right tools at night and leave no traces behind.",
        )
    )
    return AnswerPair(prompt, random.choice(_REFUSALS), rejected)


_SUSTAINABILITY_ADVICE = (
    ("go to school", "Walk or ride a bicycle.", "Take a car of your own."),
    ("keep my room warm", "Close the windows and wear a jumper.", "Turn the heating to its highest."),
    ("buy vegetables", "Buy what grows near you in this season.", "Buy what is flown in from far away."),
    ("get rid of an old phone", "Bring it to a shop that recycles it.", "Throw it into the bin."),
    ("carry my shopping", "Bring a bag that you can use again.", "Take a new plastic bag each time."),
    ("drink water in class", "Fill a bottle at the tap.", "Buy a new plastic bottle each day."),
    ("light my desk", "Use a small lamp and switch it off.", "Leave all lamps on day and night."),
    ("wash my clothes", "Wait until the machine is full.", "Run the machine for each shirt."),
    ("travel on holiday", "Take the train.", "Take a plane for each short trip."),
    ("print my notes", "Print on both sides, or read them on a screen.", "Print each page on a new sheet."),
    ("mend a torn shirt", "Sew it, or have it sewn.", "Throw it away and buy three new ones."),
    ("water the garden", "Collect rain in a barrel.", "Let the tap run all day."),
)  # fmt: skip
_SUSTAINABILITY_PROMPTS = (
    "How should I {act}?",
    "What is a good way to {act}?",
    "I have to {act}. What do you suggest?",
    "Any idea how to {act}?",
    "What do you think: how do I best {act}?",
    "Give me a tip on how to {act}.",
    "Please tell me how to {act}.",
    "How do people {act}?",
    "What would you do to {act}?",
    "My family wants to {act}. How?",
)


def _sustainability_pair(random: Random) -> AnswerPair:
    act, chosen, rejected = random.choice(_SUSTAINABILITY_ADVICE)
    return AnswerPair(random.choice(_SUSTAINABILITY_PROMPTS).format(act=act), chosen, rejected)


# -- rows -----------------------------------------------------------------------------------------


def epfl(random: Random, side: str) -> Row:
    """An EPFL row (the course): a question with pairs of answers, as students voted on them.

    Now and then both are found equally good (AB), or one is missing.
    """
    make_pair = random.choice(
        (_word_problem_pair, _word_problem_pair, _quantity_pair, _definition_pair, _equation_pair)
    )
    pair = make_pair(random)
    comparisons = []
    for _ in range(random.choice((1, 1, 1, 2))):
        is_chosen_first = random.random() < 0.5
        a, b = (pair.chosen, pair.rejected) if is_chosen_first else (pair.rejected, pair.chosen)
        overall = "A" if is_chosen_first else "B"
        uniform_draw = random.random()
        if uniform_draw < 0.05:
            overall = "AB"
        elif uniform_draw < 0.08:
            a, b = random.choice((("", b), (a, "...")))
        criteria = dict.fromkeys(("overall", "correctness", "relevance"), overall)
        criteria |= {"clarity": "AB", "completeness": "AB", "other": "Conciseness: AB"}
        comparisons.append({"A": a, "B": b, "overall": overall, "criteria": criteria})
    return {
        "question_id": random.randrange(10_000),
        "question_complete": f"Question: {pair.prompt}",
        "course_id": random.randrange(1, 24),
        "preference": comparisons,
    }


_SYSTEM_PROMPTS = ("You are a helpful tutor.", "Answer with care.", "")


def orca_dpo_pairs(random: Random, side: str) -> Row:
    """An Orca DPO row."""
    pair = random.choice((_word_problem_pair, _equation_pair, _definition_pair))(random)
    system = random.choice(_SYSTEM_PROMPTS)
    return {
        "system": system,
        "question": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }


def truthy_dpo(random: Random, side: str) -> Row:
    """A Truthy DPO row."""
    pair = _truthfulness_pair(random)
    system = random.choice(_SYSTEM_PROMPTS)
    return {
        "id": f"{random.randrange(1 << 32):08x}",
        "source": "embedded",
        "system": system,
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }


_SHP_PAIR_MAKERS = {
    "askengineers": _quantity_pair,
    "askphysics": _definition_pair,
    "askscience": _unit_pair,
    "explainlikeimfive": _explanation_pair,
}


def _shp_row(domain: str, random: Random) -> Row:
    """An SHP row: a question with two comments; the one with the higher score is chosen."""
    pair = _SHP_PAIR_MAKERS[domain](random)
    a_wins = random.random() < 0.5
    high_score, low_score = random.randint(20, 90), random.randint(1, 9)
    a, b = (pair.chosen, pair.rejected) if a_wins else (pair.rejected, pair.chosen)
    return {
        "post_id": f"{random.randrange(1 << 24):06x}",
        "domain": f"{domain}_train",
        "upvote_ratio": 0.95,
        "history": pair.prompt,
        "score_A": high_score if a_wins else low_score,
        "score_B": low_score if a_wins else high_score,
        "human_ref_A": a,
        "human_ref_B": b,
        "labels": int(a_wins),
        "seconds_difference": float(random.randrange(10_000)),
        "score_ratio": high_score / low_score,
    }


def shp_askengineers(random: Random, side: str) -> Row:
    """An SHP row of r/AskEngineers."""
    return _shp_row("askengineers", random)


def shp_askphysics(random: Random, side: str) -> Row:
    """An SHP row of r/AskPhysics."""
    return _shp_row("askphysics", random)


def shp_askscience(random: Random, side: str) -> Row:
    """An SHP row of r/AskScience."""
    return _shp_row("askscience", random)


def shp_explainlikeimfive(random: Random, side: str) -> Row:
    """An SHP row of r/explainlikeimfive."""
    return _shp_row("explainlikeimfive", random)


def code_vulnerability(random: Random, side: str) -> Row:
    """A code vulnerability row: secure against insecure code."""
    pair = _security_pair(random)
    return {
        "lang": "python",
        "vulnerability": "insecure use of input, secrets or files",
        "system": "",
        "question": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }


def py_dpo(random: Random, side: str) -> Row:
    """A Py-DPO row: correct against wrong Python code."""
    pair = _code_pair(random)
    number = f"{random.randrange(1 << 32):08x}"
    return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "id": number}


def _conversation_pair_row(pair: AnswerPair) -> Row:
    user = {"content": pair.prompt, "role": "user"}
    return {
        side: [user, {"content": answer, "role": "assistant"}]
        for side, answer in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }


def dpo_mix_zero_math_untoxic(random: Random, side: str) -> Row:
    """A DPO-mix row: two conversations that differ in the last answer."""
    return _conversation_pair_row(_politeness_pair(random))


def h4rmony(random: Random, side: str) -> Row:
    """An H4rmony row: advice on sustainability."""
    pair = _sustainability_pair(random)
    number = random.randrange(10_000)
    return {
        "Id": number,
        "PromptID": number,
        "Prompt": pair.prompt,
        "BetterCompletion": pair.chosen,
        "WorseCompletion": pair.rejected,
    }


def exp_dpo_3(random: Random, side: str) -> Row:
    """A row of exp_dpo_3."""
    return _conversation_pair_row(_safety_pair(random))
