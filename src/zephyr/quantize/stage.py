"""What `quantize` does: adapters added into whole weights, then weights in fewer bits.

After each step the model's predictions on held-out text are compared with those of the model that
it came from, whose adapters stand beside its weights.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zephyr.data import mixture
from zephyr.errors import ZephyrError
from zephyr.model import packed, quantize
from zephyr.model.adapter import is_linear
from zephyr.model.fork import Fork, Ids
from zephyr.model.load import Lineage, Load, assemble, load, load_network
from zephyr.model.model import Model
from zephyr.model.precision import stored_in
from zephyr.quantize import gptq
from zephyr.quantize.divergence import MOST, Predictions, divergence, predictions, some
from zephyr.recipe.quantization import Quantize
from zephyr.records import Passage, Record
from zephyr.runs.context import Context
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, write_json
from zephyr.train.examples import pieces


def quantize_model(node: Node, inputs: Mapping[str, Run], run: Run, context: Context) -> None:
    """Makes a model's weights smaller, and `divergence.json` with what that has changed."""
    spec = context.recipe.models[node.name].quantize
    assert spec is not None
    lineage = Lineage.read(inputs["from"].artifact)
    watch = _Watch(inputs.get("text"), context)
    parent = load(lineage, context.store, token_budget=context.token_budget)
    watch.start(parent)
    model = _on_whole_weights(parent, lineage, spec, node, context)
    if model is not parent:
        watch.look("adapters on whole weights" if lineage.adapters else "whole weights", model)
    if spec.method == "whole":
        Lineage(lineage.weights, None, lineage.adapters).write(run.artifact)
    else:
        _make(model, lineage, spec, inputs, run, context, watch)
    write_json(run.artifact / "divergence.json", {"steps": watch.found})


def _on_whole_weights(
    parent: Model, lineage: Lineage, spec: Quantize, node: Node, context: Context
) -> Model:
    """The model with its adapters on weights that are not quantized."""
    stored = quantize.is_stored(lineage.folder(context.store))
    if spec.method == "whole" and (lineage.load is None or stored):
        raise ZephyrError(
            f"{node.parent} has no whole weights to be put on",
            where=f"models.{node.name}.quantize",
            found="weights that are stored quantized" if stored else "whole weights already",
            allowed="a model that was trained with `tune.load`, on a base that is not quantized",
        )
    if lineage.load is None and not stored:
        return parent
    as_it_lies = Lineage(lineage.weights, lineage.load if stored else None, lineage.adapters)
    return load(as_it_lies, context.store, token_budget=context.token_budget, form="whole")


def _make(
    model: Model,
    lineage: Lineage,
    spec: Quantize,
    inputs: Mapping[str, Run],
    run: Run,
    context: Context,
    watch: "_Watch",
) -> None:
    """Merges, rounds to the dtype of the base's files, and writes the weights in fewer bits."""
    folder, dtype = run.artifact / "weights", stored_in(lineage.folder(context.store))
    model.merge()
    _round(model.causal, dtype)
    if lineage.adapters:
        watch.look(f"adapters merged, in {str(dtype).removeprefix('torch.')}", model)
    kept: Load | None = None
    if spec.method == "merged":
        quantize.store_in(model.network, dtype)
        model.save(folder)
    elif spec.method == "int4" or spec.method == "gptq":  # noqa: PLR1714  # a set narrows no type
        kept = "int4"
        rows = _calibration(model, spec, inputs["data"], context) if spec.data else None
        pack(model, spec, folder, dtype, rows, lambda done, of: context.progress(done, of, {}))
        watch.look(spec.method, model)
    else:
        assert spec.method != "whole", "that one makes no weights"
        kept = spec.method
        small = _by_bitsandbytes(model, spec, run.path / "merged", dtype, context, watch)
        watch.look(spec.method, small)
        quantize.store_in(small.network, dtype)
        small.save(folder)
    Lineage(context.inside_store(folder), kept).write(run.artifact)


def _round(causal: nn.Module, dtype: torch.dtype) -> None:
    """Rounds all weights to a dtype, in float32."""
    for parameter in causal.parameters():
        parameter.data.copy_(parameter.data.to(dtype))


def _by_bitsandbytes(
    model: Model,
    spec: Quantize,
    folder: Path,
    dtype: torch.dtype,
    context: Context,
    watch: "_Watch",
) -> Model:
    """The model as bitsandbytes reads it from a folder; the whole one is given up before."""
    assert spec.method in ("int8", "nf4", "fp4")
    quantize.store_in(model.network, dtype)
    model.save(folder)
    model.network.to("meta")
    watch.give_up_head()
    options = {} if spec.method == "int8" else {"double": spec.double, "compute": spec.compute}
    network = load_network(folder, spec.method, options=options)
    shutil.rmtree(folder)
    watch.take_head(network)
    return assemble(network, model.tokenizer, token_budget=context.token_budget)


# -- packed weights -------------------------------------------------------------------------------


