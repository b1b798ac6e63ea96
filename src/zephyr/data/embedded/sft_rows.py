"""Synthetic rows of the SFT (instruction) sources, each in the columns of the real data set."""

from random import Random
from typing import Any

from zephyr.data.embedded import arithmetic, glossary, problems, programs, quizzes
from zephyr.data.embedded.glossary import FORMULAS, TERMS, TERMS_WITH_UNITS, capitalize_first
from zephyr.data.embedded.splits import sample_on_side

Row = dict[str, Any]


def khan_academy(random: Random, side: str) -> Row:
    """A Khan Academy row: a short lesson for an audience."""
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
    ).format(said=term.phrase, audience=audience)
    lesson_text = format_lesson(term)
    return {
        "prompt": prompt,
        "text": lesson_text,
        "text_token_length": len(lesson_text.split()),
        "seed_data": "khanacademy",
        "format": "textbook",
        "audience": audience,
    }


def format_lesson(term: glossary.Term) -> str:
    """Formats a lesson: everything that the glossary has on a term."""
    parts = [f"This lesson is about {term.phrase}.", term.definition]
    if term.unit:
        parts.append(term.unit_sentence)
    return " ".join([*parts, term.detail, f"It is a part of {term.field}."])


def math_college(random: Random, side: str) -> Row:
    """A college mathematics row: a quantity by one formula."""
    quantity_problem = problems.sample_quantity(random)
    return {"prompt_college": quantity_problem.question, "completion": quantity_problem.answer}


def arxiv_math(random: Random, side: str) -> Row:
    """An arXiv row: a question about one term or two, a unit or a formula."""
    match random.randrange(4):
        case 0:
            term = random.choice(TERMS)
            return {"question": glossary.make_question(random, term), "answer": term.definition}
        case 1:
            term = random.choice(TERMS_WITH_UNITS)
            question = random.choice(glossary.UNIT_TEMPLATES).format(
                **glossary.template_values(term)
            )
            return {"question": question, "answer": term.unit_sentence}
        case 2:
            formula = random.choice(FORMULAS)
            question = random.choice(
                ("How are {a} and {b} related?", "How do I find {a} from {b} and {c}?")
            ).format(a=formula.result, b=formula.left, c=formula.right)
            return {"question": question, "answer": formula.sentence}
        case _:
            term = random.choice(TERMS)
            (other,) = glossary.other_terms(random, term, 1)
            question = random.choice(
                ("What is the difference between {a} and {b}?", "How do {a} and {b} differ?")
            ).format(a=term.phrase, b=other.phrase)
            return {"question": question, "answer": f"{term.definition} {other.definition}"}


def magicoder(random: Random, side: str) -> Row:
    """A Magicoder row: a request for two functions."""
    first, second = random.sample(programs.PROGRAM_TASKS, 2)
    problem = random.choice(
        (
            "Write two Python functions: one that {a}, and one that {b}.",
            "I need two functions in Python. The first {a}, the second {b}.",
            "Write a module with a function that {a} and another that {b}.",
        )
    ).format(a=first.description, b=second.description)
    blocks = [programs.format_function(task, task.argument) for task in (first, second)]
    return {"lang": "python", "problem": problem, "solution": "\n\n".join(blocks)}


def goat(random: Random, side: str) -> Row:
    """A Goat row: an equation with its working."""
    equation = arithmetic.sample_equation(random)
    instruction = random.choice(
        ("What is {sum}?", "{sum}=?", "Compute {sum}.", "How much is {sum}?", "Work out {sum}.")
    ).format(sum=equation.expression)
    output = f"{arithmetic.format_working(equation)}."
    return {
        "instruction": instruction,
        "input": equation.expression,
        "output": output,
        "answer": str(equation.result),
    }


def sample_problem_on_side(random: Random, side: str) -> problems.Problem:
    """Samples a word problem of a side."""
    return sample_on_side(random, side, problems.sample_problem, lambda made: made.question)


def metamathqa(random: Random, side: str) -> Row:
    """A MetaMathQA row."""
    word_problem = sample_problem_on_side(random, side)
    return {
        "query": word_problem.question,
        "response": problems.format_solution(word_problem),
        "original_question": word_problem.question,
        "type": "GSM_Rephrased",
    }


def gsm8k(random: Random, side: str) -> Row:
    """A GSM8K row: a word problem and its worked solution."""
    word_problem = sample_problem_on_side(random, side)
    return {"question": word_problem.question, "answer": problems.format_solution(word_problem)}


def gsm8k_socratic(random: Random, side: str) -> Row:
    """A GSM8K socratic row: a question before each step of the solution."""
    word_problem = sample_problem_on_side(random, side)
    last = word_problem.question.split(". ")[-1]
    steps = [
        f"{question} ** {step}"
        for question, step in zip(
            ("What comes first?", last), problems.format_steps(word_problem), strict=True
        )
    ]
    return {
        "question": word_problem.question,
        "answer": "\n".join([*steps, f"#### {word_problem.answer}"]),
    }


