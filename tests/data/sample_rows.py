"""Sample rows of each registered source, three each, in its own columns; written for the tests.

Values beside the columns that a reader knows stand for those that it must not look at.
"""

from typing import Any

Row = dict[str, Any]


def _make_messages(*texts: str, system: str = "") -> list[dict[str, str]]:
    """Turns of a user and an assistant, after a system message if there is one."""
    turns = [{"content": t, "role": ("user", "assistant")[i % 2]} for i, t in enumerate(texts)]
    return [{"content": system, "role": "system"}, *turns] if system else turns


def _shp_row(history: str, first: str, second: str, labels: int) -> Row:
    """A row of SHP: `labels` is 1 where the first was preferred, whatever the scores."""
    return {
        "post_id": "q1",
        "upvote_ratio": 0.9,
        "history": history,
        "human_ref_A": first,
        "human_ref_B": second,
        "labels": labels,
        "score_A": 12,
        "score_B": 7,
    }


def _epfl_preference(overall: str | None, first: str, second: str) -> Row:
    """One student's comparison; only `overall` counts."""
    criteria = {"overall": overall, "correctness": "AB", "other": "Brevity: B"}
    return {"A": first, "B": second, "overall": overall, "criteria": criteria}


def _arc_row(question: str, texts: list[str], labels: str, key: str) -> Row:
    """A row of ARC as it is on the hub."""
    options = {"text": texts, "label": list(labels)}
    return {"id": "x1", "question": question, "choices": options, "answerKey": key}


_MAGNET = ["It gets hot.", "It pulls the nail.", "It melts.", "It sinks."]
_UNITS = ["joule", "newton", "watt", "pascal"]

