"""What an architecture does to its logits around the LM head: a scale, and a soft cap."""

from typing import Any, NamedTuple

from torch import Tensor

_MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""Settings that multiply logits: Cohere, Falcon-H1, Muse."""
_DIVISORS = ("logits_scaling",)
"""Settings that divide logits: Granite, MiniCPM 3."""
_SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Settings that bound logits: Gemma, nanochat; RecurrentGemma."""


class LogitTransform(NamedTuple):
    """Logits are softcap * tanh(W (scale * hidden) / softcap), or without a cap W (scale * hidden).

    Where transformers scales the logits instead of the hidden states, the head has no bias, so that
    both are the same.
    """

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def from_config(cls, config: Any) -> "LogitTransform":
        """The transform that the config of a causal LM asks for."""
        text = config.get_text_config()
        scale = 1.0
        for name in _MULTIPLIERS:
            scale *= getattr(text, name, None) or 1.0
        for name in _DIVISORS:
            scale /= getattr(text, name, None) or 1.0
        caps = [cap for name in _SOFT_CAPS if (cap := getattr(text, name, None))]
        return cls(scale, caps[0] if caps else None)

    def scale_hidden(self, hidden: Tensor) -> Tensor:
        """The hidden states [..., H] that enter the LM head."""
        return hidden if self.scale == 1.0 else hidden * self.scale

    def cap(self, logits: Tensor) -> Tensor:
        """Soft-caps logits [..., V], in place."""
        return soft_cap(logits, self.softcap)


def soft_cap(logits: Tensor, softcap: float | None) -> Tensor:
    """softcap * tanh(logits / softcap), in place; the logits as they are where there is no cap."""
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def soft_cap_slope(capped: Tensor, softcap: float) -> Tensor:
    """The derivative of `soft_cap` where it gave `capped`: 1 - (capped / softcap)^2."""
    return capped.div(softcap).square_().neg_().add_(1)
