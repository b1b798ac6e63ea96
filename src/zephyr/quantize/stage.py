"""Stage `quantize`: merges adapters, then stores the weights in fewer bits (int4, GPTQ, NF4 ...).

After each step the KL divergence from the parent model, whose adapters are not merged, is measured
on held-out text.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zephyr.data import mixture
from zephyr.errors import ZephyrError
from zephyr.model import bnb_quantization, packed_weights
from zephyr.model.example import Example, TokenIds
from zephyr.model.linear_layers import linear_layers, measure_reach
from zephyr.model.load import Lineage, Quantization, build_model, load_model, load_network
from zephyr.model.model import Model
from zephyr.model.precision import stored_dtype
from zephyr.quantize import gptq
from zephyr.quantize.divergence import (
    MAX_TOKENS,
    Predictions,
    compute_divergence,
    compute_predictions,
    select_texts,
)
from zephyr.recipe.quantization import Quantize
from zephyr.records import Passage, Record
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, write_json
from zephyr.train.examples import chunk_passages


def quantize_model(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Stage `quantize`: quantizes a model, and writes the KL divergence after each step."""
    spec = context.recipe.models[node.name].quantize
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    comparison = _DivergenceTracker(inputs.get("text"), context)
    parent = load_model(lineage, context.store, token_budget=context.token_budget)
    comparison.record_baseline(parent)
    model = _on_unquantized_weights(parent, lineage, spec, node, context)
    if model is not parent:
        comparison.compare(
            "adapters on whole weights" if lineage.adapters else "whole weights", model
        )
    if spec.method == "whole":
        replace(lineage, quantization=None).write(run.artifact)
    else:
        _quantize(model, lineage, spec, inputs, run, context, comparison)
    write_json(run.artifact / "divergence.json", {"steps": comparison.steps})


def _on_unquantized_weights(
    parent: Model, lineage: Lineage, spec: Quantize, node: Node, context: Context
) -> Model:
    """The model with its adapters on full-precision (dequantized) base weights."""
    is_stored_quantized = bnb_quantization.is_stored_quantized(
        lineage.weights_folder(context.store)
    )
    if spec.method == "whole" and (lineage.quantization is None or is_stored_quantized):
        raise ZephyrError(
            f"{node.parent} has no whole weights to be put on",
            where=f"models.{node.name}.quantize",
            found="weights that are stored quantized"
            if is_stored_quantized
            else "whole weights already",
            allowed="a model that was trained with `tune.load`, on a base that is not quantized",
        )
    if lineage.quantization is None and not is_stored_quantized:
        return parent
    stored_lineage = lineage if is_stored_quantized else replace(lineage, quantization=None)
    return load_model(
        stored_lineage, context.store, token_budget=context.token_budget, form="unquantized"
    )


def _quantize(
    model: Model,
    lineage: Lineage,
    spec: Quantize,
    inputs: Mapping[str, Run],
    run: Run,
    context: Context,
    comparison: "_DivergenceTracker",
) -> None:
    """Merges adapters, rounds to the dtype of the base's files, and writes quantized weights."""
    folder, dtype = run.artifact / "weights", stored_dtype(lineage.weights_folder(context.store))
    model.merge_adapters()
    _round_weights(model.causal, dtype)
    if lineage.adapters:
        comparison.compare(f"adapters merged, in {str(dtype).removeprefix('torch.')}", model)
    load_format: Quantization | None = None
    if spec.method == "merged":
        bnb_quantization.cast_unquantized(model.network, dtype)
        model.save(folder)
    elif spec.method in ("int8", "int4", "gptq"):
        load_format = "int8" if spec.method == "int8" else "int4"
        calibration_ids = (
            _calibration_tokens(model, spec, inputs["data"], context) if spec.data else None
        )
        narrow = quantize_and_pack(
            model,
            spec,
            folder,
            dtype,
            calibration_ids,
            lambda done, total: context.progress(spec.method, done, total, {}),
        )
        whole = {*narrow}
        names = [name for name in linear_layers(model.causal) if name not in whole]
        _record_reach(model.causal, names, spec.method, context)
        if narrow:
            context.notify(
                f"{len(narrow)} layers with at most {ZERO_POINTS_PER_WORD} outputs, or fewer "
                f"inputs than a group, stay whole, such as {narrow[0]}"
            )
        comparison.compare(spec.method, model)
    else:
        assert spec.method in ("nf4", "fp4"), "`whole` makes no weights"
        load_format = spec.method
        quantized = _quantize_bitsandbytes(
            model, spec, run.path / "merged", dtype, context, comparison
        )
        names = bnb_quantization.quantized_layers(quantized.causal)
        _record_reach(quantized.causal, names, spec.method, context)
        comparison.compare(spec.method, quantized)
        bnb_quantization.cast_unquantized(quantized.network, dtype)
        quantized.save(folder)
    weights = context.store_path(folder)
    Lineage(weights, load_format, thinking=lineage.thinking).write(run.artifact)