_VOTED_QUESTIONS: tuple[Row, ...] = (
    {
        "question_id": 4,
        "course_id": 15,
        "question_complete": "Question: What is entropy?",
        "preference": [
            _epfl_preference("A", "A count of states.", "Heat."),
            _epfl_preference("B", "Heat.", "A measure of disorder."),
            _epfl_preference("AB", "Disorder.", "States."),
            _epfl_preference("A", "A count of states.", "Heat."),
        ],
    },
    {
        "question_id": 5,
        "course_id": 15,
        "question_complete": "Question: 1 + 1?\n\nOptions:\nA. 2\nB. 3",
        "preference": [
            _epfl_preference("B", "...", "A"),
            _epfl_preference("A", "It is 2, so A.", ""),
            _epfl_preference("B", "B", "It is 2, so A."),
        ],
    },
    {
        "question_id": 6,
        "course_id": 2,
        "question_complete": "Question: Is a tree a graph?",
        "preference": [
            _epfl_preference(None, "Yes.", "No."),
            _epfl_preference("A", "Yes.", "Yes."),
        ],
    },
)
SAMPLE_ROWS: dict[str, tuple[Row, Row, Row]] = {
    "khan_academy": (
        {
            "prompt": "Write a lesson on levers.",
            "text": "A lever turns.",
            "text_token_length": 4,
            "audience": "children",
        },
        {"prompt": "Write a lesson on sums.\n", "text": " 2 + 2 = 4.\n\n", "format": "textbook"},
        {"prompt": "Explain π.", "text": "Round and round:\u2028C = πd.", "seed_data": "khan"},
    ),
    "math_college": (
        {"prompt_college": "Define a group.", "completion": "A set with a product.", "id": 1},
        {"prompt_college": "Is 2 prime?", "completion": "It is."},
        {"prompt_college": "Integrate x.", "completion": "$x^2/2 + C$"},
    ),
    "arxiv_math": (
        {"question": "What is a ring?", "answer": "Two operations that fit."},
        {"question": "Is every field a ring?", "answer": "Yes."},
        {"question": "$a+b$ of $a=1, b=2$?", "answer": "$3$"},
    ),
    "magicoder": (
        {"lang": "python", "raw_index": 3, "problem": "Double n.", "solution": "```\n2*n\n```"},
        {"lang": "c", "problem": "Say hi.", "solution": 'puts("hi");', "seed": "int main"},
        {"problem": "Reverse s.", "solution": "s[::-1]"},
    ),
    "goat": (
        {
            "instruction": "Work out 7 + 5.",
            "input": "7 + 5",
            "output": "7 + 5 = 12",
            "answer": "12",
        },
        {"instruction": "9 - 4 = ", "input": "9 - 4", "output": "5", "answer": "5"},
        {"instruction": "3 times 8", "input": "", "output": "24", "answer": ""},
    ),
    "metamathqa": (
        {"query": "Ann has 3 nuts and finds 4.", "response": "The answer is: 7", "type": "GSM"},
        {"query": "x + 1 = 3. x?", "response": "x = 2", "original_question": "What is x?"},
        {"query": "Half of ten?", "response": "5"},
    ),
    "code_assistant": (
        {"question": "How do I loop?", "answer": "Use `for`."},
        {"question": "What is None?", "answer": "Nothing, as an object."},
        {"question": "Sort a list?", "answer": "`sorted(a)`"},
    ),
    "lima": (
        {"conversations": ["How do I knit?", "With two needles."], "source": "wikihow"},
        {"conversations": ["Hi", "Hello.", "Where is Oslo?", "In Norway."], "source": "multi_turn"},
        {"conversations": ["A pun?", "I am two tired, said the bike.", "Ha!"], "source": "chat"},
    ),
    "open_platypus": (
        {"instruction": "Prove it.", "input": "", "output": "Done.", "data_source": "scibench"},
        {"instruction": "Add them.", "input": "1, 2", "output": "3", "data_source": "reclor"},
        {"instruction": "Name a gas.", "input": "", "output": "Neon", "data_source": "tigerbot"},
    ),
    "math_instruct": (
        {"source": "CoT/a.json", "instruction": "Six by seven?", "output": "42"},
        {"source": "PoT/b.json", "instruction": "Write a program.", "output": "print(6 * 7)"},
        {"source": "CoT/c.json", "instruction": "Is 9 odd?", "output": "Yes."},
    ),
    "wiki_qa": (
        {"question_id": "Q1", "question": "who painted it", "answer": "She did.", "label": 1},
        {"question_id": "Q1", "question": "who painted it", "answer": "It is blue.", "label": 0},
        {"question_id": "Q2", "question": "how tall", "answer": "Nine metres.", "label": "1"},
    ),
    "wiki_qa_all": (
        {"question_id": "Q1", "question": "who painted it", "answer": "She did.", "label": 1},
        {"question_id": "Q1", "question": "who painted it", "answer": "It is blue.", "label": 0},
        {"question_id": "Q2", "question": "how tall", "answer": "Nine metres.", "label": "1"},
    ),
    "code_alpaca": (
        {"instruction": "Print a star.", "input": "", "output": "print('*')"},
        {"instruction": "Mend this.", "input": "pritn(1)", "output": "print(1)"},
        {"instruction": "Count to 3.", "input": None, "output": "1\n2\n3"},
    ),
    "epfl": _VOTED_QUESTIONS,
    "votes": _VOTED_QUESTIONS,
    "orca_dpo_pairs": (
        {"system": "", "question": "Sum up.", "chosen": "Short.", "rejected": "Too long."},
        {"system": "Be kind.", "question": "Help?", "chosen": "Sure.", "rejected": "No."},
        {"system": "Think.", "question": "2 x 3?", "chosen": "6", "rejected": "5"},
    ),
    "truthy_dpo": (
        {
            "id": "a",
            "system": "You know.",
            "prompt": "Flat?",
            "chosen": "Round.",
            "rejected": "Yes.",
        },
        {"id": "b", "system": "", "prompt": "Can you see?", "chosen": "No.", "rejected": "I can."},
        {"id": "c", "system": None, "prompt": "Do bats see?", "chosen": "Yes.", "rejected": "No."},
    ),
    "shp_askengineers": (
        _shp_row("Why do bridges hum?", "The wind does it.", "Ghosts.", 1),
        _shp_row("Steel or wood?", "Wood.", "It depends on the load.", 0),
        _shp_row("Bolts or welds?\n\n[removed]", "Bolts come apart again.", "Welds.", 1),
    ),
    "shp_askphysics": (
        _shp_row("Why is the sky blue?", "Paint.", "Short waves scatter more.", 0),
        _shp_row("Does light weigh?", "It has momentum, and no mass.", "Yes.", 1),
        _shp_row("Is cold a thing?", "It is less heat.", "It flows.", 1),
    ),
    "shp_askscience": (
        _shp_row("Do plants sleep?", "Some close at night.", "No.", 1),
        _shp_row("Why salt the road?", "For taste.", "It melts ice.", 0),
        _shp_row("Do fish drink?", "Those of the sea do.", "Never.", 1),
    ),
    "shp_explainlikeimfive": (
        _shp_row("ELI5: money?", "A promise that all believe.", "Paper.", 1),
        _shp_row("ELI5: tides?", "Fish.", "The moon pulls the sea.", 0),
        _shp_row("ELI5: wifi?", "Radio, for computers.", "Magic.", 1),
    ),
    "code_vulnerability": (
        {
            "lang": "c",
            "vulnerability": "overflow",
            "system": "",
            "question": "Copy s.",
            "chosen": "strlcpy(d, s, n);",
            "rejected": "strcpy(d, s);",
        },
        {
            "lang": "sql",
            "question": "Find a user.",
            "chosen": "bind(?)",
            "rejected": "'...' + name",
        },
        {"lang": "php", "question": "Echo it.", "chosen": "escape($x)", "rejected": "$x"},
    ),
    "py_dpo": (
        {"id": "1", "prompt": "Square n.", "chosen": "n * n", "rejected": "n + n"},
        {"id": "2", "prompt": "Last item?", "chosen": "a[-1]", "rejected": "a[len(a)]"},
        {"id": "3", "prompt": "Empty?", "chosen": "not a", "rejected": "a == 0"},
    ),
    "dpo_mix_zero_math_untoxic": (
        {"chosen": _make_messages("Hi", "Hello!"), "rejected": _make_messages("Hi", "What?")},
        {
            "chosen": _make_messages("A poem?", "On what?", "Rain", "It falls, it sings."),
            "rejected": _make_messages("A poem?", "On what?", "Rain", "No."),
        },
        {
            "chosen": _make_messages("Bye", "See you.", system="Be brief."),
            "rejected": _make_messages("Bye", "So soon? Stay a while.", system="Be brief."),
        },
    ),
    "h4rmony": (
        {"Id": 1, "Prompt": "Tea?", "BetterCompletion": "From leaves.", "WorseCompletion": "Wet."},
        {"Id": 2, "Prompt": "Cars?", "BetterCompletion": "Share.", "WorseCompletion": "Buy two."},
        {"Id": 3, "Prompt": "Bags?", "BetterCompletion": "Cloth.", "WorseCompletion": "More!"},
    ),
    "exp_dpo_3": (
        {
            "chosen": _make_messages("Pick a lock?", "Ask a locksmith."),
            "rejected": _make_messages("Pick a lock?", "So:"),
        },
        {
            "chosen": _make_messages("Hey", "Hello.", "Insult me", "I would rather not."),
            "rejected": _make_messages("Hey", "Hello.", "Insult me", "You smell."),
        },
        {
            "chosen": _make_messages("Poison?", "Call a doctor."),
            "rejected": _make_messages("Poison?", "Mix it."),
        },
    ),
    "arc_challenge": (
        _arc_row("What does a magnet do to a nail?", _MAGNET, "ABCD", "B"),
        _arc_row("Which is a solid?", ["steam", "ice", "rain"], "123", "2"),
        _arc_row(
            "Which lives longest?", ["a fly", "a mouse", "a dog", "an oak", "a cat"], "ABCDE", "D"
        ),
    ),
    "arc_easy": (
        _arc_row("Which animal flies?", ["cow", "bat", "pig", "eel"], "ABCD", "B"),
        _arc_row("What do plants need?", ["light", "shoes", "paper", "noise"], "1234", "1"),
        _arc_row("Which is a planet?", ["Sun", "Moon", "Mars"], "ABC", "C"),
    ),
    "mmlu": (
        {"question": "Unit of force?", "subject": "physics", "choices": _UNITS, "answer": 1},
        {"train": {"question": "Of energy?", "subject": "", "choices": _UNITS, "answer": 0}},
        {"question": "Of power?", "subject": "physics", "choices": _UNITS, "answer": "C"},
    ),
    "hellaswag": (
        {
            "ind": 4,
            "activity_label": "Baking",
            "ctx_a": "He mixes flour [title] and eggs.",
            "ctx_b": "he",
            "ctx": "He mixes flour [title] and eggs. he",
            "endings": ["bakes it.", "[step] sings.", "swims.", "sleeps  long."],
            "label": "0",
        },
        {
            "ind": 5,
            "activity_label": "Rowing",
            "ctx_a": "They push the boat out.",
            "ctx_b": "",
            "ctx": "They push the boat out.",
            "endings": ["It flies.", "They row.", "They melt.", "It sings."],
            "label": "1",
        },
        {
            "ind": 6,
            "ctx": "Tea: She boils water.",
            "endings": ["She pours.", "She runs."],
            "label": 0,
        },
    ),
    "gsm8k": (
        {"question": "2 bags of 3?", "answer": "2 x 3 = <<2*3=6>>6\n#### 6"},
        {"question": "10 less 4?", "answer": "10 - 4 = <<10-4=6>>6\n#### 6"},
        {"question": "A thousand and one?", "answer": "So many.\n#### 1,001"},
    ),
    "gsm8k_socratic": (
        {"question": "2 bags of 3?", "answer": "How many? ** 2 x 3 = <<2*3=6>>6\n#### 6"},
        {"question": "10 less 4?", "answer": "What is left? ** 10 - 4 = <<10-4=6>>6\n#### 6"},
        {"question": "A thousand and one?", "answer": "How many? ** So many.\n#### 1,001"},
    ),
    "mathdial": (
        {
            "qid": 1,
            "question": "2 bags of 3?",
            "student_incorrect_solution": "2 + 3 = 5\n 5",
            "ground_truth": "2 x 3 = 6\n 6",
            "conversation": "Teacher: (generic)Hi|EOM|Student: Hello",
        },
        {"question": "Q?", "student_incorrect_solution": "4", "ground_truth": "So many.\n 1,001"},
        {"question": " R? ", "student_incorrect_solution": " 7\n", "ground_truth": "8"},
    ),
    "wikitext2": (
        {"text": " = Harbour = \n"},
        {"text": ""},
        {"text": " The harbour was built in 1890 @-@ 91 . \n"},
    ),
    "primer": (
        {"text": "A joule is a unit of energy."},
        {"text": "7+5=12."},
        {"text": "Cats sleep.\n\nDogs bark."},
    ),
}

SKIP_REASONS: dict[str, dict[str, int]] = {
    "lima": {"the last turn of the conversation is a question without an answer": 1},
    "wiki_qa": {"the answer is marked as wrong": 1},
    "epfl": {
        "neither answer is preferred overall": 2,
        "an answer is empty": 2,
        "both answers are the same": 1,
    },
    "votes": {
        "neither answer is preferred overall": 2,
        "an answer is empty": 2,
        "both answers are the same": 1,
    },
}
"""How many records of these rows are skipped, by the reason."""
