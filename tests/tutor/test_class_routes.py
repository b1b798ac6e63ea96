"""The routes of a class, asked as its page does, of two tiny models."""

import asyncio
import csv
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tutor.class_client import QUIZ, TOKEN, ClassClient, open_class
from zephyr.data.quiz_format import format_quiz
from zephyr.model.decoding import SamplingParams
from zephyr.model.example import make_example
from zephyr.records import Message
from zephyr.tutor import class_routes as routes
from zephyr.tutor.events import EventLog
from zephyr.tutor.pair_sampler import PairSampler
from zephyr.tutor.settings import DEFAULT_HINTS

QUESTION = "What is 2 + 2?"
QUESTION_MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClassClient]:
    with open_class(tmp_path_factory.mktemp("class")) as found:
        yield found


def generate_alone(
    client: ClassClient, name: str, messages: list[Message], tokens: int = 12
) -> str:
    """What a model answers by itself."""
    model = client.classroom.serving.models[name].model
    (answer,) = model.generate([model.template.encode_prompt(messages)], max_new_tokens=tokens)
    return answer.text


def run_comparison(
    client: ClassClient, session: str, **more: Any
) -> tuple[dict[str, str], dict[str, str], str]:
    """Texts and endings of both sides, and the id of the comparison."""
    events = client.stream("/tutor/compare", session=session, messages=QUESTION_MESSAGES, **more)
    texts, ended = {"A": "", "B": ""}, {}
    for event in events[:-1]:
        texts[event["side"]] += event.get("text", "")
        if "ended" in event:
            ended[event["side"]] = event["ended"]
    assert set(events[-1]) == {"comparison"}
    return texts, ended, events[-1]["comparison"]


# -- config and sessions --------------------------------------------------------------------------


def test_the_config_says_what_the_page_offers(shared_client: ClassClient) -> None:
    assert shared_client.get("/tutor/config") == {
        "course": "Course",
        "needs_password": False,
        "models": [{"id": "M1", "about": "about M1"}, {"id": "M2", "about": "about M2"}],
        "ways": ["ask", "compare", "quiz", "hint"],
        "hints": [step.name for step in DEFAULT_HINTS],
        "limits": {"message": 60, "tokens": 12},
        "kept": "What you compare, your votes, ratings and quiz answers are kept for 90 days under "
        "a random number, without your name; your other questions are only counted.",
        "system": False,
    }


def test_without_the_password_only_the_courses_name_is_sent(tmp_path: Path) -> None:
    with open_class(tmp_path, {"course": "Mechanics"}, password="open sesame") as client:
        assert client.get("/tutor/config") == {"course": "Mechanics", "needs_password": True}
        assert client.post("/tutor/session", 401)["code"] == "no_password"
        client.http.headers["Authorization"] = "Bearer open sesame"
        assert client.get("/tutor/config")["ways"][0] == "ask"
        client.session()
        assert client.get("/teacher/summary", 401)["code"] == "wrong_password"
        client.http.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get("/teacher/summary")["course"] == "Mechanics"


def test_ways_that_are_not_possible_are_not_offered(tmp_path: Path) -> None:
    with open_class(tmp_path, names=("M1",), quiz=[]) as client:
        assert client.get("/tutor/config")["ways"] == ["ask", "hint"]
        session = client.session()
        refused = client.post("/tutor/compare", 403, session=session, messages=QUESTION_MESSAGES)
        assert refused["code"] == "not_a_way"
        assert client.get("/tutor/quiz", 403, session=session)["code"] == "not_a_way"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tutor/compare", {"messages": QUESTION_MESSAGES}),
        ("/tutor/vote", {"comparison": "0" * 32, "overall": "A"}),
        ("/tutor/quiz", {"quiz": QUIZ[0].id, "chosen": 0, "model": "M1"}),
        ("/tutor/explain", {"quiz": QUIZ[0].id, "model": "M1"}),
        ("/tutor/ladder", {"model": "M1", "question": "x"}),
        ("/tutor/ladder/" + "0" * 32, {}),
        ("/tutor/rating", {"model": "M1", "question": "x", "answer": "y", "rating": "up"}),
    ],
)
def test_a_session_that_was_not_made_here_is_refused(
    shared_client: ClassClient, path: str, body: dict[str, Any]
) -> None:
    for session in ("0" * 32, "x", "", "A" * 32, "0" * 33):
        assert shared_client.post(path, 400, session=session, **body)["param"] == "session"
    assert shared_client.post(path, 400, **body)["param"] == "session"


