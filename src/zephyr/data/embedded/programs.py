"""Python programming tasks, each with a correct function and a buggy one.

`check` is a call of the function and its expected result, so that the tests can run every program
and check that the correct one passes and the buggy one fails.
"""

import re
from random import Random
from typing import NamedTuple


class ProgramTask(NamedTuple):
    """A programming task: what a function should do, its name and body, and a buggy body."""

    name: str
    description: str
    argument: str
    body: str
    wrong_body: str
    check: tuple[object, object]


PROGRAM_TASKS = (
    ProgramTask("double", "returns twice a number", "n", "return 2 * n", "return n + 2", (5, 10)),
    ProgramTask("half", "returns half of a number", "n", "return n / 2", "return n - 2", (8, 4)),
    ProgramTask("square", "returns the square of a number", "n", "return n * n", "return n + n", (3, 9)),
    ProgramTask("cube", "returns the cube of a number", "n", "return n * n * n", "return 3 * n", (2, 8)),
    ProgramTask("next_one", "returns the next number", "n", "return n + 1", "return n - 1", (4, 5)),
    ProgramTask("opposite", "returns a number with the other sign", "n", "return -n", "return 1 / n", (4, -4)),
    ProgramTask("is_even", "tells whether a number is even", "n", "return n % 2 == 0", "return n % 2 == 1", (6, True)),
    ProgramTask("is_odd", "tells whether a number is odd", "n", "return n % 2 == 1", "return n % 2 == 0", (7, True)),
    ProgramTask("is_zero", "tells whether a number is zero", "n", "return n == 0", "return n != 0", (0, True)),
    ProgramTask("is_positive", "tells whether a number is above zero", "n", "return n > 0", "return n < 0", (3, True)),
    ProgramTask("last_digit", "returns the last digit of a number", "n", "return n % 10", "return n // 10", (47, 7)),
    ProgramTask("minutes", "turns hours into minutes", "n", "return 60 * n", "return n / 60", (2, 120)),
    ProgramTask("seconds", "turns minutes into seconds", "n", "return 60 * n", "return n + 60", (3, 180)),
    ProgramTask("perimeter", "returns the perimeter of a square by its side", "n", "return 4 * n", "return n * n", (3, 12)),
    ProgramTask("area", "returns the area of a square by its side", "n", "return n * n", "return 4 * n", (3, 9)),
    ProgramTask("first", "returns the first item of a list", "items", "return items[0]", "return items[1]", ([4, 5, 6], 4)),
    ProgramTask("last", "returns the last item of a list", "items", "return items[-1]", "return items[0]", ([4, 5, 6], 6)),
    ProgramTask("count", "counts the items of a list", "items", "return len(items)", "return max(items)", ([4, 5, 6], 3)),
    ProgramTask("total", "adds up a list of numbers", "items", "return sum(items)", "return len(items)", ([4, 5, 6], 15)),
    ProgramTask("largest", "returns the largest item of a list", "items", "return max(items)", "return min(items)", ([4, 6, 5], 6)),
    ProgramTask("smallest", "returns the smallest item of a list", "items", "return min(items)", "return max(items)", ([5, 4, 6], 4)),
    ProgramTask("average", "returns the average of a list", "items", "return sum(items) / len(items)", "return sum(items) / 2", ([4, 5, 6], 5)),
    ProgramTask("backwards", "turns a list around", "items", "return items[::-1]", "return items[1:]", ([4, 5, 6], [6, 5, 4])),
    ProgramTask("in_order", "sorts a list", "items", "return sorted(items)", "return items[::-1]", ([5, 4, 6], [4, 5, 6])),
    ProgramTask("is_empty", "tells whether a list is empty", "items", "return len(items) == 0", "return len(items) > 0", ([], True)),
    ProgramTask("length", "returns the length of a text", "text", "return len(text)", "return text[0]", ("tea", 3)),
    ProgramTask("shout", "writes a text in capital letters", "text", "return text.upper()", "return text.lower()", ("tea", "TEA")),
    ProgramTask("whisper", "writes a text in small letters", "text", "return text.lower()", "return text.upper()", ("TEA", "tea")),
    ProgramTask("mirror", "writes a text backwards", "text", "return text[::-1]", "return text[1:]", ("tea", "aet")),
    ProgramTask("initial", "returns the first letter of a text", "text", "return text[0]", "return text[-1]", ("tea", "t")),
    ProgramTask("words", "splits a text into words", "text", "return text.split()", "return list(text)", ("a cup", ["a", "cup"])),
    ProgramTask("trimmed", "removes blanks around a text", "text", "return text.strip()", "return text.split()", (" tea ", "tea")),
)  # fmt: skip

_REQUEST_TEMPLATES = (
    "Write a Python function that {does}.",
    "Write a function named {name} that {does}.",
    "In Python, how do I write a function that {does}?",
    "I need a Python function which {does}.",
    "Please show me a function {name} that {does}.",
    "How can I write {name}, a function that {does}?",
    "Help me with my homework: a function that {does}.",
    "Code a function that {does}. Call it {name}.",
)
_ARGUMENT_NAMES = {
    "n": ("n", "x", "a", "k"),
    "items": ("items", "values", "row"),
    "text": ("text", "s"),
}


def make_request(random: Random, task: ProgramTask) -> tuple[str, str]:
    """Makes a request for a task, and the name of the argument in the answer.

    Where it is not the task's own, the request says so.
    """
    request = random.choice(_REQUEST_TEMPLATES).format(name=task.name, does=task.description)
    argument = random.choice(_ARGUMENT_NAMES[task.argument])
    if argument != task.argument:
        request += f" Name its argument {argument}."
    return request, argument


def format_function(task: ProgramTask, argument: str, *, wrong: bool = False) -> str:
    """Formats the function as a Markdown code block."""
    body = re.sub(rf"\b{task.argument}\b", argument, task.wrong_body if wrong else task.body)
    return f"```python\ndef {task.name}({argument}):\n    {body}\n```"


class SecurityTask(NamedTuple):
    """A security task: a request, an insecure answer, and the secure one."""

    description: str
    safe: str
    unsafe: str


SECURITY_TASKS = (
    SecurityTask("reads a number from a text", "number = int(text)", "number = eval(text)"),
    SecurityTask("finds a user by name in a database", "db.execute('select * from users where name = ?', (name,))", "db.execute('select * from users where name = ' + name)"),
    SecurityTask("keeps the password of a user", "store(user, hash_of(password, salt))", "store(user, password)"),
    SecurityTask("lists the files of a folder", "run(['ls', folder])", "run('ls ' + folder, shell=True)"),
    SecurityTask("loads settings from a file", "settings = json.load(file)", "settings = pickle.load(file)"),
    SecurityTask("shows the comment of a user on a page", "page.write(escape(comment))", "page.write(comment)"),
    SecurityTask("fetches a page from the web", "get(url, verify=True, timeout=10)", "get(url, verify=False)"),
    SecurityTask("makes a secret token", "token = secrets.token_hex(16)", "token = str(random.random())"),
    SecurityTask("opens a file that a user names", "open(folder / safe_name(name))", "open(folder + name)"),
    SecurityTask("compares a token with a secret", "compare_digest(token, secret)", "token == secret or debug"),
    SecurityTask("gives a file to its owner alone", "os.chmod(path, 0o600)", "os.chmod(path, 0o777)"),
    SecurityTask("reads the key of a service", "key = os.environ['KEY']", "key = 'abc123'"),
)  # fmt: skip

SECURITY_REQUEST_TEMPLATES = (
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


def code_block(line: str) -> str:
    """A Markdown code block of Python."""
    return f"```python\n{line}\n```"
