"""Each preflight check refuses its fault; a sound training passes and is not changed."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from transformers import LlamaConfig, LlamaForCausalLM

from tests import tiny
from zephyr.errors import ZephyrError
from zephyr.model import adapter, batching, bnb_quantization
from zephyr.model.example import Completion, Example, make_example
from zephyr.model.load import Lineage, load_model
from zephyr.model.model import Model
from zephyr.model.template import ChatTemplate
from zephyr.recipe.schema import Recipe
from zephyr.recipe.training import Align, Lora, Optimization
from zephyr.records import Chat, Message, Pair
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run
from zephyr.train import stages
from zephyr.train.labels import check_labels
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train
from zephyr.train.objectives import PreferenceLoss, TokenLoss
from zephyr.train.preflight import preflight_checks, sample_indices

WORDS = ["force", "mass", "energy", "moves", "kept", "student", "hint", "tutor", "body", "asks"]
LORA = Lora(rank=4, dropout=0.1)


def random_text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, 7)))


def make_chats(count: int = 12) -> list[Chat]:
    """Every other one has a second turn."""
    rng = np.random.default_rng(0)
    return [
        Chat(
            "school",
            tuple(
                Message(role, random_text(rng))  # type: ignore[arg-type]  # they are roles
                for role in ("user", "assistant") * (1 + i % 2)
            ),
        )
        for i in range(count)
    ]


def make_pairs(count: int = 12) -> list[Pair]:
    rng = np.random.default_rng(1)
    return [
        Pair("quarrels", (Message("user", random_text(rng)),), *WORDS[i % 9 :][:2])
        for i in range(12)
    ]


CHATS, PAIRS = make_chats(), make_pairs()


def model_with_fresh_adapter(family: str = "qwen2", seed: int = 0) -> Model:
    """A model with a fresh adapter."""
    model = tiny.make_model(family, seed)
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, LORA, seed=0)
    return model


def make_dpo_setup() -> tuple[Model, ExampleSplit]:
    """A model with a frozen and a fresh adapter, and pairs with the reference in between."""
    model = model_with_fresh_adapter()
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    examples = model.template.make_examples(PAIRS)
    sums = np.array([[s.sum() for s in sides] for sides in model.logprobs(examples)], np.float32)
    model.peft_model = adapter.add_trainable_adapter(model.causal, model.peft_model, LORA, seed=1)
    return model, ExampleSplit(examples, PreferenceLoss(Align(data="d", beta=0.5), sums))


def run_preflight(model: Model, examples: Sequence[Example] | None = None) -> dict[str, Any]:
    data = ExampleSplit(examples or model.template.make_examples(CHATS), TokenLoss())
    is_fresh_adapter = model.peft_model is not None
    return preflight_checks(
        model, data, seed=3, is_fresh_adapter=is_fresh_adapter, record_of=CHATS.__getitem__
    )


def refusal_lines(action: Callable[[], Any]) -> list[str]:
    with pytest.raises(ZephyrError) as caught:
        action()
    return str(caught.value).splitlines()


def copy_weights(model: Model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.network.named_parameters()}


# -- what is sound --------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "count"), [("qwen2", 28), ("llama", 28), ("bloom", 16)])
def test_a_sound_adapter_passes(family: str, count: int) -> None:
    """A and B of all seven linear layers (BLOOM: four) of two blocks."""
    figures = run_preflight(model_with_fresh_adapter(family))
    assert figures["packing_error"] < 1e-5
    assert figures["adapter_off_error"] == 0
    assert {k: figures[k] for k in ("examples", "sampled", "matrices")} == {
        "examples": 12,
        "sampled": 8,
        "matrices": count,
    }


def test_all_weights_and_pieces_of_text_pass() -> None:
    """Pieces end anywhere, and are not asked for a stop token."""
    model = tiny.make_model("gpt2")
    model.causal.requires_grad_(True)
    data = ExampleSplit([make_example([0], range(1, 1 + n)) for n in (5, 9, 30)], TokenLoss())
    figures = preflight_checks(model, data, seed=0, is_fresh_adapter=False, record_of=None)
    assert figures["matrices"] == len(list(model.causal.parameters()))
    assert figures.keys() == {"examples", "sampled", "packing_error", "matrices", "seconds"}


def test_an_adapter_that_goes_on_learning_is_not_asked_to_be_fresh() -> None:
    """Its B is not zero, and stays as it is."""
    model, _ = make_dpo_setup()
    for name, parameter in model.network.named_parameters():
        if "lora_B.stage1" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = copy_weights(model)
    data = ExampleSplit(model.template.make_examples(CHATS), TokenLoss())
    figures = preflight_checks(
        model, data, seed=3, is_fresh_adapter=False, record_of=CHATS.__getitem__
    )
    assert figures["matrices"] == 28
    assert "adapter_off_error" not in figures
    after = copy_weights(model)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_training_after_the_preflight_equals_training_without(tmp_path: Path) -> None:
    """On a stack of two adapters, with dropout: weights, metrics and random numbers to the bit."""
    spec = Optimization(data="d", batch=4, lr=1e-2, epochs=2, log_every=1)
    ends = []
    for name in ("with", "without"):
        model, data = make_dpo_setup()
        before, trainable = (
            copy_weights(model),
            [p.requires_grad for p in model.network.parameters()],
        )
        torch.manual_seed(5)
        if name == "with":
            figures = preflight_checks(
                model, data, seed=3, is_fresh_adapter=True, record_of=PAIRS.__getitem__
            )
            assert figures["start_loss_error"] < 1e-5
            assert figures["adapter_off_error"] == 0
            assert figures["matrices"] == 28
        random_numbers = torch.rand(3)
        after = copy_weights(model)
        assert all(torch.equal(before[n], after[n]) for n in before)
        assert trainable == [p.requires_grad for p in model.network.parameters()]
        assert all(p.grad is None for p in model.network.parameters())
        folder = tmp_path / name
        folder.mkdir()
        options = LoopOptions(model.layout, 256, checkpoint_every=100)
        train(model.network, data, None, spec, seed=1, folder=folder, options=options)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        metric_rows = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
        ends.append((copy_weights(model), metric_rows, random_numbers.tolist()))
    (a, *rest), (b, *others) = ends
    assert rest == others
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], before[n]) for n in a)


def test_bfloat16_weights_pass() -> None:
    """What a tree of bfloat16 differs by is rounding; a leak still is not."""
    model = model_with_fresh_adapter()
    for name, parameter in model.network.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    assert run_preflight(model)["adapter_off_error"] == 0


def test_the_longest_and_the_two_shortest_are_sampled() -> None:
    lengths = [9, 3, 30, 4, 8, 9, 7, 20, 12, 9, 9, 9, 9, 9]
    examples = [make_example([1], range(n)) for n in lengths]
    indices = sample_indices(examples, seed=0, token_budget=1000)
    assert indices[:3] == [2, 1, 3]
    assert len(set(indices)) == 8
    assert sample_indices(examples, seed=0, token_budget=1000) == indices
    assert (
        len(sample_indices(examples, seed=0, token_budget=50)) == 4
    )  # 37 tokens, and one more of at most 12
    assert sample_indices(examples[:1], seed=0, token_budget=1) == [0]


# -- labels ---------------------------------------------------------------------------------------


def change_completions(
    at: int, change: Callable[[Completion], Completion]
) -> tuple[Model, list[Example]]:
    model = model_with_fresh_adapter()
    examples = model.template.make_examples(CHATS)
    examples[at] = Example(examples[at].prompt, tuple(map(change, examples[at].completions)))
    return model, examples


def test_an_answer_without_stop_token_is_refused() -> None:
    model, examples = change_completions(4, lambda c: Completion(c.ids[:-1], c.loss_mask[:-1]))
    end = CHATS[4].messages[-1].content[-4:]
    problem, where, found, allowed, todo = refusal_lines(lambda: run_preflight(model, examples))
    assert problem == "a supervised answer does not end in the stop token"
    assert where == f"  where:   example 5, record {CHATS[4].id} of school"
    assert found.startswith("  found:   it ends with ")
    assert found.endswith(f"{end}'")
    assert allowed == "  allowed: '<|endoftext|>' at the end"
    assert "chat_template" in todo


def test_a_first_answer_without_stop_token_is_refused() -> None:
    """The second turn of the same conversation ends as it should."""

    def drop_first_stop_token(c: Completion) -> Completion:
        is_kept = np.arange(len(c.ids)) != np.flatnonzero(c.ids == 0)[0]
        return Completion(c.ids[is_kept], c.loss_mask[is_kept])

    model, examples = change_completions(3, drop_first_stop_token)
    assert (
        "does not end in the stop token" in refusal_lines(lambda: run_preflight(model, examples))[0]
    )


@pytest.mark.parametrize("at", [2, 3])
def test_a_stop_token_masked_as_padding_is_refused(at: int) -> None:
    """The stop token is the padding token; labels made by its id would leave it out."""
    model, examples = change_completions(
        at, lambda c: Completion(c.ids, c.loss_mask & (c.ids != 0))
    )
    problem, where, found, todo = refusal_lines(lambda: run_preflight(model, examples))
    assert problem == "the stop token of an answer is not supervised"
    assert CHATS[at].id in where
    assert found.endswith("does not count")
    assert "padding" in todo


def test_an_example_without_supervised_tokens_is_refused() -> None:
    model, examples = change_completions(7, lambda c: Completion(c.ids, np.zeros_like(c.loss_mask)))
    problem, where, found, _ = refusal_lines(lambda: run_preflight(model, examples))
    assert problem == "an example has nothing to learn from"
    assert where == f"  where:   example 8, record {CHATS[7].id} of school"
    assert (
        f"none of {examples[7].tree_length - len(examples[7].prompt) + 1} tokens is supervised"
        in found
    )


def test_what_stands_before_a_stop_token_may_be_unsupervised() -> None:
    """A template that writes a full stop between an answer and its stop token, in two turns."""
    tokenizer = tiny.from_scratch.train_tokenizer(tiny.TEXT * 5, tiny.VOCAB_SIZE)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'Q: ' + m['content'] + '\nA:' }}"
        "{% else %}{{ ' ' + m['content'] + '.' + eos_token + '\n' }}{% endif %}{% endfor %}"
    )
    template = ChatTemplate(tokenizer)
    assert tokenizer.decode(template.ending_ids.tolist()) == ".<|endoftext|>"
    examples = template.make_examples(CHATS)
    check_labels(examples, template, CHATS.__getitem__)
    (c,) = examples[1].completions
    for stop in np.flatnonzero(c.ids == template.stop_token_id):
        others = np.arange(len(c.ids)) != stop
        missing = Completion(c.ids[others], c.loss_mask[others])
        masked = Completion(c.ids, c.loss_mask & others)
        for answer, problem in ((missing, "does not end in"), (masked, "is not supervised")):
            with pytest.raises(ZephyrError, match=problem):
                check_labels([Example(examples[1].prompt, (answer,))], template, CHATS.__getitem__)


# -- log-probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_bfloat16", "budget", "count"), [(False, 256, 8), (True, 256, 8), (False, 1, 3)]
)
def test_a_layout_that_leaks_is_refused(
    monkeypatch: pytest.MonkeyPatch, is_bfloat16: bool, budget: int, count: int
) -> None:
    """Plain causal attention over a row that several examples share, however small the budget."""

    def leak(example_of: np.ndarray, branch_of: np.ndarray) -> np.ndarray:
        rows, width = example_of.shape
        return np.repeat(np.tri(width, dtype=np.bool_)[None], rows, axis=0)

    model = model_with_fresh_adapter()
    model.token_budget = budget
    if is_bfloat16:
        model.causal.to(torch.bfloat16)
    assert model.layout == "tree"
    monkeypatch.setattr(batching, "_tree_attention_mask", leak)
    problem, where, found, allowed, _ = refusal_lines(lambda: run_preflight(model))
    assert problem == "a packed batch does not give the log-probabilities of its examples alone"
    assert where == f"  where:   layout tree, {count} examples of this run"
    assert float(found.split()[4]) > (0.12 if is_bfloat16 else 0.01)
    assert allowed == f"  allowed: at most {0.12 if is_bfloat16 else 0.001}"


def test_a_fresh_adapter_that_changes_something_is_refused() -> None:
    model = model_with_fresh_adapter()
    with torch.no_grad():
        dict(model.network.named_parameters())[
            "causal.model.layers.1.mlp.up_proj.lora_B.stage0.weight"
        ][3, 2] = 1e-30
    problem, where, *_ = refusal_lines(lambda: run_preflight(model))
    assert problem == "a fresh adapter changes the model before it has learned anything"
    assert where == "  where:   model.layers.1.mlp.up_proj.lora_B.stage0"


def test_an_adapter_that_cannot_be_switched_off_alone_is_refused() -> None:
    """The one beneath, which has learned, goes off with it."""
    model, data = make_dpo_setup()
    set_adapter = model.peft_model.base_model.set_adapter
    model.peft_model.base_model.set_adapter = lambda names: set_adapter(
        names if len(names) > 1 else []
    )
    problem, _, found, allowed, _ = refusal_lines(
        lambda: preflight_checks(
            model, data, seed=3, is_fresh_adapter=True, record_of=PAIRS.__getitem__
        )
    )
    assert problem.startswith("the model with its fresh adapter switched off is not the model")
    assert found.endswith("nats in a token, with all B matrices zero")
    assert allowed == "  allowed: at most 0"


def test_a_reference_of_another_model_is_refused() -> None:
    """That of the base, which the adapter beneath has moved away from."""
    model, data = make_dpo_setup()
    other = tiny.make_model("qwen2").logprobs(data.examples)
    sums = np.array([[s.sum() for s in sides] for sides in other], np.float32)
    wrong = ExampleSplit(data.examples, PreferenceLoss(Align(data="d", beta=0.5), sums))
    problem, where, found, _, todo = refusal_lines(
        lambda: preflight_checks(
            model, wrong, seed=3, is_fresh_adapter=True, record_of=PAIRS.__getitem__
        )
    )
    assert problem == "the loss before the first step is not that of a model against itself"
    assert "of quarrels" in where
    assert found.endswith(f"from {math.log(2):.6g}")
    assert "reference.safetensors" in todo


def test_references_in_another_order_are_refused() -> None:
    model, data = make_dpo_setup()
    assert isinstance(data.objective, PreferenceLoss)
    shuffled = replace(
        data.objective, reference_logprobs=np.roll(data.objective.reference_logprobs, 1, axis=0)
    )
    wrong = ExampleSplit(data.examples, shuffled)
    found = refusal_lines(
        lambda: preflight_checks(
            model, wrong, seed=3, is_fresh_adapter=True, record_of=PAIRS.__getitem__
        )
    )
    assert found[0] == "the loss before the first step is not that of a model against itself"


# -- gradients ------------------------------------------------------------------------------------


def test_a_frozen_weight_left_trainable_is_refused() -> None:
    model, data = make_dpo_setup()
    named = dict(model.network.named_parameters())
    for name in (
        "causal.model.norm.weight",
        "causal.model.layers.0.self_attn.v_proj.lora_A.stage0.weight",
    ):
        named[name].requires_grad_(True)
        problem, where, *_ = refusal_lines(
            lambda: preflight_checks(
                model, data, seed=3, is_fresh_adapter=True, record_of=PAIRS.__getitem__
            )
        )
        named[name].requires_grad_(False)
        assert problem == "a frozen weight is left trainable"
        assert where == f"  where:   {name.removeprefix('causal.').removesuffix('.weight')}"


def test_a_weight_that_is_to_learn_and_frozen_is_refused() -> None:
    model = model_with_fresh_adapter()
    model.causal.model.layers[0].mlp.up_proj.lora_A.requires_grad_(False)
    problem, where, found, *_ = refusal_lines(lambda: run_preflight(model))
    assert problem == "a weight that is to learn is frozen"
    assert where == "  where:   model.layers.0.mlp.up_proj.lora_A.stage0"
    assert found == "  found:   27 trainable weights"


@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
def test_a_matrix_that_no_gradient_reaches_is_refused(matrix: str) -> None:
    """What the module gives is cut off from the loss; A's own gradient is zero while B is."""
    model = model_with_fresh_adapter()
    module = model.causal.model.layers[1].self_attn.k_proj
    getattr(module, matrix)["stage0"].register_forward_hook(lambda m, i, out: out.detach())
    before = copy_weights(model)
    problem, where, found, _ = refusal_lines(lambda: run_preflight(model))
    assert problem == "weights that are to learn get no gradient"
    assert where == f"  where:   model.layers.1.self_attn.k_proj.{matrix}.stage0"
    assert "1 of 28 with a gradient of exactly zero on 8 examples" in found
    after = copy_weights(model)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_layer_that_nothing_passes_is_refused() -> None:
    """All weights learn but those of a block that is skipped."""
    model = tiny.make_model("llama")
    model.causal.requires_grad_(True)
    block = model.causal.model.layers[1]
    block.forward = lambda hidden, *args, **kwargs: hidden
    _, where, found, _ = refusal_lines(lambda: run_preflight(model))
    assert where.startswith(
        "  where:   model.layers.1.self_attn.q_proj, model.layers.1.self_attn.k"
    )
    assert where.endswith(" and 1 more")
    assert "9 of 21 with a gradient of exactly zero" in found