def test_a_deleted_session_is_gone_with_all_it_left(shared_client: ClassClient) -> None:
    session, other = shared_client.session(), shared_client.session()
    _, _, comparison = run_comparison(shared_client, session)
    shared_client.post("/tutor/vote", session=session, comparison=comparison, overall="A")
    ladder = shared_client.stream("/tutor/ladder", session=session, model="M1", question="1 + 1?")[
        0
    ]
    deleted = shared_client.parse_response(
        shared_client.http.delete(f"/tutor/session/{session}"), 200
    )
    assert deleted == {"deleted": 4}
    assert session not in {event.session for event in shared_client.events.list_events()}
    again = shared_client.parse_response(
        shared_client.http.delete(f"/tutor/session/{session}"), 400
    )
    assert again["code"] == "unknown_session"
    path = f"/tutor/ladder/{ladder['ladder']}"
    assert shared_client.post(path, 404, session=other)["code"] == "no_such_ladder"


# -- comparing ------------------------------------------------------------------------------------


def test_both_answers_come_without_names_and_are_revealed_by_the_vote(
    shared_client: ClassClient,
) -> None:
    session = shared_client.session()
    texts, ended, comparison = run_comparison(shared_client, session)
    criteria = {"clarity": "AB", "other": "A is shorter"}
    vote_reply = shared_client.post(
        "/tutor/vote", session=session, comparison=comparison, overall="B", criteria=criteria
    )
    assert vote_reply["stored"] is True
    assert sorted(vote_reply["models"].values()) == ["M1", "M2"]
    for side, name in vote_reply["models"].items():
        assert texts[side] == generate_alone(shared_client, name, [Message("user", QUESTION)])
    assert set(ended) == {"A", "B"}
    stored = shared_client.events.find_comparison(comparison)
    assert stored is not None
    assert stored.body["answers"] == texts
    assert stored.body["ended"] == ended
    assert stored.body["models"] == vote_reply["models"]
    assert stored.body["messages"] == [["user", QUESTION]]
    vote = shared_client.events.list_events("vote")[-1]
    assert (vote.key, vote.body) == (comparison, {"overall": "B", "criteria": criteria})


def test_a_stream_names_no_model(shared_client: ClassClient) -> None:
    body = {"session": shared_client.session(), "messages": QUESTION_MESSAGES}
    response = shared_client.http.post("/tutor/compare", json=body)
    assert "M1" not in response.text
    assert "M2" not in response.text
    long = {
        "session": shared_client.session(),
        "messages": [{"role": "user", "content": "a? " * 20}] * 3,
    }
    long["messages"] = [*long["messages"]]
    long["messages"][1] = {"role": "assistant", "content": "b! " * 20}
    refused = shared_client.post("/tutor/compare", 400, **long)
    assert refused["code"] == "not_answerable"
    assert "M1" not in str(refused)
    assert "M2" not in str(refused)


def test_one_vote_for_a_comparison_by_who_asked(shared_client: ClassClient) -> None:
    session, other = shared_client.session(), shared_client.session()
    _, _, comparison = run_comparison(shared_client, session)
    foreign = shared_client.post(
        "/tutor/vote", 404, session=other, comparison=comparison, overall="A"
    )
    assert foreign["code"] == "no_such_comparison"
    shared_client.post("/tutor/vote", session=session, comparison=comparison, overall="AB")
    again = shared_client.post(
        "/tutor/vote", 409, session=session, comparison=comparison, overall="A"
    )
    assert again["code"] == "already_voted"
    for wrong in ({"overall": "C"}, {"overall": "A", "criteria": {"beauty": "A"}}, {}):
        shared_client.post("/tutor/vote", 400, session=session, comparison=comparison, **wrong)


