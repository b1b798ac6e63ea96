"""TRL as an oracle: its trainers' own losses and gradients on the same rows and network."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from zephyr.evaluate.scoring import run_task
from zephyr.model import adapter
from zephyr.model.batching import collate
from zephyr.model.example import Example
from zephyr.model.model import Model
from zephyr.recipe.evaluation import TaskSpec
from zephyr.recipe.training import Align, Lora
from zephyr.records import Chat, Message, Pair
from zephyr.train.objectives import (
    Objective,
    PairLogprobs,
    PreferenceLoss,
    TokenLoss,
    orpo_loss,
    simpo_loss,
)

pytestmark = [
    # trl.experimental says that it may change, which is why the versions are pinned
    pytest.mark.filterwarnings("ignore:.*trl.experimental:UserWarning"),
]

FAMILIES = ["qwen2", "bloom"]
PAIRS = [
    Pair("p", (Message("user", "What is 2 + 2?"),), "2 + 2 = 4.", "A body moves."),
    Pair("p", (Message("user", "Hint?"),), "Energy is kept.", "No."),
    Pair(
        "p", (Message("user", "A force changes how?"),), "It moves.", "The student asks the tutor."
    ),
]
CHATS = [Chat("c", (*p.prompt, Message("assistant", p.chosen))) for p in PAIRS]


def make_trained_model(family: str) -> Model:
    """A model with a trainable LoRA adapter whose B is not zero."""
    model = tiny.make_model(family)
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(rank=4), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    model.network.eval()  # BLOOM has dropout
    return model


def take_gradients(model: Model) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.causal.named_parameters() if p.grad is not None}
    model.causal.zero_grad()
    return found


def loss_and_stats(
    model: Model, examples: list[Example], objective: Objective
) -> tuple[float, dict[str, float]]:
    """Our mean loss and statistics; leaves gradients in the parameters."""
    batch = collate(examples, model.layout)
    terms = objective.compute_loss(model.network(batch), batch, range(len(examples)))
    loss = terms.loss / objective.loss_denominator(examples)
    loss.backward()
    return float(loss.detach()), {n: v / len(examples) for n, v in terms.stats.items()}


def assert_same_gradients(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert any("lora_A" in name for name in a)
    for name, gradient in a.items():
        assert float(gradient.abs().max()) > 1e-3, "the test would not see a difference"
        torch.testing.assert_close(gradient, b[name], atol=1e-5, rtol=1e-5)


def trainer_settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        **more,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_is_trls(family: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = make_trained_model(family)
    examples = model.template.make_examples(CHATS)
    mine, _ = loss_and_stats(model, examples, TokenLoss())
    expected = take_gradients(model)
    rows = [
        {
            "input_ids": [*f.prompt.tolist(), *c.ids.tolist()],
            "labels": [-100] * len(f.prompt) + c.ids.tolist(),
        }
        for f in examples
        for c in f.completions
    ]
    trainer = SFTTrainer(
        model.peft_model,
        SFTConfig(**trainer_settings(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        processing_class=model.tokenizer,
    )
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    assert mine == pytest.approx(float(loss.detach()), abs=1e-5)
    assert_same_gradients(take_gradients(model), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("loss", "our_settings"),
    [
        ("sigmoid", {}),
        ("sigmoid_norm", {"length_normalized": True}),
        ("ipo", {"loss": "ipo", "length_normalized": True}),
    ],
)
def test_dpo_and_ipo_are_trls(
    family: str, loss: str, our_settings: dict[str, Any], tmp_path: Path
) -> None:
    """TRL's IPO is the length-normalized one; its rewards are summed in every loss."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = make_trained_model(family)
    examples = model.template.make_examples(PAIRS)
    with model.peft_model.disable_adapter():
        base = model.logprobs(examples)
    reference = np.array([[side.sum() for side in sides] for sides in base], dtype=np.float32)
    spec = Align(data="d", beta=1.0, **our_settings)
    mine, stats = loss_and_stats(model, examples, PreferenceLoss(spec, reference))
    expected = take_gradients(model)
    rows = [
        {"prompt_ids": f.prompt.tolist()}
        | {f"{side}_ids": c.ids.tolist() for side, c in zip(SIDES, f.completions, strict=True)}
        for f in examples
    ]
    text = {"prompt": "a", "chosen": "b", "rejected": "c"}
    trainer = DPOTrainer(
        model.peft_model,
        ref_model=tiny.make_model(family).causal,
        args=DPOConfig(**trainer_settings(tmp_path, loss_type=loss, beta=1.0)),
        train_dataset=Dataset.from_list([text]),
        processing_class=model.tokenizer,
    )
    found = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    found.backward()
    assert mine == pytest.approx(float(found.detach()), abs=1e-5)
    assert_same_gradients(take_gradients(model), expected)
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert stats["chosen_logprob"] == pytest.approx(logged["logps/chosen"], rel=1e-5)
    if loss == "sigmoid":
        assert stats["accuracy"] == pytest.approx(logged["rewards/accuracies"], abs=1e-5)
        assert stats["margin"] == pytest.approx(logged["rewards/margins"], abs=1e-5)
        assert stats["chosen_reward"] == pytest.approx(logged["rewards/chosen"], abs=1e-5)


