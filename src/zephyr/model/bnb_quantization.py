"""Weight quantization by bitsandbytes: 8 bits (LLM.int8()), 4 bits (NF4, FP4; QLoRA).

`int8` is LLM.int8() with the outlier threshold at 0: every value goes through the 8-bit product,
so that a row does not depend on its batch. Adapters are trained on it (`tune.load`), which compares
log-probabilities of different batches. On SmolLM2-135M-Instruct and WikiText-2 that is a KL
divergence of 0.032 nats per token. At the threshold of 6.0 it is 0.019, but a token's
log-probability differs by 0.12 nats on average, and up to 1.6, between a text alone and with
another. `quantize: int8` is neither, but `packed_weights` of 8 bits: 0.001, whatever the batch.

`nf4` is QLoRA's 4-bit NormalFloat, `fp4` a 4-bit float, in blocks of 64 whose scales are quantized,
too (double quantization). The embedding, the LM head and the norms are not quantized.
"""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

from torch import nn

from zephyr.runs.store import read_json

BnbMethod = Literal["int8", "nf4", "fp4"]


def make_bnb_config(
    method: BnbMethod, *, double_quant: bool = True, compute_dtype: str = "float32"
) -> Any:
    """Makes transformers' BitsAndBytesConfig for int8, NF4 or FP4.

    `double_quant` quantizes the scales of 4-bit blocks; `compute_dtype` is the dtype of matmuls.
    """
    from transformers import BitsAndBytesConfig

    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=method,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def is_stored_quantized(folder: Path) -> bool:
    """Whether the weights of a model folder are stored quantized, in whatever form."""
    return "quantization_config" in read_json(folder / "config.json")


def disable_avx512_bf16_kernel(network: nn.Module) -> None:
    """Disables the AVX512-BF16 kernel of 4-bit layers, so that they dequantize as elsewhere.

    On processors with AVX512-BF16 the first forward without gradients would repack their weights
    in place for a kernel that computes in bfloat16, can't be saved and passes no gradient.
    """
    import bitsandbytes as bnb

    for module in network.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def quantized_layers(network: nn.Module) -> list[str]:
    """The names of the layers that bitsandbytes has quantized."""
    import bitsandbytes as bnb

    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


def dequantize(causal: Any) -> Any:
    """Dequantizes all weights of a network to float32."""
    import torch

    return causal.dequantize(torch.float32)


def cast_unquantized(network: nn.Module, dtype: Any) -> None:
    """Casts all weights that are not quantized to `dtype`."""
    for parameter in network.parameters():
        if type(parameter) is nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def silence_bitsandbytes() -> None:
    """Silences the warnings of bitsandbytes that a user can't act upon; PEFT imports it anyway.

    It warns per 8-bit layer call that inputs are cast to float16, and once that a faster kernel
    could be fetched from the hub: native code from the network is not wanted here.
    """
    warnings.filterwarnings("ignore", message=r"MatMul8bitLt: inputs will be cast")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