def pack(
    model: Model,
    spec: Quantize,
    folder: Path,
    dtype: torch.dtype,
    rows: torch.Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Rounds the layers, and the embedding where that is asked for, and writes them packed.

    The model then computes with the rounded weights. `rows` are the tokens [rows, time] on which
    `gptq` is calibrated; what is not quantized is stored in `dtype`.
    """
    causal = model.causal
    layers = _layers(causal, spec.group)
    if rows is not None:
        packed_layers = gptq.calibrate(causal, rows, layers, spec.group, progress=progress)
    else:
        packed_layers = {}
        for name, module in layers.items():
            packed_layers[name] = packed.Packed.rounded(gptq.matrix(module), 4, spec.group)
            gptq.set_matrix(module, packed_layers[name].dense(torch.float32))
    embeddings = _pack_embeddings(causal, spec) if spec.embeddings else {}
    taken = {f"{name}.weight" for name in (*packed_layers, *embeddings)}
    if _is_tied(causal):
        taken.add(f"{_name_of(causal, causal.get_output_embeddings())}.weight")
    others = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in causal.state_dict().items()
        if name not in taken
    }
    causal.config.dtype = dtype
    causal.config.save_pretrained(folder)
    causal.generation_config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    packed.write(folder, packed_layers, embeddings, others)


def _layers(causal: Any, group: int) -> dict[str, nn.Module]:
    """The linear layers but the head, by name."""
    head = causal.get_output_embeddings()
    layers = {n: m for n, m in causal.named_modules() if is_linear(m) and m is not head}
    if not layers:
        raise ZephyrError(
            "this network has no linear layer that could be quantized",
            found=type(causal).__name__,
            todo="use another base model, or `quantize: merged`",
        )
    for name, module in layers.items():
        if (width := gptq.matrix(module).shape[1]) % group:
            raise ZephyrError(
                "the width of a layer is not a multiple of the group",
                where=name,
                found=f"{width} inputs in groups of {group}",
                allowed=[str(g) for g in (32, 64, 128) if width % g == 0] or "(no group)",
                todo="set `quantize.group`, or take int8 or nf4",
            )
    return layers


def _pack_embeddings(causal: Any, spec: Quantize) -> dict[str, packed.Packed]:
    """The embedding packed, and the head where it has weights of its own."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    found = {}
    for module in [embedding] if _is_tied(causal) else [embedding, head]:
        weight = module.weight.data
        if spec.embeddings == "int8":
            made = packed.Packed.rounded(weight, 8, weight.shape[1])
        else:
            made = packed.Packed.rounded(weight, 4, spec.group)
        module.weight = nn.Parameter(made.dense(torch.float32), requires_grad=False)
        found[_name_of(causal, module)] = made
    if len(found) == 1:
        head.weight = embedding.weight
    return found


def _is_tied(causal: Any) -> bool:
    tied: bool = causal.get_output_embeddings().weight is causal.get_input_embeddings().weight
    return tied


def _name_of(causal: Any, module: nn.Module) -> str:
    name: str = next(name for name, found in causal.named_modules() if found is module)
    return name


def _calibration(model: Model, spec: Quantize, data: Run, context: Context) -> torch.Tensor:
    """Rows of calibration text, tokens [rows, length]: records of a mixture one after another."""
    length = min(spec.length, model.context)
    wanted, parts = spec.rows * length, []
    for text in _texts(model, mixture.load(data.artifact).train):
        parts.append(text)
        wanted -= len(text)
        if wanted <= 0:
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
        context.tell(f"calibrated on {rows} rows of {length} tokens: there is no more, or no room")
    return torch.from_numpy(tokens[: rows * length].reshape(rows, length)).long().to(model.device)


_BLOCK = 64
"""Records that are cut into tokens at a time."""


def _texts(model: Model, records: Sequence[Record]) -> Iterator[Ids]:
    """The tokens of each record, of a pair with its chosen answer, as they are trained on."""
    for start in range(0, len(records), _BLOCK):
        block = records[start : start + _BLOCK]
        if isinstance(block[0], Passage):
            end = model.tokenizer.eos_token_id
            yield from (_joined(piece) for piece in pieces(block, model.tokenizer, MOST, end))
        else:
            yield from (_joined(whole) for whole in model.template.forks(block))


def _joined(whole: Fork) -> Ids:
    return np.concatenate([whole.prompt, whole.continuations[0].ids])


class _Watch:
    """What the steps change, on the hold-out of the last mixture that the model learned from."""

    def __init__(self, data: Run | None, context: Context) -> None:
        self.records = [] if data is None else mixture.load(data.artifact).holdout
        self.found: list[dict[str, Any]] = []
        self._context = context
        self._texts: list[Ids] = []
        self._before: Predictions | None = None

    def start(self, model: Model) -> None:
        """Keeps what a model predicts before anything is done to it."""
        self._texts = some(_texts(model, self.records), model.context)
        if self._texts:
            self._before = predictions(model, self._texts)

    def give_up_head(self) -> None:
        """Lets go of the head, which alone is a third of a small model, until another is there."""
        if self._before is not None:
            self._before = self._before._replace(weight=torch.empty(0), bias=None)

    def take_head(self, causal: Any) -> None:
        """Takes the head of another network, in which it is the same."""
        if self._before is not None:
            head = causal.get_output_embeddings()
            self._before = self._before._replace(weight=head.weight, bias=head.bias)

    def look(self, step: str, model: Model) -> None:
        """Compares with the start, and tells of it."""
        if self._before is None:
            return
        found = divergence(self._before, predictions(model, self._texts))
        self.found.append({"step": step, **found._asdict()})
        self._context.tell(
            f"{step}: KL divergence {found.kl:.2g} nats per token, at most {found.greatest:.2g} in "
            f"the log-probability of one of {found.tokens} tokens"
        )
