"""The Modelfile: its Go template renders what the chat template does."""

import json
import re
from typing import Any

import pytest

from tests import tiny
from tests.export.model_files import add_chatml
from zephyr.errors import ZephyrError
from zephyr.export.ollama import build_modelfile
from zephyr.model import from_scratch
from zephyr.model.template import ChatTemplate

CONVERSATIONS = [
    [("user", "What is 2 + 2?")],
    [("system", "Be kind."), ("user", "Hi {{ .Role }}")],
    [("user", "Hi"), ("assistant", 'It is "4".'), ("user", "Why?\n")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
]


def make_tokenizer() -> Any:
    return from_scratch.train_tokenizer(tiny.TEXT * 5, tiny.VOCAB_SIZE)


# -- Go's template language, as far as it is used -------------------------------------------------


def parse_go_template(text: str) -> list[Any]:
    """Texts, and lists for what stands between range or if and its end."""
    stack: list[list[Any]] = [[]]
    for n, part in enumerate(re.split(r"\{\{ (.*?) \}\}", text)):
        if n % 2 == 0:
            stack[-1].append(("text", part))
        elif part.startswith(("range ", "if ")):
            stack.append([("open", part)])
        elif part == "end":
            block = stack.pop()
            stack[-1].append(block)
        else:
            stack[-1].append(("do", part))
    assert len(stack) == 1
    return stack[0]


def render_go_template(
    nodes: list[Any], messages: list[tuple[str, str]], at: int | None = None
) -> str:
    out = []
    for node in nodes:
        if isinstance(node, list):
            (_, head), *body = node
            if head in ("range .Messages", "range $i, $m := .Messages"):
                out += [render_go_template(body, messages, i) for i in range(len(messages))]
            else:
                out.append(
                    render_go_template(select_branch(head, body, messages, at), messages, at)
                )
        elif node[0] == "text":
            out.append(node[1])
        elif node[1].startswith('"'):
            out.append(json.loads(node[1]))
        else:
            out.append(messages[at or 0][(".Role", ".Content").index(node[1])])
    return "".join(out)


def select_branch(head: str, body: list[Any], messages: Any, at: int | None) -> list[Any]:
    """What stands under the first condition that holds."""
    parts: list[tuple[str, list[Any]]] = [(head, [])]
    for node in body:
        if isinstance(node, tuple) and node[0] == "do" and node[1].startswith("else"):
            parts.append((node[1].removeprefix("else").strip() or "else", []))
        else:
            parts[-1][1].append(node)
    role = messages[at or 0][0]
    for condition, inner in parts:
        if condition == "else":
            return inner
        if found := re.fullmatch(r'if eq \.Role "(\w+)"', condition):
            holds = role == found[1]
        else:
            assert condition == 'if and (eq $i 0) (ne .Role "system")'
            holds = at == 0 and role != "system"
        if holds:
            return inner
    return []


def extract_template(text: str) -> str:
    """The template of a Modelfile."""
    return re.search(r'^TEMPLATE """(.*?)"""$', text, re.DOTALL | re.MULTILINE)[1]  # type: ignore[index]


@pytest.mark.parametrize("form", ["plain", "ChatML"])
def test_the_template_renders_what_the_chat_template_does(form: str) -> None:
    tokenizer = add_chatml(make_tokenizer()) if form == "ChatML" else make_tokenizer()
    modelfile = build_modelfile(ChatTemplate(tokenizer), "m.gguf", 128)
    nodes = parse_go_template(extract_template(modelfile))
    for conversation in CONVERSATIONS:
        if form == "ChatML" and conversation[-1][0] == "assistant":
            continue  # Ollama asks for an answer
        rows = [{"role": role, "content": content} for role, content in conversation]
        expected = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
        assert render_go_template(nodes, conversation) == expected
    if form == "ChatML":
        assert 'You are \\"kind\\" \\u007b\\u007b and' in modelfile


def test_it_names_the_file_and_every_stop() -> None:
    plain_lines = build_modelfile(ChatTemplate(make_tokenizer()), "M2-q8_0.gguf", 128).splitlines()
    assert plain_lines[0] == "FROM ./M2-q8_0.gguf"
    assert [line for line in plain_lines if "stop" in line] == ['PARAMETER stop "<|endoftext|>"']
    chatml_lines = build_modelfile(
        ChatTemplate(add_chatml(make_tokenizer())), "m.gguf", 128
    ).splitlines()
    stops = ['PARAMETER stop "<|endoftext|>"', 'PARAMETER stop "<|im_end|>"']
    assert [line for line in chatml_lines if "stop" in line] == stops


@pytest.mark.parametrize(("context", "num_ctx"), [(512, 512), (32_768, 32_768), (131_072, 32_768)])
def test_the_context_is_that_of_the_model_up_to_a_bound(context: int, num_ctx: int) -> None:
    lines = build_modelfile(ChatTemplate(make_tokenizer()), "m.gguf", context).splitlines()
    assert [line for line in lines if "num_ctx" in line] == [f"PARAMETER num_ctx {num_ctx}"]


def test_chatml_without_a_system_message_of_its_own() -> None:
    tokenizer = add_chatml(make_tokenizer())
    own = re.search(r"\{% if loop.*?\{% endif %\}", tokenizer.chat_template, re.DOTALL)
    assert own is not None
    tokenizer.chat_template = tokenizer.chat_template.replace(own[0], "")
    modelfile = build_modelfile(ChatTemplate(tokenizer), "m.gguf", 128)
    assert "$i 0" not in modelfile
    assert render_go_template(parse_go_template(extract_template(modelfile)), CONVERSATIONS[0]) == (
        "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_other_forms_are_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    with pytest.raises(ZephyrError, match="no template for Ollama is known"):
        build_modelfile(ChatTemplate(tokenizer), "m.gguf", 128)
