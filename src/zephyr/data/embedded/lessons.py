"""Rows of the fine-tuning sources, each in the columns of the real data set."""

from random import Random
from typing import Any

from zephyr.data.embedded import arithmetic, glossary, problems, programs, quizzes
from zephyr.data.embedded.glossary import FORMULAS, MEASURED, TERMS, capital
from zephyr.data.embedded.splits import draw

Row = dict[str, Any]


def khan_academy(random: Random, side: str) -> Row:
    """A short lesson for an audience."""
    term = random.choice(TERMS)
    audience = random.choice(("children", "beginners", "students", "adults", "pupils"))
    prompt = random.choice(
        (
            "Write a short lesson on {said} for {audience}.",
            "Write a page of a textbook on {said} for {audience}.",
            "Teach {said} to {audience}.",
            "Explain {said} to {audience} in a few sentences.",
            "Prepare a lesson for {audience}: what is {said}?",
        )
    ).format(said=term.said, audience=audience)
    text = lesson(term)
    return {
        "prompt": prompt,
        "text": text,
        "text_token_length": len(text.split()),
        "seed_data": "khanacademy",
        "format": "textbook",
        "audience": audience,
    }


def lesson(term: glossary.Term) -> str:
    """All that is known of a term."""
    parts = [f"This lesson is about {term.said}.", term.sentence]
    if term.unit:
        parts.append(term.measured)
    return " ".join([*parts, term.more, f"It is a part of {term.field}."])


def math_college(random: Random, side: str) -> Row:
    found = problems.quantity(random)
    return {"prompt_college": found.question, "completion": found.answer}


def arxiv_math(random: Random, side: str) -> Row:
    """A question about one term or two, a unit or a formula."""
    match random.randrange(4):
        case 0:
            term = random.choice(TERMS)
            return {"question": glossary.ask(random, term), "answer": term.sentence}
        case 1:
            term = random.choice(MEASURED)
            asked = random.choice(glossary.ASKED_UNIT).format(**glossary.form(term))
            return {"question": asked, "answer": term.measured}
        case 2:
            formula = random.choice(FORMULAS)
            asked = random.choice(
                ("How are {a} and {b} related?", "How do I find {a} from {b} and {c}?")
            ).format(a=formula.result, b=formula.left, c=formula.right)
            return {"question": asked, "answer": formula.sentence}
        case _:
            term = random.choice(TERMS)
            (other,) = glossary.others(random, term, 1)
            asked = random.choice(
                ("What is the difference between {a} and {b}?", "How do {a} and {b} differ?")
            ).format(a=term.said, b=other.said)
            return {"question": asked, "answer": f"{term.sentence} {other.sentence}"}


def magicoder(random: Random, side: str) -> Row:
    """A request for two functions."""
    first, second = random.sample(programs.TASKS, 2)
    problem = random.choice(
        (
            "Write two Python functions: one that {a}, and one that {b}.",
            "I need two functions in Python. The first {a}, the second {b}.",
            "Write a module with a function that {a} and another that {b}.",
        )
    ).format(a=first.does, b=second.does)
    blocks = [programs.write(task, task.argument) for task in (first, second)]
    return {"lang": "python", "problem": problem, "solution": "\n\n".join(blocks)}


def goat(random: Random, side: str) -> Row:
    sum_ = arithmetic.draw(random)
    asked = random.choice(
        ("What is {sum}?", "{sum}=?", "Compute {sum}.", "How much is {sum}?", "Work out {sum}.")
    ).format(sum=sum_.asked)
    output = f"{arithmetic.work(sum_)}."
    return {"instruction": asked, "input": sum_.asked, "output": output, "answer": str(sum_.result)}


def problem(random: Random, side: str) -> problems.Problem:
    """A word problem of a side."""
    return draw(random, side, problems.draw, lambda made: made.question)


def metamathqa(random: Random, side: str) -> Row:
    made = problem(random, side)
    return {
        "query": made.question,
        "response": problems.solution(made),
        "original_question": made.question,
        "type": "GSM_Rephrased",
    }


def gsm8k(random: Random, side: str) -> Row:
    made = problem(random, side)
    return {"question": made.question, "answer": problems.solution(made)}


def gsm8k_socratic(random: Random, side: str) -> Row:
    """A problem with a question before each step, as GSM8K's ladders have them."""
    made = problem(random, side)
    last = made.question.split(". ")[-1]
    ladder = [
        f"{asked} ** {step}"
        for asked, step in zip(("What comes first?", last), problems.working(made), strict=True)
    ]
    return {"question": made.question, "answer": "\n".join([*ladder, f"#### {made.answer}"])}


def mathdial(random: Random, side: str) -> Row:
    """A problem, its solution, and a wrong one; as there, the answer stands alone at the end."""
    made = problem(random, side)
    right, wrong = problems.solution(made), problems.wrong_solution(random, made)
    return {
        "question": made.question,
        "ground_truth": right.replace("#### ", " "),
        "student_incorrect_solution": wrong.replace("#### ", " "),
    }


