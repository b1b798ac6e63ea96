"""Weights in 8 and 4 bits, by bitsandbytes.

`int8` is LLM.int8() with the outlier threshold at 0: every value goes through the 8-bit product,
so that a row does not depend on its batch. `nf4` is QLoRA's 4-bit NormalFloat with double
quantization, in blocks of 64. The embedding, the head and the norms stay as they are.
"""

import logging
import warnings
from typing import Any, Literal

from torch import nn

Method = Literal["int8", "nf4"]


def config(method: Method) -> Any:
    """The `quantization_config` with which transformers loads weights in this form."""
    import torch
    from transformers import BitsAndBytesConfig

    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def keep_exact(network: nn.Module) -> None:
    """Keeps 4-bit layers on the path that dequantizes.

    On processors with AVX512-BF16 the first forward without gradients would repack their weights
    in place for a kernel that computes in bfloat16, can't be saved and passes no gradient.
    """
    import bitsandbytes as bnb

    for module in network.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def quiet() -> None:
    """Silences what bitsandbytes says and can't be acted upon; PEFT imports it in any case.

    It warns per 8-bit layer call that inputs are cast to float16, and once that a faster kernel
    could be fetched from the hub: native code from the network is not wanted here.
    """
    warnings.filterwarnings("ignore", message=r"MatMul8bitLt: inputs will be cast")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