@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")  # it is what is looked for
def test_four_bit_layers_without_a_backward_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes repacks them at the first forward without gradients, unless it is kept from it.

    The loss stays finite, and only the o and down projections still learn.
    """
    if not has_avx512bf16():
        pytest.skip("the kernel without a backward is for processors with AVX512-BF16")
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=tiny.VOCAB_SIZE, **shape, **heads)).save_pretrained(
        tmp_path
    )
    tiny.tokenizer().save_pretrained(tmp_path)
    found = []
    for guarded in (True, False):
        if not guarded:
            monkeypatch.setattr(
                bnb_quantization, "disable_avx512_bf16_kernel", lambda network: None
            )
        model = load_model(Lineage(str(tmp_path), "nf4"), Path("/"), token_budget=512)
        model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(rank=4), seed=0)
        found.append(
            run_preflight(model) if guarded else refusal_lines(lambda m=model: run_preflight(m))
        )
    figures, message = found
    assert figures["matrices"] == 28
    assert message[0] == "weights that are to learn get no gradient"
    for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        assert name in message[1]
    assert "o_proj" not in message[1]


# -- where they are kept --------------------------------------------------------------------------


def test_a_resumed_run_keeps_its_preflight_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"d": {"kind": "pair", "sources": [{"path": "x.jsonl"}]}}
    recipe = Recipe.model_validate({"name": "r", "data": data, "models": {"M": {"base": "b"}}})
    spec = Optimization(data="d", batch=4, steps=4, lr=1e-3)
    node = Node("M", "align", {"seed": 1}, {}, "", None)
    run = Run(tmp_path)
    recorded: dict[str, Any] = {}

    def run_training(stop: Callable[[], bool]) -> None:
        model, split = make_dpo_setup()
        context = Context(
            recipe,
            tmp_path,
            tmp_path,
            256,
            record=recorded.__setitem__,
            resolve_once=resolve_once,
            should_stop=stop,
        )
        stages._train(
            model,
            split,
            ExampleSplit([], split.objective),
            PAIRS.__getitem__,
            spec,
            node,
            run,
            context,
        )

    def resolve_once(name: str, find: Callable[[], Any]) -> Any:
        return recorded.setdefault(name, recorded[name] if name in recorded else find())

    step_counter = iter(range(9))
    with pytest.raises(RunInterrupted):
        run_training(lambda: next(step_counter) == 2)
    before = dict(recorded)
    assert before["proofs"]["matrices"] == 28
    monkeypatch.setattr(stages, "preflight_checks", None)
    run_training(lambda: False)
    assert recorded == before
