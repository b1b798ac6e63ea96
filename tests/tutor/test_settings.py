"""tutor.yaml: defaults, and what is wrong is said with its file, line and the nearest key."""

from pathlib import Path

import pytest

from zephyr.errors import ZephyrError
from zephyr.tutor.settings import DEFAULT_HINTS, TutorSettings, read_settings

GOOD = """\
course: Mechanics
models: [M1, M2]
system: Answer in two sentences.
ways: [ask, compare]
hints:
  - {name: Hint, ask: Give me a hint.}
  - {name: Answer, ask: Solve it.}
temperature: 0.7
limits: {message: 500, tokens: 64, queue: 8, batch: 4}
quiz: {sources: [arc_easy, {path: quiz.csv}], cap: 20}
logs: {messages: true, keep_days: 30}
database: class.sqlite
origins: ["https://course.example", "http://localhost:5173", "http://[::1]:8080"]
"""


def read_settings_text(tmp_path: Path, text: str) -> TutorSettings:
    path = tmp_path / "tutor.yaml"
    path.write_text(text)
    return read_settings(path)[0]


def test_all_of_it_is_read(tmp_path: Path) -> None:
    tutor = read_settings_text(tmp_path, GOOD)
    assert (tutor.course, tutor.models, tutor.ways) == (
        "Mechanics",
        ("M1", "M2"),
        ("ask", "compare"),
    )
    assert [step.name for step in tutor.hints] == ["Hint", "Answer"]
    assert (tutor.limits.message, tutor.limits.tokens, tutor.limits.queue) == (500, 64, 8)
    assert tutor.quiz.sources is not None
    assert [source.name or source.path for source in tutor.quiz.sources] == ["arc_easy", "quiz.csv"]
    assert (tutor.logs.messages, tutor.logs.keep_days) == (True, 30)
    assert tutor.database_path(tmp_path, Path("store")) == tmp_path / "class.sqlite"
    assert tutor.origins == ("https://course.example", "http://localhost:5173", "http://[::1]:8080")


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "course.example", "https://course.example/", "https://course.example/page",
     "https://*.example", "https://Course.example", "ftp://course.example", "http://a:123456"],
)  # fmt: skip
def test_an_origin_is_written_as_browsers_send_it(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ZephyrError, match="origins"):
        read_settings_text(tmp_path, f"origins: ['{origin}']\n")


def test_nothing_needs_to_be_said() -> None:
    tutor, folder = read_settings(None)
    assert tutor == TutorSettings()
    assert folder == Path.cwd()
    assert tutor.ways == ("ask", "compare", "quiz", "hint")
    assert tutor.hints == DEFAULT_HINTS
    assert (tutor.limits.message, tutor.limits.tokens) == (8_000, 512)
    assert (tutor.limits.queue, tutor.limits.batch) == (64, 16)
    assert (tutor.logs.messages, tutor.logs.keep_days) == (False, 90)
    assert tutor.database_path(folder, Path("store")) == Path("store/tutor.sqlite")


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("course: A\nhint: []", 2, ["unknown key 'hint'", "nearest: hints"]),
        ("limits:\n  mesage: 3", 2, ["unknown key 'limits.mesage'", "nearest: message"]),
        ("logs:\n  messages: false\n  keepdays: 3", 3, ["nearest: keep_days"]),
        ("quiz:\n  sources:\n  - {pth: x}", 3, ["unknown key 'quiz.sources.0.pth'", "path"]),
        ("ways: []", 1, ["ways"]),
        ("ways: [ask, compre]", 1, ["ways.1", "compre"]),
        ("ways: [ask, ask]", 1, ["'ask' stands twice"]),
        ("models: [M1]\nways: [compare]", 1, ["at least two"]),
        ("hints: [{name: one, ask: x}]", 1, ["hints"]),
        ("hints:\n- {name: a, ask: x}\n- {name: b}", 3, ["lacks 'ask'"]),
        ("temperature: 2.1", 1, ["temperature"]),
        ("temperature: .nan", 1, ["temperature"]),
        ("limits: {queue: 0}", 1, ["limits.queue"]),
        ("logs: {keep_days: -1}", 1, ["logs.keep_days"]),
        ("course: ' '", 1, ["course"]),
        ("course: a\ncourse: b", 2, ["stands twice"]),
        ("- a", 1, ["a tutor is a mapping"]),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, line: int, parts: list[str]) -> None:
    with pytest.raises(ZephyrError) as caught:
        read_settings_text(tmp_path, text)
    for part in (f"tutor.yaml:{line}", *parts):
        assert part in str(caught.value)


def test_a_missing_or_empty_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ZephyrError, match="this tutor is not there"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(ZephyrError, match="this tutor is empty"):
        read_settings_text(tmp_path, "# nothing\n")


def test_a_recipe_is_a_file_beside_the_settings_or_a_name(tmp_path: Path) -> None:
    (tmp_path / "mechanics.yaml").write_text("name: mechanics\n")
    tutor = read_settings_text(tmp_path, "recipe: mechanics.yaml\n")
    assert tutor.recipe_argument(tmp_path) == str(tmp_path / "mechanics.yaml")
    assert read_settings_text(tmp_path, "recipe: smollm2\n").recipe_argument(tmp_path) == "smollm2"
    assert TutorSettings().recipe_argument(tmp_path) is None