def code_assistant(random: Random, side: str) -> Row:
    greeting = random.choice(("", "", "Hello! ", "I am learning Python. ", "I have a question. "))
    task = random.choice(programs.TASKS)
    asked, argument = programs.ask(random, task)
    return {"question": greeting + asked, "answer": programs.write(task, argument)}


def code_alpaca(random: Random, side: str) -> Row:
    task = random.choice(programs.TASKS)
    asked, argument = programs.ask(random, task)
    return {"instruction": asked, "input": "", "output": programs.write(task, argument)}


_ADVICE = {
    "prepare for an exam": "Start early and make a plan. Solve old exams, and sleep well.",
    "learn new words": "Write each word on a card. Look at the cards every day.",
    "understand a hard text": "Read it slowly and twice. Then say it in your own words.",
    "stay calm in a test": "Breathe slowly. Begin with a question that you can answer.",
    "find a mistake in my program": "Run it with a small example. Print what each step gives.",
    "get better at mathematics": "Practise a little every day. Check each result.",
    "write a good report": "Say first what you found. Then show how you found it.",
    "work well in a group": "Listen to the others. Share the work in a fair way.",
    "remember a formula": "Ask where it comes from. Then use it in three problems.",
    "ask a good question": "Say what you know, what you tried, and where you are stuck.",
    "use my time well": "Do the hard task first. Take a short break each hour.",
    "check my homework": "Put your answer back into the question. See whether it fits.",
}


def lima(random: Random, side: str) -> Row:
    """Advice on learning; now and then a second question follows."""
    topic = random.choice(list(_ADVICE))
    asked = random.choice(
        (
            "How can I {topic}?",
            "I want to {topic}. What should I do?",
            "Do you have advice on how to {topic}?",
            "What helps to {topic}?",
            "Please help me to {topic}.",
        )
    ).format(topic=topic)
    turns = [asked, _ADVICE[topic]]
    if random.random() < 0.5:
        term = random.choice(TERMS)
        turns += [f"Thank you. And {glossary.ASKED[0].format(said=term.said).lower()}"]
        turns += [term.sentence]
    return {"conversations": turns, "source": "embedded"}


_CONVERSIONS = (
    ("minutes", "hours", 60), ("days", "weeks", 7), ("hours", "days", 24), ("months", "years", 12),
    ("metres", "kilometres", 1000), ("grams", "kilograms", 1000), ("cents", "euros", 100),
)  # fmt: skip


def open_platypus(random: Random, side: str) -> Row:
    """Small tasks of reasoning: sizes, rows of numbers, conversions, a choice of words."""
    match random.randrange(4):
        case 0:
            a, b = random.sample(range(10, 99), 2)
            asked = f"Which number is larger, {a} or {b}?"
            answer = f"{max(a, b)} is larger than {min(a, b)}."
        case 1:
            start, step = random.randint(1, 9), random.randint(2, 9)
            row = [start + step * i for i in range(5)]
            asked = f"What comes next: {', '.join(map(str, row[:4]))}?"
            answer = f"Each number is {step} more. {row[4]} comes next."
        case 2:
            small, large, factor = random.choice(_CONVERSIONS)
            n = random.randint(2, 9) if factor > 12 else random.randint(2, 12)
            asked = f"How many {small} are {n} {large}?"
            answer = f"{n}x{factor}={n * factor}. That is {n * factor} {small}."
        case _:
            quiz = draw(random, side, quizzes.of(quizzes.ALL), lambda made: made.question)
            options, _ = quiz.options(random)
            asked = f"{quiz.question} Choose one: {', '.join(options)}."
            answer = capital(quiz.right) + "."
    return {"instruction": asked, "input": "", "output": answer, "data_source": "embedded"}


def math_instruct(random: Random, side: str) -> Row:
    """Word problems and quantities, with a word on how to answer."""
    if random.random() < 0.75:
        made = problem(random, side)
        asked, answer = made.question, problems.solution(made)
    else:
        found = problems.quantity(random)
        asked, answer = found.question, found.answer
    lead = random.choice(("Solve this step by step. ", "Solve: ", "Show your working. "))
    return {"instruction": lead + asked, "output": answer, "source": "embedded"}


def wiki_qa(random: Random, side: str) -> Row:
    """Sentences of an article, of which one answers the question (label 1)."""
    term = random.choice(TERMS)
    (other,) = glossary.others(random, term, 1)
    answers, label = random.choice(((term.sentence, 1), (term.more, 0), (other.sentence, 0)))
    return {
        "question_id": f"Q{TERMS.index(term)}",
        "question": f"what is {term.said}",
        "document_title": capital(term.name),
        "answer": answers,
        "label": label,
    }
