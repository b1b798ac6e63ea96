"""Small tasks in Python, each with a function that solves it and one that is nearly right.

`check` calls the function with values and gives what must come out; it is there so that the tests
can run every program and see that the right one is right and the wrong one wrong.
"""

import re
from random import Random
from typing import NamedTuple


class Task(NamedTuple):
    """What a function is to do, its name and body, and the body of a wrong one."""

    name: str
    does: str
    argument: str
    body: str
    wrong: str
    check: tuple[object, object]


TASKS = (
    Task("double", "returns twice a number", "n", "return 2 * n", "return n + 2", (5, 10)),
    Task("half", "returns half of a number", "n", "return n / 2", "return n - 2", (8, 4)),
    Task("square", "returns the square of a number", "n", "return n * n", "return n + n", (3, 9)),
    Task("cube", "returns the cube of a number", "n", "return n * n * n", "return 3 * n", (2, 8)),
    Task("next_one", "returns the next number", "n", "return n + 1", "return n - 1", (4, 5)),
    Task("opposite", "returns a number with the other sign", "n", "return -n", "return 1 / n", (4, -4)),
    Task("is_even", "tells whether a number is even", "n", "return n % 2 == 0", "return n % 2 == 1", (6, True)),
    Task("is_odd", "tells whether a number is odd", "n", "return n % 2 == 1", "return n % 2 == 0", (7, True)),
    Task("is_zero", "tells whether a number is zero", "n", "return n == 0", "return n != 0", (0, True)),
    Task("is_positive", "tells whether a number is above zero", "n", "return n > 0", "return n < 0", (3, True)),
    Task("last_digit", "returns the last digit of a number", "n", "return n % 10", "return n // 10", (47, 7)),
    Task("minutes", "turns hours into minutes", "n", "return 60 * n", "return n / 60", (2, 120)),
    Task("seconds", "turns minutes into seconds", "n", "return 60 * n", "return n + 60", (3, 180)),
    Task("perimeter", "returns the perimeter of a square by its side", "n", "return 4 * n", "return n * n", (3, 12)),
    Task("area", "returns the area of a square by its side", "n", "return n * n", "return 4 * n", (3, 9)),
    Task("first", "returns the first item of a list", "items", "return items[0]", "return items[1]", ([4, 5, 6], 4)),
    Task("last", "returns the last item of a list", "items", "return items[-1]", "return items[0]", ([4, 5, 6], 6)),
    Task("count", "counts the items of a list", "items", "return len(items)", "return max(items)", ([4, 5, 6], 3)),
    Task("total", "adds up a list of numbers", "items", "return sum(items)", "return len(items)", ([4, 5, 6], 15)),
    Task("largest", "returns the largest item of a list", "items", "return max(items)", "return min(items)", ([4, 6, 5], 6)),
    Task("smallest", "returns the smallest item of a list", "items", "return min(items)", "return max(items)", ([5, 4, 6], 4)),
    Task("average", "returns the average of a list", "items", "return sum(items) / len(items)", "return sum(items) / 2", ([4, 5, 6], 5)),
    Task("backwards", "turns a list around", "items", "return items[::-1]", "return items[1:]", ([4, 5, 6], [6, 5, 4])),
    Task("in_order", "sorts a list", "items", "return sorted(items)", "return items[::-1]", ([5, 4, 6], [4, 5, 6])),
    Task("is_empty", "tells whether a list is empty", "items", "return len(items) == 0", "return len(items) > 0", ([], True)),
    Task("length", "returns the length of a text", "text", "return len(text)", "return text[0]", ("tea", 3)),
    Task("shout", "writes a text in capital letters", "text", "return text.upper()", "return text.lower()", ("tea", "TEA")),
    Task("whisper", "writes a text in small letters", "text", "return text.lower()", "return text.upper()", ("TEA", "tea")),
    Task("mirror", "writes a text backwards", "text", "return text[::-1]", "return text[1:]", ("tea", "aet")),
    Task("initial", "returns the first letter of a text", "text", "return text[0]", "return text[-1]", ("tea", "t")),
    Task("words", "splits a text into words", "text", "return text.split()", "return list(text)", ("a cup", ["a", "cup"])),
    Task("trimmed", "removes blanks around a text", "text", "return text.strip()", "return text.split()", (" tea ", "tea")),
)  # fmt: skip

_ASKED = (
    "Write a Python function that {does}.",
    "Write a function named {name} that {does}.",
    "In Python, how do I write a function that {does}?",
    "I need a Python function which {does}.",
    "Please show me a function {name} that {does}.",
    "How can I write {name}, a function that {does}?",
    "Help me with my homework: a function that {does}.",
    "Code a function that {does}. Call it {name}.",
)
_LETTERS = {"n": ("n", "x", "a", "k"), "items": ("items", "values", "row"), "text": ("text", "s")}


def ask(random: Random, task: Task) -> tuple[str, str]:
    """A request for a task, and the name that its argument gets in the answer.

    Where it is not the task's own, the request says so.
    """
    asked = random.choice(_ASKED).format(name=task.name, does=task.does)
    argument = random.choice(_LETTERS[task.argument])
    if argument != task.argument:
        asked += f" Name its argument {argument}."
    return asked, argument


def write(task: Task, argument: str, *, wrong: bool = False) -> str:
    """The function as a code block."""
    body = re.sub(rf"\b{task.argument}\b", argument, task.wrong if wrong else task.body)
    return f"```python\ndef {task.name}({argument}):\n    {body}\n```"


class Danger(NamedTuple):
    """A request whose quick answer is insecure, with the safe one."""

    wants: str
    safe: str
    unsafe: str


DANGERS = (
    Danger("reads a number from a text", "number = int(text)", "number = eval(text)"),
    Danger("finds a user by name in a database", "db.execute('select * from users where name = ?', (name,))", "db.execute('select * from users where name = ' + name)"),
    Danger("keeps the password of a user", "store(user, hash_of(password, salt))", "store(user, password)"),
    Danger("lists the files of a folder", "run(['ls', folder])", "run('ls ' + folder, shell=True)"),
    Danger("loads settings from a file", "settings = json.load(file)", "settings = pickle.load(file)"),
    Danger("shows the comment of a user on a page", "page.write(escape(comment))", "page.write(comment)"),
    Danger("fetches a page from the web", "get(url, verify=True, timeout=10)", "get(url, verify=False)"),
    Danger("makes a secret token", "token = secrets.token_hex(16)", "token = str(random.random())"),
    Danger("opens a file that a user names", "open(folder / safe_name(name))", "open(folder + name)"),
    Danger("compares a token with a secret", "compare_digest(token, secret)", "token == secret or debug"),
    Danger("gives a file to its owner alone", "os.chmod(path, 0o600)", "os.chmod(path, 0o777)"),
    Danger("reads the key of a service", "key = os.environ['KEY']", "key = 'abc123'"),
)  # fmt: skip

DANGER_ASKED = (
    "Write a line of Python that {wants}.",
    "How do I write code that {wants}?",
    "I need Python code which {wants}.",
    "Show me a line that {wants}.",
    "Please write a short program that {wants}.",
    "My program must have a line that {wants}. How?",
    "In Python, what line {wants}?",
    "Give me code that {wants}.",
    "For my website I need a line that {wants}.",
    "What is the best line that {wants}?",
)


def block(line: str) -> str:
    return f"```python\n{line}\n```"