def test_identical_answers_are_not_put_to_the_vote(
    shared_client: ClassClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models are named at once; the comparison counts as questions, and in no win rate."""
    monkeypatch.setattr(PairSampler, "sample", lambda self: ("M1", "M1"))
    session = shared_client.session()
    events = shared_client.stream("/tutor/compare", session=session, messages=QUESTION_MESSAGES)
    comparison = events[-1].pop("comparison")
    assert events[-1] == {"identical": True, "models": {"A": "M1", "B": "M1"}}
    refused = shared_client.post(
        "/tutor/vote", 409, session=session, comparison=comparison, overall="A"
    )
    assert refused["code"] == "identical_answers"


def test_a_vote_may_come_after_the_server_has_started_again(tmp_path: Path) -> None:
    with open_class(tmp_path) as client:
        session = client.session()
        _, _, comparison = run_comparison(client, session)
    with open_class(tmp_path) as client:
        vote_reply = client.post("/tutor/vote", session=session, comparison=comparison, overall="A")
        assert sorted(vote_reply["models"].values()) == ["M1", "M2"]


def test_all_pairs_are_shown_equally_often_on_both_sides(tmp_path: Path) -> None:
    with open_class(tmp_path, {"limits": {"tokens": 1}}, names=("M1", "M2", "M3")) as client:
        session = client.session()
        for _ in range(4):
            run_comparison(client, session)
    with open_class(tmp_path, {"limits": {"tokens": 1}}, names=("M1", "M2", "M3")) as client:
        for _ in range(20):
            run_comparison(client, session)
        shown = [event.body["models"] for event in client.events.list_events("comparison")]
    pairs = Counter(frozenset(models.values()) for models in shown)
    assert sorted(pairs.values()) == [8, 8, 8]
    firsts = Counter(models["A"] for models in shown)
    assert len(firsts) == 3  # 24 draws without one of them on side A: once in 10^5


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "messages"),
        ([{"role": "user", "content": " "}], "messages"),
        ([{"role": "assistant", "content": "a"}], "the first turn is the assistant's"),
        ([*QUESTION_MESSAGES, *QUESTION_MESSAGES], "two turns of the user in a row"),
        ([{"role": "tool", "content": "a"}], "role"),
        ([{"role": "user", "content": "a", "name": "b"}], "name"),
        ([{"role": "user", "content": 3}], "content"),
        ([{"role": "user", "content": "a" * 61}], "at most 60"),
        ([{"role": "user", "content": "half \ud83d"}], "content"),
    ],
)
def test_what_is_no_conversation_is_refused(
    shared_client: ClassClient, messages: list[Any], expected: str
) -> None:
    refused = shared_client.post(
        "/tutor/compare", 400, session=shared_client.session(), messages=messages
    )
    assert expected in str(refused)


def test_a_full_queue_takes_neither_side(tmp_path: Path) -> None:
    with open_class(tmp_path, queue=1) as client:
        session = client.session()
        response = client.http.post(
            "/tutor/compare", json={"session": session, "messages": QUESTION_MESSAGES}
        )
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0
        assert client.classroom.serving.scheduler.stats[:2] == (0, 0)
        assert client.events.list_events("comparison") == []


def test_the_courses_system_message_stands_before_all(tmp_path: Path) -> None:
    system = "Be brief."
    with open_class(tmp_path, {"system": system, "limits": {"tokens": 12}}) as client:
        assert client.get("/tutor/config")["system"] is True
        session = client.session()
        texts, _, comparison = run_comparison(client, session)
        stored = client.events.find_comparison(comparison)
        assert stored is not None
        assert stored.body["messages"] == [["user", QUESTION]]
        assert stored.body["system"] == system
        for side, name in stored.body["models"].items():
            messages = [Message("system", system), Message("user", QUESTION)]
            assert texts[side] == generate_alone(client, name, messages)
        own = [{"role": "system", "content": "Swear."}, *QUESTION_MESSAGES]
        client.post("/tutor/compare", 400, session=session, messages=own)


def test_at_a_temperature_answers_differ(tmp_path: Path) -> None:
    with open_class(tmp_path, {"temperature": 2, "limits": {"tokens": 12}}) as client:
        session = client.session()
        answers = set()
        for _ in range(3):
            texts, _, comparison = run_comparison(client, session)
            stored = client.events.find_comparison(comparison)
            assert stored is not None
            answers |= {(stored.body["models"][side], text) for side, text in texts.items()}
        assert len(answers) == 6
        served = client.classroom.serving.models["M1"]
        request = asyncio.run(client.classroom.make_request(served, [Message("user", "?")]))
        assert request.sampling == SamplingParams(2.0)


# -- the quiz -------------------------------------------------------------------------------------


def test_a_session_is_asked_every_question_once(shared_client: ClassClient) -> None:
    session = shared_client.session()
    quiz_ids = []
    for number in range(1, len(QUIZ) + 1):
        quiz = shared_client.get("/tutor/quiz", session=session)
        assert quiz == shared_client.get("/tutor/quiz", session=session)  # until it is answered
        assert (quiz["number"], quiz["of"]) == (number, len(QUIZ))
        choice = next(c for c in QUIZ if c.id == quiz["quiz"])
        assert (quiz["subject"], quiz["question"]) == (choice.subject, choice.text)
        assert quiz["options"] == list(choice.choices)
        quiz_ids.append(quiz["quiz"])
        body = {"session": session, "quiz": quiz["quiz"], "model": "M1"}
        early = shared_client.post("/tutor/explain", 409, **body)
        assert early["code"] == "not_answered"
        result = shared_client.post("/tutor/quiz", chosen=number % 3, **body)
        assert result["answer"] == 0
        assert result["right"] == (number % 3 == 0)
        again = shared_client.post("/tutor/quiz", 409, chosen=0, **body)
        assert again["code"] == "already_answered"
    assert sorted(quiz_ids) == sorted(choice.id for choice in QUIZ)
    assert shared_client.get("/tutor/quiz", 404, session=session)["code"] == "no_more_quizzes"


def test_the_models_probabilities_are_those_of_its_letters(shared_client: ClassClient) -> None:
    session = shared_client.session()
    quiz = QUIZ[2]
    found = shared_client.post("/tutor/quiz", session=session, quiz=quiz.id, chosen=2, model="M2")
    model = shared_client.classroom.serving.models["M2"].model
    prompt = model.template.encode_prompt([Message("user", format_quiz(quiz))])
    weights = []
    for letter in "ABC":
        (ids,) = model.template.encode_answers([letter])
        weights.append(float(model.logprobs([make_example(prompt, ids)])[0][0].sum()))
    expected = np.exp(weights) / np.exp(weights).sum()
    np.testing.assert_allclose(found["model"]["probabilities"], expected, atol=1e-5)
    assert found["model"]["chosen"] == int(expected.argmax())
    assert sum(found["model"]["probabilities"]) == pytest.approx(1)
    event = shared_client.events.list_events("quiz")[-1]
    assert (event.model, event.key) == ("M2", quiz.id)
    assert event.body["chosen"] == 2
    assert event.body["model_chosen"] == found["model"]["chosen"]


def test_an_explanation_follows_the_answer(shared_client: ClassClient) -> None:
    session = shared_client.session()
    body = {"session": session, "quiz": QUIZ[0].id, "model": "M1"}
    shared_client.post("/tutor/quiz", chosen=1, **body)
    *chunks, ended, marked = shared_client.stream("/tutor/explain", **body)
    text = "".join(chunk["text"] for chunk in chunks)
    messages = [
        Message("user", format_quiz(QUIZ[0])),
        Message("assistant", "A"),
        Message("user", "Why is that the right answer? Explain it in a few sentences."),
    ]
    assert text == generate_alone(shared_client, "M1", messages)
    assert ended["ended"] in ("stop", "length")
    assert set(marked) == {"marks"}
    event = shared_client.events.list_events("question")[-1]
    assert event.body == {"way": "explain", "ended": ended["ended"]}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"quiz": "0" * 16, "chosen": 0, "model": "M1"}, 404, "quiz"),
        ({"quiz": QUIZ[0].id, "chosen": 3, "model": "M1"}, 400, "chosen"),
        ({"quiz": QUIZ[0].id, "chosen": -1, "model": "M1"}, 400, "chosen"),
        ({"quiz": QUIZ[0].id, "chosen": True, "model": "M1"}, 400, "chosen"),
        ({"quiz": QUIZ[0].id, "chosen": "0", "model": "M1"}, 400, "chosen"),
        ({"quiz": QUIZ[0].id, "chosen": 0, "model": "M9"}, 404, "model"),
    ],
)
def test_wrong_answers_of_the_form_are_refused(
    shared_client: ClassClient, body: dict[str, Any], status: int, param: str
) -> None:
    refused = shared_client.post("/tutor/quiz", status, session=shared_client.session(), **body)
    assert refused["param"] == param


# -- hints ----------------------------------------------------------------------------------------


def test_a_ladder_is_climbed_step_by_step(shared_client: ClassClient) -> None:
    session = shared_client.session()
    path, body = "/tutor/ladder", {"model": "M1", "question": "3 + 4?"}
    turns: list[Message] = []
    for number, step in enumerate(DEFAULT_HINTS):
        first, *chunks, ended, marked = shared_client.stream(path, session=session, **body)
        assert first == {"ladder": first["ladder"], "step": number, "steps": 4, "name": step.name}
        text = "".join(chunk["text"] for chunk in chunks)
        content = step.ask if turns else f"3 + 4?\n\n{step.ask}"
        turns.append(Message("user", content))
        served_model = shared_client.classroom.serving.models["M1"]
        while (
            len(served_model.template.encode_prompt(turns)) > served_model.context_length // 2
            and len(turns) > 1
        ):
            turns = turns[2:]
            turns[0] = Message("user", f"3 + 4?\n\n{turns[0].content}")
        assert text == generate_alone(shared_client, "M1", turns)
        turns.append(Message("assistant", text))
        assert ended["ended"] in ("stop", "length")
        assert set(marked) == {"marks"}
        path, body = f"/tutor/ladder/{first['ladder']}", {}
        event = shared_client.events.list_events("ladder")[-1]
        assert event.key == first["ladder"]
        assert event.body == {"step": number, "name": step.name, "ended": ended["ended"]}
    assert shared_client.post(path, 409, session=session)["code"] == "ladder_done"
    other = shared_client.session()
    assert shared_client.post(path, 404, session=other)["code"] == "no_such_ladder"


def test_a_question_that_is_too_long_begins_no_ladder(shared_client: ClassClient) -> None:
    session = shared_client.session()
    refused = shared_client.post(
        "/tutor/ladder", 400, session=session, model="M1", question="a" * 61
    )
    assert (refused["code"], refused["param"]) == ("message_too_long", "question")


# -- ratings and marks ----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_texts_are_kept_where_the_teacher_keeps_them(tmp_path: Path, kept: bool) -> None:
    settings = {"logs": {"messages": kept}, "limits": {"tokens": 4}}
    with open_class(tmp_path, settings) as client:
        session = client.session()
        body = {"model": "M1", "question": "a secret question", "answer": "a secret answer"}
        stored = client.post("/tutor/rating", session=session, rating="down", **body)
        assert stored == {"stored": True}
        client.stream("/tutor/ladder", session=session, model="M1", question="a secret ladder")
        messages = [{"role": "user", "content": "a secret"}]
        client.post("/v1/chat/completions", model="M1", messages=messages)
        client.stream("/v1/chat/completions", model="M1", messages=messages, stream=True)
        stored_text = str([event.body for event in client.events.list_events()])
        assert ("secret" in stored_text) is kept
        assert client.events.list_events("rating")[0].body["rating"] == "down"
        question_events = [event.body for event in client.events.list_events("question")]
        assert [(c["way"], c["turns"], c["characters"]) for c in question_events] == [
            ("ask", 1, 8)
        ] * 2
        if kept:
            assert question_events[0] == question_events[1]  # at temperature 0
            assert question_events[0]["messages"] == [["user", "a secret"]]
            assert question_events[0]["answers"] == [
                generate_alone(client, "M1", [Message("user", "a secret")], 4)
            ]


def test_a_question_is_its_sessions_where_the_user_is_one(tmp_path: Path) -> None:
    with open_class(tmp_path, {"logs": {"messages": True}, "limits": {"tokens": 2}}) as client:
        session = client.session()
        messages = [{"role": "user", "content": "a secret"}]
        for user in (session, "somebody else", None):
            client.post("/v1/chat/completions", model="M1", messages=messages, user=user)
        events = client.events.list_events("question")
        assert [event.session for event in events] == [session, None, None]
        client.parse_response(client.http.delete(f"/tutor/session/{session}"), 200)
        assert [event.id for event in client.events.list_events()] == [
            event.id for event in events[1:]
        ]


def test_wrong_equations_are_marked(shared_client: ClassClient) -> None:
    found = shared_client.post("/tutor/marks", text="🙂 2 + 2 = 5")
    assert found == {"marks": [{"text": "2 + 2 = 5", "start": 3, "end": 12}]}
    assert shared_client.post("/tutor/marks", text="") == {"marks": []}
    assert shared_client.post("/tutor/marks", 400, text="a" * 61)["param"] == "text"
    assert shared_client.post("/tutor/marks", 400, text="a\ud83d")["param"] == "text"


# -- readers that leave ----------------------------------------------------------------------------


async def disconnect_early(
    client: ClassClient, path: str, body: dict[str, Any], after: int
) -> list[bytes]:
    """Asks as a server does for a browser that goes away after so many parts of the answer."""
    sent: list[bytes] = []
    gone = asyncio.Event()
    body_sent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not body_sent.is_set():
            body_sent.set()
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if len(sent) > after:
            gone.set()
            await asyncio.sleep(0)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await client.http.app(scope, receive, send)
    return sent


def becomes_idle(client: ClassClient) -> bool:
    """Whether nothing is answered any more, soon."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if client.classroom.serving.scheduler.stats[:2] == (0, 0):
            return True
        time.sleep(0.01)
    return False


def test_a_client_that_disconnects_frees_its_slot_and_stores_nothing(tmp_path: Path) -> None:
    with open_class(tmp_path, {"limits": {"tokens": 100}, "temperature": 2}) as client:
        session = client.session()
        body = {"session": session, "messages": QUESTION_MESSAGES}
        before = client.classroom.serving.scheduler.stats.generated_tokens
        sent = asyncio.run(disconnect_early(client, "/tutor/compare", body, after=3))
        assert 3 < len(sent) < 20
        assert becomes_idle(client)
        assert client.classroom.serving.scheduler.stats.generated_tokens - before < 120
        assert [event.kind for event in client.events.list_events()] == ["session"]


def test_a_step_that_broke_off_is_given_again(tmp_path: Path) -> None:
    with open_class(tmp_path, {"limits": {"tokens": 60}}) as client:
        session = client.session()
        body = {"session": session, "model": "M1", "question": "1 + 1?"}
        sent = asyncio.run(disconnect_early(client, "/tutor/ladder", body, after=2))
        first = json.loads(sent[1].removeprefix(b"data: "))
        assert becomes_idle(client)
        again = client.stream(f"/tutor/ladder/{first['ladder']}", session=session)
        assert again[0] == first
        assert again[0]["step"] == 0
        assert [event.body["step"] for event in client.events.list_events("ladder")] == [0]


def test_no_step_is_skipped_by_asking_twice_at_once(tmp_path: Path) -> None:
    with open_class(tmp_path, {"limits": {"tokens": 40}}) as client:
        session = client.session()
        ladder = client.stream("/tutor/ladder", session=session, model="M1", question="1 + 1?")[0]
        path, body = f"/tutor/ladder/{ladder['ladder']}", {"session": session}

        async def both() -> list[list[bytes]]:
            requests = [disconnect_early(client, path, body, after=10**6) for _ in range(3)]
            return list(await asyncio.gather(*requests))

        streams = [b"".join(sent) for sent in asyncio.run(both())]
        assert sum(b"climbing" in sent for sent in streams) == 2
        assert [event.body["step"] for event in client.events.list_events("ladder")] == [0, 1]


# -- what can't be stored -------------------------------------------------------------------------


def test_nothing_is_acknowledged_that_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_class(tmp_path) as client:
        session = client.session()
        _, _, comparison = run_comparison(client, session)
        events = client.events
        events._connection.execute("PRAGMA query_only = ON")  # as on a full disk
        refused = client.post(
            "/tutor/vote", 503, session=session, comparison=comparison, overall="A"
        )
        assert refused["code"] == "not_stored"
        assert str(tmp_path) not in str(refused)
        stream = client.stream("/tutor/compare", session=session, messages=QUESTION_MESSAGES)
        assert stream[-1]["error"]["code"] == "not_stored"
        events._connection.execute("PRAGMA query_only = OFF")
        client.post("/tutor/vote", session=session, comparison=comparison, overall="A")
        assert len(events.list_events("vote")) == 1


def test_what_is_old_is_removed_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = datetime.now(UTC) - timedelta(days=91)
    old = EventLog(tmp_path / "tutor.sqlite", now=lambda: past)
    old.new_session()
    old.close()
    monkeypatch.setattr(routes, "CLEANUP_INTERVAL_SECONDS", 0.05)
    with open_class(tmp_path) as client:
        assert len(client.events.list_events()) == 1
        end = time.monotonic() + 5
        while client.events.list_events() and time.monotonic() < end:
            time.sleep(0.01)
        assert client.events.list_events() == []


# -- the teacher ----------------------------------------------------------------------------------


def test_the_teacher_sees_figures_and_no_session(tmp_path: Path) -> None:
    with open_class(tmp_path) as client:
        session = client.session()
        _, _, comparison = run_comparison(client, session)
        client.post("/tutor/vote", session=session, comparison=comparison, overall="A")
        assert client.get("/teacher/summary", 401)["code"] == "no_password"
        client.http.headers["Authorization"] = f"Bearer {TOKEN}"
        address = client.get("/teacher/address")
        assert address["url"] == str(client.http.base_url.join("/"))
        assert address["qr"].startswith("data:image/svg+xml")
        figures = client.get("/teacher/summary")
        assert (figures["votes"], figures["sessions"]) == (1, 1)
        preferences = client.http.get("/teacher/preferences.json")
        assert preferences.json()[0]["question_complete"] == QUESTION
        table = client.http.get("/teacher/events.csv")
        assert table.headers["content-type"].startswith("text/csv")
        assert table.content.startswith(b"\xef\xbb\xbf")  # for Excel
        lines = table.content.decode("utf-8-sig").splitlines()
        assert lines[0] == "id,time,session,kind,model,key,body"
        assert [line.split(",")[2:4] for line in lines[1:]] == [
            ["1", "session"],
            ["1", "comparison"],
            ["1", "vote"],
        ]
        for text in (str(figures), preferences.text, table.text):
            assert session not in text


def test_no_text_of_a_student_begins_a_cell(tmp_path: Path) -> None:
    evil = ["=1+1", "+1", "-1", "@SUM(1)", ";=1+1", 'a";"=HYPERLINK(1);', "a\t=1\n=2\r=3", "\\;=1"]
    with open_class(tmp_path, {"logs": {"messages": True}}) as client:
        session = client.session()
        for text in evil:
            body = {"model": "M1", "question": text, "answer": text, "rating": "up"}
            client.post("/tutor/rating", session=session, **body)
        client.http.headers["Authorization"] = f"Bearer {TOKEN}"
        text = client.http.get("/teacher/events.csv").content.decode("utf-8-sig")
        for separator in (",", ";"):  # as Excel opens it, by its language
            for row in csv.reader(io.StringIO(text), delimiter=separator):
                assert not [cell for cell in row if cell.strip()[:1] in ("=", "+", "-", "@")]
        rows = list(csv.DictReader(io.StringIO(text)))
        found = [json.loads(row["body"])["question"] for row in rows if row["kind"] == "rating"]
        assert found == evil
        assert client.get("/teacher/summary")["ratings"] == {"M1": {"up": len(evil), "down": 0}}


def test_an_answer_is_rated_once_by_a_session(tmp_path: Path) -> None:
    with open_class(tmp_path) as client:
        first, second = client.session(), client.session()

        def rate(session: str, rating: str, answer: str = "Work.") -> None:
            body = {"model": "M1", "question": "What is heat?", "answer": answer}
            reply = client.post("/tutor/rating", session=session, rating=rating, **body)
            assert reply == {"stored": True}

        for rating in ["up"] * 5 + ["down"]:
            rate(first, rating)
        rate(second, "up")
        rate(second, "up", "Energy.")
        assert len(client.events.list_events("rating")) == 4
        assert "Work" not in str(client.events.list_events("rating"))
        client.http.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get("/teacher/summary")["ratings"] == {"M1": {"up": 2, "down": 1}}
