"""Serving: a model is asked by the same prompts as in training and evaluation."""

import copy
from contextlib import ExitStack
from pathlib import Path

from tests import tiny
from zephyr.model.load import Lineage, load_model
from zephyr.records import Message
from zephyr.tutor.serving import load_served_models

TEMPLATE = (
    "{{ 'On ' + strftime_now('%Y-%m-%d') + '\\n' }}{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<think>\\n' }}"
    "{% if not enable_thinking | default(true) %}{{ '</think>' }}{% endif %}{% endif %}"
)


def test_served_models_think_as_their_recipe_says(tmp_path: Path) -> None:
    """Two models of one folder, one of which thinks."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = TEMPLATE
    tiny.qwen2().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lineages = {
        "plain": Lineage(str(tmp_path)),
        "thinking": Lineage(str(tmp_path), thinking="on"),
    }
    serving = load_served_models(
        lineages, dict.fromkeys(lineages, "tiny"), tmp_path, batch=2, queue=2
    )
    with ExitStack() as stack:
        stack.callback(serving.scheduler.shutdown)
        for name, end in (("plain", "Why?<think>\n</think>"), ("thinking", "Why?<think>\n")):
            messages = [Message("user", "Why?")]
            request = serving.models[name].make_request(messages)
            assert tokenizer.decode(request.prompt) == f"On 2024-07-26\n{end}"
            model = load_model(lineages[name], tmp_path, token_budget=256)
            assert request.prompt.tolist() == model.template.encode_prompt(messages).tolist()
