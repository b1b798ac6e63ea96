"""Loads models from files: network, tokenizer, LoRA adapters, and the lineage that names them."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from zephyr.errors import ZephyrError
from zephyr.model import adapter, bnb_quantization, fp16_linear, packed_weights, text_part
from zephyr.model.attention_config import longrope_limit
from zephyr.model.linear_layers import is_conv1d
from zephyr.model.logprobs import LogprobNetwork
from zephyr.model.lora import fuse_lora
from zephyr.model.model import Model
from zephyr.model.precision import DTYPES, Dtype
from zephyr.model.probe import probe_layout
from zephyr.model.template import ChatTemplate
from zephyr.model.tokenizer import (
    REDOWNLOAD_HINT,
    check_vocabulary,
    describe_error,
    load_tokenizer,
    missing_files_error,
)
from zephyr.recipe.models import Thinking
from zephyr.runs.store import read_json, write_json
from zephyr.system.devices import device_type

Quantization = bnb_quantization.BnbMethod | Literal["int4"]
"""Quantization of weights: by bitsandbytes, or `packed_weights`: int4 (GPTQ too), and int8 where
the folder says so."""

WeightForm = Literal["dequantized", "inference", "adapter-training", "stored", "unquantized"]
"""How weights are held in memory: dequantized for computing, as stored, or all in full precision.

`dequantized` dequantizes packed weights (int4, GPTQ) once at load time: the results are the same,
and a CPU need not dequantize at every forward pass. `inference` is that, and 16-bit weights stay in
16 bits where the compute dtype is float32 (`fp16_linear`). `adapter-training` is `inference` with
gradients, for which the transposed weights are kept as well. `stored` keeps weights as small as
their files, and `unquantized` dequantizes bitsandbytes' weights (NF4, int8).
"""


@dataclass(frozen=True)
class Lineage:
    """Which files make up a model: base weights, quantization, LoRA adapters from bottom to top.

    `thinking` is a setting of its chat template. Paths are relative to the store, except those of
    a base model outside of it.
    """

    weights: str
    quantization: Quantization | None = None
    adapters: tuple[str, ...] = ()
    thinking: Thinking = "off"

    @classmethod
    def read(cls, artifact: Path) -> "Lineage":
        """Reads `model.json` of an artifact: the files of the model that its run made."""
        row = read_json(artifact / "model.json")
        return cls(row["weights"], row["load"], tuple(row["adapters"]), row.get("thinking", "off"))

    def write(self, artifact: Path) -> None:
        """Writes `model.json` into an artifact."""
        value = {
            "weights": self.weights,
            "load": self.quantization,
            "adapters": list(self.adapters),
            "thinking": self.thinking,
        }
        write_json(artifact / "model.json", value)

    def weights_folder(self, store: Path) -> Path:
        """The folder of the base weights."""
        return store / self.weights  # an absolute path stays as it is

    def with_adapter(self, folder: str) -> "Lineage":
        return replace(self, adapters=(*self.adapters, folder))


def silence_libraries() -> None:
    """Silences progress bars and notices of transformers while models load."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def load_model(
    lineage: Lineage,
    store: Path,
    *,
    token_budget: int,
    dtype: Dtype = "float32",
    form: WeightForm = "dequantized",
) -> Model:
    """Loads the model of a lineage onto the GPU, or else the CPU, with all weights frozen.

    Its weights are in `dtype`; where bitsandbytes quantized some, the others are in float32, unless
    `form` is `stored`.

    Raises:
        ZephyrError: the folder holds no weights or tokenizer, or an architecture whose
            log-probabilities this program does not compute as its own library does.
    """
    folder = lineage.weights_folder(store)
    adapters = [store / path for path in lineage.adapters]
    tokenizer = load_tokenizer(folder)
    causal = load_network(folder, lineage.quantization, dtype, form)
    peft_model = adapter.attach_adapters(causal, adapters)
    if dtype == "float32":
        has_dora = any(adapter.is_dora(path) for path in adapters)  # needs norms of whole weights
        if has_dora:
            fp16_linear.to_float32(causal)
        else:
            fp16_linear.to_fp16_weights(causal, with_backward=form == "adapter-training")
    if peft_model is not None:
        fuse_lora(peft_model)
    return build_model(
        causal, tokenizer, peft_model, token_budget=token_budget, thinking=lineage.thinking
    )


def build_model(
    causal: Any,
    tokenizer: Any,
    peft_model: Any = None,
    *,
    token_budget: int,
    thinking: Thinking = "off",
) -> Model:
    """Builds a `Model` from network and tokenizer in memory; its batch layout is probed."""
    template = ChatTemplate(tokenizer, thinking)
    rows = causal.get_input_embeddings().num_embeddings
    check_vocabulary(tokenizer, template.control_ids, rows)
    causal.requires_grad_(False)
    causal.eval()
    network = LogprobNetwork(causal)
    context_length = _context_length(causal.config)
    model = Model(
        network,
        tokenizer,
        template,
        context_length,
        "rows",
        token_budget,
        peft_model,
    )
    model.layout, model.shares_prefixes = probe_layout(model)
    return model