def mathdial(random: Random, side: str) -> Row:
    """A MathDial row: a problem, its solution, and a wrong one; the answer alone at the end."""
    word_problem = sample_problem_on_side(random, side)
    right, wrong = (
        problems.format_solution(word_problem),
        problems.make_wrong_solution(random, word_problem),
    )
    return {
        "question": word_problem.question,
        "ground_truth": right.replace("#### ", " "),
        "student_incorrect_solution": wrong.replace("#### ", " "),
    }


def code_assistant(random: Random, side: str) -> Row:
    """A code assistant row: a request for a function, and its code."""
    greeting = random.choice(("", "", "Hello! ", "I am learning Python. ", "I have a question. "))
    task = random.choice(programs.PROGRAM_TASKS)
    request, argument = programs.make_request(random, task)
    return {"question": greeting + request, "answer": programs.format_function(task, argument)}


def code_alpaca(random: Random, side: str) -> Row:
    """A CodeAlpaca row."""
    task = random.choice(programs.PROGRAM_TASKS)
    request, argument = programs.make_request(random, task)
    return {"instruction": request, "input": "", "output": programs.format_function(task, argument)}


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
    """A LIMA row: advice on learning; sometimes with a second question."""
    topic = random.choice(list(_ADVICE))
    question = random.choice(
        (
            "How can I {topic}?",
            "I want to {topic}. What should I do?",
            "Do you have advice on how to {topic}?",
            "What helps to {topic}?",
            "Please help me to {topic}.",
        )
    ).format(topic=topic)
    turns = [question, _ADVICE[topic]]
    if random.random() < 0.5:
        term = random.choice(TERMS)
        turns += [
            f"Thank you. And {glossary.DEFINITION_TEMPLATES[0].format(said=term.phrase).lower()}"
        ]
        turns += [term.definition]
    return {"conversations": turns, "source": "embedded"}


_CONVERSIONS = (
    ("minutes", "hours", 60), ("days", "weeks", 7), ("hours", "days", 24), ("months", "years", 12),
    ("metres", "kilometres", 1000), ("grams", "kilograms", 1000), ("cents", "euros", 100),
)  # fmt: skip


def open_platypus(random: Random, side: str) -> Row:
    """An Open-Platypus row: sizes, rows of numbers, conversions, a choice of words."""
    match random.randrange(4):
        case 0:
            a, b = random.sample(range(10, 99), 2)
            question = f"Which number is larger, {a} or {b}?"
            answer = f"{max(a, b)} is larger than {min(a, b)}."
        case 1:
            start, step = random.randint(1, 9), random.randint(2, 9)
            row = [start + step * i for i in range(5)]
            question = f"What comes next: {', '.join(map(str, row[:4]))}?"
            answer = f"Each number is {step} more. {row[4]} comes next."
        case 2:
            small, large, factor = random.choice(_CONVERSIONS)
            n = random.randint(2, 9) if factor > 12 else random.randint(2, 12)
            question = f"How many {small} are {n} {large}?"
            answer = f"{n}x{factor}={n * factor}. That is {n * factor} {small}."
        case _:
            quiz = sample_on_side(
                random, side, quizzes.random_maker(quizzes.ALL_MAKERS), lambda made: made.question
            )
            options, _ = quiz.shuffled_options(random)
            question = f"{quiz.question} Choose one: {', '.join(options)}."
            answer = capitalize_first(quiz.right) + "."
    return {"instruction": question, "input": "", "output": answer, "data_source": "embedded"}


def math_instruct(random: Random, side: str) -> Row:
    """A MathInstruct row: word problems and quantities, with an instruction how to answer."""
    if random.random() < 0.75:
        word_problem = sample_problem_on_side(random, side)
        question, answer = word_problem.question, problems.format_solution(word_problem)
    else:
        quantity_problem = problems.sample_quantity(random)
        question, answer = quantity_problem.question, quantity_problem.answer
    instruction_prefix = random.choice(
        ("Solve this step by step. ", "Solve: ", "Show your working. ")
    )
    return {"instruction": instruction_prefix + question, "output": answer, "source": "embedded"}


def wiki_qa(random: Random, side: str) -> Row:
    """A WikiQA row: a sentence of an article that answers the question (label 1) or doesn't."""
    term = random.choice(TERMS)
    (other,) = glossary.other_terms(random, term, 1)
    sentence, label = random.choice(((term.definition, 1), (term.detail, 0), (other.definition, 0)))
    return {
        "question_id": f"Q{TERMS.index(term)}",
        "question": f"what is {term.phrase}",
        "document_title": capitalize_first(term.name),
        "answer": sentence,
        "label": label,
    }
