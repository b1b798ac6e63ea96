"""Neutral fields of requests: fields of other servers, with values that ask for nothing.

Clients send `tools: []`, `store: false` or `logit_bias: {}` whether they are used or not. Such a
field is accepted; with a value that asks for something that can't be done, it is refused.
"""

from collections.abc import Mapping
from typing import Any

REQUEST_LABELS = frozenset(
    {
        *("id", "request_id", "session_id", "chat_id", "metadata", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "cache_prompt"),
    }
)
"""Fields of a request that never change an answer: names, and hints to caches."""

MESSAGE_LABELS = frozenset(
    {
        *("id", "model", "created", "created_at", "createdAt", "timestamp", "metadata"),
        *("cache_control", "reasoning", "reasoning_content", "reasoning_details"),
    }
)
"""Fields of a message that never change an answer: names, times, hints to caches, and the thoughts
of an earlier answer, which chat templates leave out of the prompt."""

NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "effort": ("none",),
    "verbosity": ("medium",),
    "truncation": ("disabled",),
    "thinking": ({"type": "disabled"},),
    "best_of": (1,),
    "top_k": (-1,),
    "typical_p": (1,),
    "repetition_penalty": (1,),
    "repeat_penalty": (1,),
    "length_penalty": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_generation_prompt": (True,),
}
"""Values that ask for nothing beside the empty ones, by field: mostly OpenAI's and vLLM's."""

EMPTY_ASKS = frozenset({"web_search_options", "skip_special_tokens", "add_generation_prompt"})
"""Fields whose empty value asks for something: OpenAI searches the web for `{}`."""


def is_neutral(name: str, value: Any, *, nested: bool = False) -> bool:
    """Whether a field that is not in the schema asks for nothing; an object by all of its own."""
    if value is None or value in NEUTRAL_VALUES.get(name, ()):
        return True
    if name in EMPTY_ASKS:
        return False
    if isinstance(value, dict) and not nested:
        return all(is_neutral(key, part, nested=True) for key, part in value.items())
    return value in (False, 0, "", [], {})
