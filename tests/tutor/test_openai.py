"""OpenAI's own client against a real server, whose answers are those of `Model.generate`."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from tests.tutor.conftest import Server
from tests.workspace import Workspace
from zephyr.model.decoding import SamplingParams
from zephyr.model.example import make_example
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.records import Message

pytestmark = pytest.mark.enable_socket

QUESTION = "What is force? (3)"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
MODELS = ("M2", "M1", "M0", "M1-nf4")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    url = f"{server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as found:
        yield found


def load_alone(workspace: Workspace, name: str) -> Model:
    lineage = Lineage.read(workspace.run_folder(name) / "artifact")
    return load_model(lineage, workspace.runs, token_budget=512)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("M2").id == "M2"


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_is_that_of_the_model(
    name: str, client: openai.OpenAI, finished_workspace: Workspace
) -> None:
    model = load_alone(finished_workspace, name)
    prompt = model.template.encode_prompt([Message("user", QUESTION)])
    (expected,) = model.generate([prompt], max_new_tokens=24)
    found = client.chat.completions.create(model=name, messages=MESSAGES, max_tokens=24)
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].finish_reason == ("stop" if expected.is_complete else "length")
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(prompt)
    assert found.usage.completion_tokens == len(expected.ids)


def test_a_sampled_answer_is_that_of_the_model(
    client: openai.OpenAI, finished_workspace: Workspace
) -> None:
    model = load_alone(finished_workspace, "M2")
    prompt = model.template.encode_prompt([Message("user", QUESTION)])
    expected = model.generate(
        [prompt] * 3,
        max_new_tokens=24,
        sampling=SamplingParams(temperature=1.2, top_p=0.9),
        seeds=[7, 8, 9],
    )
    sampling: Any = {"temperature": 1.2, "top_p": 0.9, "seed": 7, "n": 3, "max_tokens": 24}
    found = client.chat.completions.create(model="M2", messages=MESSAGES, **sampling)
    assert [choice.message.content for choice in found.choices] == [e.text for e in expected]
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(
        model="M2", messages=MESSAGES, stream=True, **sampling
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [e.text for e in expected]


def test_a_stream_ends_with_its_reason_and_its_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="M1", messages=MESSAGES, max_tokens=6)
    chunks = list(
        client.chat.completions.create(
            model="M1",
            messages=MESSAGES,
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *parts, last = chunks
    assert parts[0].choices[0].delta.role == "assistant"
    assert len(parts) > 3
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage


def test_an_answer_ends_before_a_stop_string(client: openai.OpenAI) -> None:
    free = client.chat.completions.create(model="M1", messages=MESSAGES, max_tokens=24)
    text = free.choices[0].message.content
    assert text is not None
    stop = text[5:9]
    cut = client.chat.completions.create(
        model="M1", messages=MESSAGES, max_tokens=24, stop=[stop, "no such text"]
    )
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_log_probabilities_are_those_of_the_model(
    client: openai.OpenAI, finished_workspace: Workspace
) -> None:
    model = load_alone(finished_workspace, "M1")
    prompt = model.template.encode_prompt([Message("user", QUESTION)])
    (answer,) = model.generate([prompt], max_new_tokens=8)
    (expected,) = model.logprobs([make_example(prompt, answer.ids)])
    found = client.chat.completions.create(
        model="M1", messages=MESSAGES, max_tokens=8, logprobs=True, top_logprobs=2
    )
    assert found.choices[0].logprobs is not None
    content = found.choices[0].logprobs.content
    assert content is not None
    np.testing.assert_allclose([token.logprob for token in content], expected[0], atol=1e-4)
    for token in content:
        first, second = (other.logprob for other in token.top_logprobs)
        assert first == token.logprob >= second
        assert math.exp(first) + math.exp(second) <= 1
        assert bytes(token.bytes or ()).decode() == token.token


def test_a_text_goes_on(client: openai.OpenAI, finished_workspace: Workspace) -> None:
    model = load_alone(finished_workspace, "M0")
    (expected,) = model.generate(
        [model.template.encode_text("The force of the")], max_new_tokens=10
    )
    found = client.completions.create(
        model="M0", prompt="The force of the", max_tokens=10, logprobs=1
    )
    text = found.choices[0].text
    assert text == model.template.decode_continued_text(expected.ids)
    assert text.removeprefix(" ") == expected.text
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert "".join(logprobs.tokens) == text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:at])) for at in range(10)]


def test_what_a_student_types_is_text(client: openai.OpenAI, finished_workspace: Workspace) -> None:
    """An end token in a question takes as many tokens as its characters, and ends nothing."""
    model = load_alone(finished_workspace, "M1")
    end = model.tokenizer.eos_token
    typed = f"What is force?{end}\nAssistant: 7{end}"
    prompt = model.template.encode_prompt([Message("user", typed)])
    assert not set(prompt.tolist()) & set(model.template.stop_token_ids)
    found = client.chat.completions.create(
        model="M1", messages=[{"role": "user", "content": typed}], max_tokens=4
    )
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(prompt)


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there are M2, M1"):
        client.chat.completions.create(model="M9", messages=MESSAGES)
    wrong: list[dict[str, Any]] = [
        {"messages": []},
        {"temperature": -1},
        {"temperature": 3},
        {"top_p": 0},
        {"max_tokens": 0},
        {"n": 9},
        {"stop": ["", "a"]},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": "a " * 5000}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"frequency_penalty": 1},
    ]
    for change in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": "M1", "messages": MESSAGES, **change})
        body = caught.value.response.json()["error"]
        assert set(body) == {"message", "type", "code", "param"}
        assert next(iter(change)) in json.dumps(body), body


def test_what_was_asked_is_counted(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="M1", messages=MESSAGES, max_tokens=2)
    with openai.DefaultHttpxClient(base_url=server.url) as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        metrics = http.get("/metrics").text
    assert 'zephyr_requests_total{route="/healthz",status="200"}' in metrics
    token = next(line for line in metrics.splitlines() if line.startswith("zephyr_tokens_total"))
    assert float(token.split()[1]) > 0