def load_network(
    folder: Path,
    quantization: Quantization | None,
    dtype: Dtype = "float32",
    form: WeightForm = "dequantized",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Loads the network of a folder in `dtype`, or by bitsandbytes' `quantization` with `options`.

    Where weights are stored in 16 bits and computed with in float32, they are still 16-bit tensors:
    `fp16_linear.to_fp16_weights` is the next step, after adapters are attached.
    """
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").exists():
        raise missing_files_error(folder, "config.json")
    if not any(folder.glob("*.safetensors")):
        raise missing_files_error(folder, "weights as *.safetensors (pickled weights are refused)")
    stored_config = read_json(folder / "config.json")
    text_part.check_support(stored_config, folder)
    stored = stored_config.get("quantization_config")
    plain = not stored and not quantization and dtype == "float32"
    half_dtype = (
        fp16_linear.fp16_kernel_dtype(folder)
        if plain and form in ("inference", "adapter-training", "stored")
        else None
    )
    settings: dict[str, Any] = {"dtype": half_dtype or DTYPES[dtype], "use_safetensors": True}
    uses_bitsandbytes = not packed_weights.is_packed(stored) and bool(stored or quantization)
    layers: dict[str, packed_weights.PackedWeight] = {}
    network_class: Any = AutoModelForCausalLM
    source: Path | None = folder
    if uses_bitsandbytes:
        other_dtype = DTYPES[dtype] if form == "stored" else torch.float32
        settings |= {"dtype": other_dtype, "device_map": {"": device_type()}}
        if not stored:
            assert quantization != "int4", "packed weights say so in their folder"
            assert quantization is not None
            settings["quantization_config"] = bnb_quantization.make_bnb_config(
                quantization, **options
            )
    bnb_quantization.silence_bitsandbytes()
    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns of its own internals while loading
        try:
            if packed_weights.is_packed(stored):
                layers, others = packed_weights.read_packed(folder)
                network_class, extra_settings = _unpack_weights(
                    folder, layers, others, DTYPES[dtype], form
                )
                source, settings = None, settings | extra_settings
            elif part := text_part.find_text_part(folder):
                network_class = part.network_class
                source, settings = None, settings | part.load_arguments(folder)
            causal, report = network_class.from_pretrained(
                source,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # listed in `report`, and refused below
                **settings,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ZephyrError(
                "this network can't be read",
                where=str(folder),
                found=describe_error(error),
                todo=REDOWNLOAD_HINT,
            ) from error
    _check_all_weights_loaded(folder, report)
    if source is None and not layers:
        _check_text_weights_used(folder, report)
    if half_dtype and fp16_linear.has_half_buffers(causal):
        return load_network(folder, quantization, dtype)
    if not uses_bitsandbytes:
        if form == "stored":
            packed_weights.replace_layers(causal, layers, DTYPES[dtype])
        return causal.to(device_type())
    bnb_quantization.cast_unquantized(
        causal, settings["dtype"]
    )  # transformers leaves some as they are stored
    if form == "unquantized":
        return bnb_quantization.dequantize(causal)
    bnb_quantization.disable_avx512_bf16_kernel(causal)
    return causal


def _unpack_weights(
    folder: Path,
    layers: dict[str, packed_weights.PackedWeight],
    others: dict[str, torch.Tensor],
    dtype: torch.dtype,
    form: WeightForm,
) -> tuple[Any, dict[str, Any]]:
    """The network class, and `from_pretrained` arguments in place of a folder of packed weights.

    With `form` `stored`, expanded scalar tensors are placeholders until the layers are replaced.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    del config.quantization_config
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    tensors = dict(others)
    for name, packed_weight in layers.items():
        if form == "stored":
            weight = torch.zeros(1, 1, dtype=dtype).expand(packed_weight.shape)
        else:
            weight = packed_weight.dequantize(dtype)
        transposed = is_conv1d(skeleton.get_submodule(name))
        tensors[f"{name}.weight"] = weight.T if transposed else weight
    return type(skeleton), {"config": config, "state_dict": tensors}


def _check_all_weights_loaded(folder: Path, report: dict[str, Any]) -> None:
    """Checks that no weight is missing, which transformers would initialize at random."""
    missing = sorted(report["missing_keys"]) + sorted(k for k, *_ in report["mismatched_keys"])
    if missing:
        raise ZephyrError(
            "the weights in this folder are not those that config.json tells of",
            where=str(folder),
            found=f"{len(missing)} missing or of another size, such as {missing[0]}",
            todo=REDOWNLOAD_HINT,
        )


def _check_text_weights_used(folder: Path, report: dict[str, Any]) -> None:
    """Checks that a text part has a place for all weights that were read for it."""
    if unused := sorted(report["unexpected_keys"]):
        raise ZephyrError(
            "this multimodal network has text weights that its text part alone does not use",
            where=str(folder),
            found=f"{len(unused)} weights, such as {unused[0]}",
            todo="take a text model of the same family, and report the base model",
        )


def _context_length(config: Any) -> int:
    if (limit := longrope_limit(config)) is not None:
        return limit
    settings = config.get_text_config().to_dict()
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if name in settings:
            return int(settings[name])
    return 2048  # BLOOM: ALiBi has no table of positions; 2,048 is what it was trained with
