"""Gradients against plain full-logits cross-entropy, and against other packings of one batch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests import tiny
from zephyr.model import logprobs
from zephyr.model.batching import collate, pack_batches
from zephyr.model.example import Completion, Example
from zephyr.model.model import Model
from zephyr.recipe.training import Align
from zephyr.train.objectives import PreferenceLoss, TokenLoss


def take_gradients(model: Model) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.causal.named_parameters() if p.grad is not None}
    model.causal.zero_grad()
    return found


def randomly_masked_examples() -> list[Example]:
    rng = np.random.default_rng(1)
    return [
        Example(
            f.prompt,
            tuple(Completion(c.ids, rng.random(len(c.ids)) < 0.6) for c in f.completions),
        )
        for f in tiny.random_examples(count=5)
    ]


def assert_same_gradients(
    a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float
) -> None:
    assert a.keys() == b.keys()
    assert a
    for name, gradient in a.items():
        torch.testing.assert_close(gradient, b[name], atol=atol, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "bloom"])
@pytest.mark.parametrize("chunked", [False, True])
def test_sft_gradient_equals_full_logits_cross_entropy(
    family: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights learn, so the head's (tied to the embedding) is checked too."""
    if chunked:  # 320 tokens of vocabulary, in chunks of 256
        monkeypatch.setattr(logprobs, "MAX_UNCHUNKED_LOGITS", 0)
        monkeypatch.setattr(logprobs, "LOGITS_PER_CHUNK", {"cpu": 1})
    model = tiny.make_model(family)
    model.causal.requires_grad_(True)
    model.causal.eval()  # GPT-2 and BLOOM have dropout
    examples = randomly_masked_examples()
    batch = collate(examples, model.layout)
    terms = TokenLoss().compute_loss(model.network(batch), batch, range(len(examples)))
    (terms.loss / TokenLoss().loss_denominator(examples)).backward()
    ours = take_gradients(model)

    total, count = torch.zeros(()), 0
    for f in examples:
        for c in f.completions:
            input_ids = torch.from_numpy(np.concatenate([f.prompt, c.ids]).astype(np.int64))
            labels = input_ids.clone()
            labels[: len(f.prompt)] = -100
            labels[len(f.prompt) :][torch.from_numpy(~c.loss_mask)] = -100
            logits = model.causal(input_ids[None]).logits[0]
            total = total + cross_entropy(
                logits[:-1], labels[1:], ignore_index=-100, reduction="sum"
            )
            count += int((labels[1:] != -100).sum())
    (total / count).backward()
    assert float(terms.loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert_same_gradients(ours, take_gradients(model), atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("chunked", [False, True])
def test_chunked_gradients_equal_autograds_to_double_precision(
    chunked: bool, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunked:
        monkeypatch.setattr(logprobs, "MAX_UNCHUNKED_LOGITS", 0)
        monkeypatch.setitem(logprobs.LOGITS_PER_CHUNK, "cpu", 1)  # chunks of 256, the least
    torch.manual_seed(0)
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(600, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(600, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 599, 3, 3, 300])
    scale = torch.randn(5)
    plain = hidden @ weight.T + bias
    if softcap:
        plain = softcap * (plain / softcap).tanh()
    plain = plain.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    expected = torch.autograd.grad((plain * scale).sum(), (hidden, weight, bias))
    ours = logprobs.chunked_logprobs(hidden, weight, bias, targets, softcap)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    found = torch.autograd.grad((ours * scale).sum(), (hidden, weight, bias))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def accumulate_gradients(
    model: Model, examples: list[Example], size: int
) -> dict[str, torch.Tensor]:
    loss_denominator = TokenLoss().loss_denominator(examples)
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size], model.layout)
        indices = range(start, start + size)
        (
            TokenLoss().compute_loss(model.network(batch), batch, indices).loss / loss_denominator
        ).backward()
    return take_gradients(model)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_accumulation_1x16_2x8_and_16x1_are_the_same(family: str) -> None:
    model = tiny.make_model(family)
    model.causal.requires_grad_(True)
    model.causal.eval()
    examples = tiny.random_examples(count=16)
    full_batch_gradients = accumulate_gradients(model, examples, 16)
    for size in (8, 1):
        assert_same_gradients(
            full_batch_gradients, accumulate_gradients(model, examples, size), atol=1e-5
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "dpo"},
        {"loss": "dpo", "length_normalized": True, "label_smoothing": 0.1, "sft_weight": 0.5},
        {"loss": "ipo"},
        {"loss": "simpo", "gamma": 0.5},
        {"loss": "orpo"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_preferences_do_not_depend_on_the_packing(settings: dict[str, Any]) -> None:
    model = tiny.make_model("qwen2")
    model.causal.requires_grad_(True)
    rng = np.random.default_rng(0)
    examples = [f for f in tiny.random_examples(count=40) if len(f.completions) == 2]
    assert len(examples) > 5
    spec = Align(data="d", **settings)
    reference_free = not spec.has_reference
    reference = (
        None if reference_free else rng.normal(-30, 5, (len(examples), 2)).astype(np.float32)
    )
    objective = PreferenceLoss(spec, reference)

    def loss_and_gradients(budget: int) -> tuple[float, dict[str, torch.Tensor]]:
        loss = 0.0
        for indices in pack_batches(examples, budget, model.layout):
            batch = collate([examples[i] for i in indices], model.layout)
            terms = objective.compute_loss(model.network(batch), batch, indices)
            (terms.loss / objective.loss_denominator(examples)).backward()
            loss += float(terms.loss.detach())
        return loss, take_gradients(model)

    loss, one_batch_gradients = loss_and_gradients(10_000)
    for budget in (1, 100):
        other_loss, gradients = loss_and_gradients(budget)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert_same_gradients(one_batch_gradients, gradients, atol=1e-4)
    if settings == {"loss": "dpo"}:
        sums = np.array([[s.sum() for s in sides] for sides in model.logprobs(examples)])
        ratio = 0.1 * ((sums - reference) @ [1, -1])
        assert loss == pytest.approx(np.log1p(np.exp(-ratio)).sum(), rel=1e-4)