SIDES = ("chosen", "rejected")


@pytest.mark.parametrize("family", FAMILIES)
def test_rewards_of_an_evaluation_are_trls(family: str, tmp_path: Path) -> None:
    """TRL's accuracy is strict, and its margin beta times ours; all pairs are one batch."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = make_trained_model(family)
    task = TaskSpec(name="preferences")
    first = PAIRS[0]
    pairs = [*PAIRS, replace(first, chosen=first.rejected, rejected=first.chosen)]
    with model.peft_model.disable_adapter():
        before = run_task(task, pairs, model, split_label="test", seed=0)
    scores = run_task(
        task, pairs, model, split_label="test", reference_items=before.items, seed=0
    ).scores
    mine = {row["name"]: row["value"] for row in scores["metrics"]}
    rows = [
        {"prompt_ids": f.prompt.tolist()}
        | {f"{side}_ids": c.ids.tolist() for side, c in zip(SIDES, f.completions, strict=True)}
        for f in model.template.make_examples(pairs)
    ]
    beta = 0.3
    trainer = DPOTrainer(
        model.peft_model,
        ref_model=tiny.make_model(family).causal,
        args=DPOConfig(**trainer_settings(tmp_path, beta=beta)),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=model.tokenizer,
    )
    trainer.model.eval()
    with torch.no_grad():
        trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert 0 < mine["reward_accuracy_strict"] < 1, "the test would not see a difference"
    assert mine["reward_accuracy_strict"] == pytest.approx(logged["rewards/accuracies"])
    assert beta * mine["reward_margin"] == pytest.approx(logged["rewards/margins"], abs=1e-5)


def random_pairs() -> PairLogprobs:
    rng = np.random.default_rng(0)
    sums = torch.tensor(-rng.uniform(2, 40, (6, 2)), dtype=torch.float32, requires_grad=True)
    return PairLogprobs(sums, None, torch.tensor(rng.integers(1, 30, (6, 2))))


def test_simpo_is_trls() -> None:
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        alpha=0.0,
        beta=2.0,
        simpo_gamma=0.7,
        label_smoothing=0.0,
        loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )
    pairs = random_pairs()
    mine = simpo_loss(pairs, Align(data="d", loss="simpo", beta=2.0, gamma=0.7))
    loss, chosen, rejected = CPOTrainer.cpo_loss(trainer, *pairs.mean_logprobs.unbind(1))
    torch.testing.assert_close(mine.loss, loss)
    torch.testing.assert_close(mine.rewards.detach(), torch.stack([chosen, rejected], dim=1))
    a, b = (torch.autograd.grad(x.sum(), pairs.policy_logprobs)[0] for x in (mine.loss, loss))
    torch.testing.assert_close(a, b)


def test_orpo_is_trls() -> None:
    """TRL adds the SFT term elsewhere, over the prompt too; it gives the odds ratio's term here."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    pairs = random_pairs()
    mine = orpo_loss(pairs, Align(data="d", loss="orpo", beta=0.3))
    gain, *_, odds = ORPOTrainer.odds_ratio_loss(trainer, *pairs.mean_logprobs.unbind(1))
    loss = -pairs.mean_logprobs[:, 0] - gain
    torch.testing.assert_close(mine.loss, loss)
    assert float(mine.margin.mean().detach()) == pytest.approx(0.3 * float(odds.detach()), rel=1e-5)
    a, b = (torch.autograd.grad(x.sum(), pairs.policy_logprobs)[0] for x in (mine.loss, loss))
    torch.testing.assert_close(a, b)