def _record_reach(causal: Any, names: Sequence[str], method: str, context: Context) -> None:
    """Records how many of the weight matrices are quantized; says so where they are not all."""
    reach = measure_reach(causal, names)
    context.record("quantized_reach", reach.row)
    if reach.unreached is not None:
        context.notify(f"{method} reaches {reach.text}")


def _round_weights(causal: nn.Module, dtype: torch.dtype) -> None:
    """Rounds all weights to a dtype, though they stay float32 tensors."""
    for parameter in causal.parameters():
        parameter.data.copy_(parameter.data.to(dtype))


def _quantize_bitsandbytes(
    model: Model,
    spec: Quantize,
    folder: Path,
    dtype: torch.dtype,
    context: Context,
    comparison: "_DivergenceTracker",
) -> Model:
    """The model quantized by bitsandbytes (NF4, FP4), reloaded from a merged folder."""
    assert spec.method in ("nf4", "fp4")
    bnb_quantization.cast_unquantized(model.network, dtype)
    model.save(folder)
    model.network.to("meta")
    comparison.release_head()
    options = {"double_quant": spec.double, "compute_dtype": spec.compute}
    network = load_network(folder, spec.method, options=options)
    shutil.rmtree(folder)
    comparison.use_head(network)
    return build_model(
        network,
        model.tokenizer,
        token_budget=context.token_budget,
        thinking=model.template.thinking,
    )


# -- packed weights -------------------------------------------------------------------------------


def quantize_and_pack(
    model: Model,
    spec: Quantize,
    folder: Path,
    dtype: torch.dtype,
    calibration_ids: torch.Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[str]:
    """Quantizes linear layers (and embeddings if asked) to int4 or int8, and writes them packed.

    The model then has the dequantized weights. `calibration_ids` are the token ids [B, T] for GPTQ,
    None for round-to-nearest; what is not quantized is stored in `dtype`. Returns the names of the
    layers that are too small for it, and stay whole.
    """
    causal = model.causal
    bits: packed_weights.Bits = 8 if spec.method == "int8" else 4
    group_sizes = INT8_GROUP_SIZES if spec.method == "int8" else (spec.group,)
    layers, narrow, group_size = _quantizable_layers(causal, group_sizes)
    if calibration_ids is not None:
        packed_layers = gptq.quantize_layers(
            causal, calibration_ids, layers, group_size, on_progress=progress
        )
    else:
        packed_layers = {}
        for name, module in layers.items():
            packed_layers[name] = packed_weights.PackedWeight.quantize(
                gptq.get_weight_matrix(module), bits, group_size
            )
            gptq.set_weight_matrix(module, packed_layers[name].dequantize(torch.float32))
    packed_embeddings = _pack_embeddings(causal, spec) if spec.embeddings else {}
    packed_names = {f"{name}.weight" for name in (*packed_layers, *packed_embeddings)}
    if _is_tied(causal):
        packed_names.add(f"{_module_name(causal, causal.get_output_embeddings())}.weight")
    others = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in causal.state_dict().items()
        if name not in packed_names
    }
    causal.config.dtype = dtype
    causal.config.save_pretrained(folder)
    causal.generation_config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    packed_weights.write_packed(folder, packed_layers, packed_embeddings, others, whole=narrow)
    return narrow


ZERO_POINTS_PER_WORD = 8
"""Zero points of 4 bits in an int32. compressed-tensors can't read those that fill one word only;
a layer with so few outputs (a router, a gate), or fewer inputs than a group (Gemma 3n), has too few
weights for them to matter."""


INT8_GROUP_SIZES = (64, 32)
"""Group sizes of int8: the first that divides the widths of all layers is taken."""


def _quantizable_layers(
    causal: Any, group_sizes: Sequence[int]
) -> tuple[dict[str, nn.Module], list[str], int]:
    """The linear layers to quantize, by name, and the names of those too small for it.

    The LM head is in neither. Also the first of `group_sizes` that divides all widths.
    """
    linear = linear_layers(causal)
    shapes = {name: gptq.get_weight_matrix(module).shape for name, module in linear.items()}
    many_outputs = {n: m for n, m in linear.items() if shapes[n][0] > ZERO_POINTS_PER_WORD}
    fitting = {n: m for n, m in many_outputs.items() if shapes[n][1] >= min(group_sizes)}
    layers = fitting or many_outputs  # where none fits, the group is too large: said below
    narrow = [name for name in linear if name not in layers]
    if not layers:
        raise ZephyrError(
            "this network has no linear layer that could be quantized",
            found=type(causal).__name__,
            todo="use another base model, or `quantize: merged`",
        )
    widths = {name: shapes[name][1] for name in layers}
    for size in group_sizes:
        if all(width % size == 0 for width in widths.values()):
            return layers, narrow, size
    name, width = next((n, w) for n, w in widths.items() if w % group_sizes[-1])
    raise ZephyrError(
        "the width of a layer is not a multiple of the group",
        where=name,
        found=f"{width} inputs in groups of {group_sizes[-1]}",
        allowed=[str(g) for g in (32, 64, 128) if width % g == 0] or "(no group)",
        todo="take nf4, or set `quantize.group` of int4 and gptq",
    )


