"""The whole line on one tiny network: load, rank, generate, train, quantize, serve, export.

Each step gives what it came to: a fact, "yes", or the message of the `ZephyrError` that refuses it.
Anything else that is raised, or a number that is not what transformers computes, is a failure.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.families.networks import ALL_FAMILIES, LINE_FAMILIES, make_causal
from zephyr.errors import ZephyrError
from zephyr.export.gguf_file import check_gguf_support
from zephyr.model import adapter
from zephyr.model.batching import collate
from zephyr.model.decoding import DecodeBatch, DecodeRow
from zephyr.model.example import Example, TokenIds, make_example, to_token_ids
from zephyr.model.load import Lineage, build_model, load_model, load_network
from zephyr.model.model import Model
from zephyr.model.multi_lora import MultiLora, can_batch_adapters
from zephyr.quantize import stage as quantization
from zephyr.recipe.quantization import Quantize
from zephyr.recipe.training import Align, Lora
from zephyr.train.loop import ExampleSplit
from zephyr.train.objectives import PreferenceLoss, TokenLoss
from zephyr.train.preflight import preflight_checks

LOGPROB_TOLERANCE = 2e-4
"""Nats between two ways of one computation in float32; an error in a weight shows at 0.1."""
GROUP = 32

Row = dict[str, str]
"""What each step came to."""


def run_line(family: str, folder: Path) -> Row:
    """Sends a network through the line; files go into `folder`."""
    base = folder / "base"
    causal = make_causal(family)
    causal.save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    lineage = Lineage(str(base))
    row: Row = {"model type": ALL_FAMILIES[family][0], "models": LINE_FAMILIES[family]}
    try:
        model = load_model(lineage, folder, token_budget=1024)
    except ZephyrError as error:
        return row | {"load": _refusal(error)}
    row["load"] = f"{model.layout}{', prefixes shared' if model.shares_prefixes else ''}"

    @cache
    def trained() -> Model:
        adapters = (str(folder / "adapter"),) if (folder / "adapter").exists() else ()
        with_adapter = Lineage(str(base), None, adapters)
        return load_model(with_adapter, folder, token_budget=1024, form="unquantized")

    steps: dict[str, Callable[[], str]] = {
        "rank": lambda: _rank(model),
        "generate": lambda: _generate(model),
        "int8": lambda: _quantize(lineage, folder, Quantize(method="int8")),
        "nf4": lambda: _quantize_nf4(base),
        "gptq": lambda: _quantize(
            lineage, folder, Quantize(method="gptq", group=GROUP, data="sft", length=64)
        ),
        "tune, align": lambda: _train(load_model(lineage, folder, token_budget=1024), folder),
        "serve": lambda: _serve(base, folder / "adapter", model, trained()),
        "export": lambda: _export(trained(), folder / "merged"),
        "gguf": lambda: _gguf(model),
    }
    for name, step in steps.items():
        try:
            row[name] = step()
        except ZephyrError as error:
            row[name] = _refusal(error)
    return row


def random_tokens(seed: int, count: int) -> TokenIds:
    """Random tokens, without the first, which ends texts."""
    return to_token_ids(np.random.default_rng(seed).integers(1, 300, count).tolist())


def _examples() -> list[Example]:
    """Pairs of completions after prompts of several lengths, the longest beyond all windows."""
    return [
        make_example(random_tokens(n, 5 + 20 * n), random_tokens(10 + n, 9), random_tokens(20, 6))
        for n in range(4)
    ]


def _rank(model: Model) -> str:
    for example, found in zip(_examples(), model.logprobs(_examples()), strict=True):
        for completion, values in zip(example.completions, found, strict=True):
            expected = _transformers_logprobs(model.causal, example.prompt, completion.ids)
            np.testing.assert_allclose(values, expected, atol=LOGPROB_TOLERANCE)
    return "yes"


@torch.inference_mode()
def _transformers_logprobs(causal: Any, prompt: TokenIds, completion: TokenIds) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logprobs = causal(ids[None]).logits[0].float().log_softmax(dim=1)
    positions = torch.arange(len(prompt), len(ids))
    values: np.ndarray = logprobs[positions - 1, ids[positions]].numpy()
    return values


def _generate(model: Model) -> str:
    """Prompts of several lengths, together and joining one another: each as transformers alone."""
    prompts = [random_tokens(seed, length) for seed, length in enumerate((40, 7, 1))]
    lengths = [12, 5, 16]
    expected = [
        _greedy_tokens(model, prompt, n) for prompt, n in zip(prompts, lengths, strict=True)
    ]
    answers = model.generate(prompts, max_new_tokens=lengths)
    assert [answer.ids.tolist() for answer in answers] == expected
    first, second, third = (DecodeRow(prompt) for prompt in prompts)
    batch: DecodeBatch[DecodeRow] = DecodeBatch(model.causal)
    for joins, leaves, steps in (
        (first, None, 2),
        (second, None, 3),
        (third, first, 1),
        (None, second, 4),
    ):
        if leaves is not None:
            batch.remove(leaves)
        if joins is not None:
            batch.add([joins])
        for _ in range(steps):
            batch.step()
    assert [len(row.output_ids) for row in (first, second, third)] == [6, 5, 6]
    for row, tokens in zip((first, second, third), expected, strict=True):
        assert row.output_ids[: len(tokens)] == tokens[: len(row.output_ids)]
    return "yes"


def _greedy_tokens(model: Model, prompt: TokenIds, count: int) -> list[int]:
    """transformers' own greedy tokens after a prompt alone, up to the one that ends texts."""
    ids = torch.from_numpy(prompt.astype(np.int64))[None]
    found: list[int] = model.causal.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    return found[: found.index(0)] if 0 in found else found


