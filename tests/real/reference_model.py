"""Reference scores: one option, one window, one forward pass of transformers at a time.

No batch, no KV cache, no shared prefix, and nothing of Zephyr. The rules are those that the
protocols name: lm-evaluation-harness for options, GPTQ for windows.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

WINDOW = 2048


class ReferenceModel:
    """A network in float32 with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)  # by tokenizer.json
        self.network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.network.eval()
        self.context = int(self.network.config.max_position_embeddings)

    @torch.inference_mode()
    def logprobs(self, tokens: list[int]) -> list[float]:
        """The log-probability of each token but the first, after all before it."""
        logits = self.network(torch.tensor([tokens[:-1]])).logits[0].double()
        values = logits.log_softmax(dim=-1)
        return [float(values[at, token]) for at, token in enumerate(tokens[1:])]

    def option_logprob(self, text: str, option: str) -> float | None:
        """The summed log-probability of a blank and `option` after `text`; None without tokens."""
        blanks = len(text) - len(text.rstrip())
        before, after = text[: len(text) - blanks], text[len(text) - blanks :] + " " + option
        prompt_ids = self.tokenizer.encode(before)
        option_ids = self.tokenizer.encode(before + after)[len(prompt_ids) :]
        if not option_ids:
            return None
        return sum(
            self.logprobs((prompt_ids + option_ids)[-(self.context + 1) :])[-len(option_ids) :]
        )

    def windows(self, text: str) -> list[list[int]]:
        """The tokens of a text in windows that don't overlap, each after the start token.

        The rest of the text is left out.
        """
        start = [self.tokenizer.bos_token_id]
        assert self.tokenizer.encode("") == start
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        width = min(WINDOW, self.context) - 1
        return [start + tokens[at : at + width] for at in range(0, len(tokens) - width + 1, width)]


def argmax(values: list[float]) -> int:
    """The index of the greatest; of equal ones, of the first."""
    return max(range(len(values)), key=lambda at: (values[at], -at))