def _pack_embeddings(causal: Any, spec: Quantize) -> dict[str, packed_weights.PackedWeight]:
    """Packs the embedding, and the LM head where its weight is not tied."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    packed_embeddings = {}
    for module in [embedding] if _is_tied(causal) else [embedding, head]:
        weight = module.weight.data
        if spec.embeddings == "int8":
            packed_weight = packed_weights.PackedWeight.quantize(weight, 8, weight.shape[1])
        else:
            packed_weight = packed_weights.PackedWeight.quantize(weight, 4, spec.group)
        module.weight = nn.Parameter(packed_weight.dequantize(torch.float32), requires_grad=False)
        packed_embeddings[_module_name(causal, module)] = packed_weight
    if len(packed_embeddings) == 1:
        head.weight = embedding.weight
    return packed_embeddings


def _is_tied(causal: Any) -> bool:
    """Whether the LM head shares its weight with the embedding (tied)."""
    tied: bool = causal.get_output_embeddings().weight is causal.get_input_embeddings().weight
    return tied


def _module_name(causal: Any, module: nn.Module) -> str:
    name: str = next(name for name, found in causal.named_modules() if found is module)
    return name


def _calibration_tokens(model: Model, spec: Quantize, data: Run, context: Context) -> torch.Tensor:
    """Calibration token ids [B, T] for GPTQ: records of a mixture, concatenated."""
    length = min(spec.length, model.context_length)
    missing_tokens, parts = spec.rows * length, []
    for text in _token_sequences(model, mixture.load_mixture(data.artifact).train):
        parts.append(text)
        missing_tokens -= len(text)
        if missing_tokens <= 0:
            break
    tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    rows = min(spec.rows, len(tokens) // length)
    if not rows:
        raise ZephyrError(
            "there is too little text to calibrate on",
            where=f"data.{spec.data}",
            found=f"{len(tokens)} tokens",
            allowed=f"at least one row of {length} tokens",
            todo="name a larger mixture, or lower `quantize.length`",
        )
    if (rows, length) != (spec.rows, spec.length):
        context.notify(
            f"calibrated on {rows} rows of {length} tokens: there is no more, or no room"
        )
    return torch.from_numpy(tokens[: rows * length].reshape(rows, length)).long().to(model.device)


_TOKENIZE_BLOCK = 64
"""Records that are tokenized at a time."""


def _token_sequences(model: Model, records: Sequence[Record]) -> Iterator[TokenIds]:
    """The tokens [T] of each record (of a pair, with its chosen answer), as trained on."""
    for start in range(0, len(records), _TOKENIZE_BLOCK):
        block = records[start : start + _TOKENIZE_BLOCK]
        if isinstance(block[0], Passage):
            end = model.tokenizer.eos_token_id
            yield from (
                _all_tokens(chunk)
                for chunk in chunk_passages(block, model.tokenizer, MAX_TOKENS, end)
            )
        else:
            yield from (_all_tokens(example) for example in model.template.make_examples(block))


def _all_tokens(example: Example) -> TokenIds:
    return np.concatenate([example.prompt, example.completions[0].ids])


class _DivergenceTracker:
    """Tracks the KL divergence from the parent model on hold-out text, step by step."""

    def __init__(self, data: Run | None, context: Context) -> None:
        self.records = [] if data is None else mixture.load_mixture(data.artifact).holdout
        self.steps: list[dict[str, Any]] = []
        self._context = context
        self._holdout_tokens: list[TokenIds] = []
        self._baseline: Predictions | None = None

    def record_baseline(self, model: Model) -> None:
        """Records the baseline: the parent's predictions, before anything is quantized."""
        self._holdout_tokens = select_texts(
            _token_sequences(model, self.records), model.context_length
        )
        if self._holdout_tokens:
            self._baseline = compute_predictions(model, self._holdout_tokens)

    def release_head(self) -> None:
        """Frees the baseline's LM head (a third of a small model) until `use_head`."""
        if self._baseline is not None:
            self._baseline = self._baseline._replace(weight=torch.empty(0), bias=None)

    def use_head(self, causal: Any) -> None:
        """Uses the LM head of another network, whose weights are the same, for the baseline."""
        if self._baseline is not None:
            head = causal.get_output_embeddings()
            self._baseline = self._baseline._replace(weight=head.weight, bias=head.bias)

    def compare(self, step: str, model: Model) -> None:
        """Measures the KL divergence of a model from the baseline, and reports it."""
        if self._baseline is None:
            return
        result = compute_divergence(
            self._baseline, compute_predictions(model, self._holdout_tokens)
        )
        self.steps.append({"step": step, **result._asdict()})
        self._context.notify(
            f"{step}: KL divergence {result.kl:.2g} nats per token, at most "
            f"{result.greatest:.2g} in "
            f"the log-probability of one of {result.tokens} tokens"
        )