def _train(model: Model, folder: Path) -> str:
    """All checks before a training, three steps of SFT, the checks and a step of DPO on top."""
    examples = _examples()
    chosen = [Example(e.prompt, e.completions[:1]) for e in examples]
    model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(rank=4), 0)
    _check_and_step(model, ExampleSplit(chosen, TokenLoss()), steps=3)
    adapter.save_adapter(model.peft_model, folder / "adapter", "tiny")
    sums = [[float(v.sum()) for v in values] for values in model.logprobs(examples)]
    model.peft_model = adapter.add_trainable_adapter(
        model.causal, model.peft_model, Lora(rank=4), 1
    )
    objective = PreferenceLoss(Align(data="pairs"), np.array(sums, dtype=np.float32))
    _check_and_step(model, ExampleSplit(examples, objective), steps=1)
    return "yes"


def _check_and_step(model: Model, split: ExampleSplit, steps: int) -> None:
    """Preflight checks, then steps of which each lowers the loss."""
    preflight_checks(model, split, seed=0, is_fresh_adapter=True, record_of=None)
    trainable = [p for p in model.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=5e-3)
    losses = []
    for _ in range(steps + 1):
        batch = collate(split.examples, model.layout)
        indices = range(len(split.examples))
        loss = split.objective.compute_loss(model.network(batch), batch, indices).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0], losses


def _quantize(lineage: Lineage, folder: Path, spec: Quantize) -> str:
    """Packed weights read back give the log-probabilities of those that were packed."""
    model = load_model(lineage, folder, token_budget=1024)
    calibration = None
    if spec.method == "gptq":
        rows = [random_tokens(seed, spec.length) for seed in range(2)]
        calibration = torch.from_numpy(np.stack(rows).astype(np.int64))
    out = folder / spec.method
    quantization.quantize_and_pack(model, spec, out, torch.float32, calibration)
    bits = "int8" if spec.method == "int8" else "int4"
    read = load_model(Lineage(str(out), bits), folder, token_budget=1024)
    _assert_same_logprobs(read, model)
    return "yes"


def _quantize_nf4(base: Path) -> str:
    network = load_network(base, "nf4")
    model = build_model(network, tiny.tokenizer(), token_budget=1024)
    assert all(np.isfinite(values[0]).all() for values in model.logprobs(_examples()))
    return "yes"


def _serve(base: Path, adapter_folder: Path, base_model: Model, trained: Model) -> str:
    """Rows of the base and of the trained model in one batch: each as its model alone."""
    if not adapter_folder.exists():
        return "without adapters"
    if not can_batch_adapters([adapter_folder]):
        return "one model at a time"
    causal = load_network(base, None)
    multi_lora = MultiLora(causal, [[], [adapter_folder]])
    rows = [DecodeRow(random_tokens(seed, 20 - 6 * seed)) for seed in range(3)]
    multi_lora.select_models([0, 1, 1])
    batch = DecodeBatch(causal)
    batch.add(rows)
    for _ in range(6):
        batch.step()
    for model, row in zip((base_model, trained, trained), rows, strict=True):
        alone = DecodeBatch(model.causal)
        expected = DecodeRow(row.prompt)
        alone.add([expected])
        for _ in range(6):
            alone.step()
        assert row.output_ids == expected.output_ids
    return "yes"


def _export(trained: Model, folder: Path) -> str:
    """Merged weights, read by transformers alone, give the model's log-probabilities."""
    before = trained.logprobs(_examples())
    trained.merge_adapters()
    trained.save(folder)
    causal = AutoModelForCausalLM.from_pretrained(folder).eval()
    for example, found in zip(_examples(), before, strict=True):
        for completion, values in zip(example.completions, found, strict=True):
            expected = _transformers_logprobs(causal, example.prompt, completion.ids)
            np.testing.assert_allclose(values, expected, atol=LOGPROB_TOLERANCE)
    return "yes"


def _gguf(model: Model) -> str:
    check_gguf_support(model.causal.config, model.tokenizer)
    return "yes"


def _assert_same_logprobs(found: Model, expected: Model) -> None:
    for left, right in zip(
        found.logprobs(_examples()), expected.logprobs(_examples()), strict=True
    ):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, atol=LOGPROB_TOLERANCE)


def _refusal(error: ZephyrError) -> str:
    return "refused: " + str(error).split("\n")[0]
