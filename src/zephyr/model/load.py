"""Models from files: networks, tokenizers, adapters, and a probe of what they compute."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from zephyr.errors import ZephyrError
from zephyr.model import adapter, half, packed, quantize
from zephyr.model.fork import Ids, fork
from zephyr.model.layout import Layout
from zephyr.model.logprobs import ForkNetwork
from zephyr.model.lora import fuse
from zephyr.model.model import Model
from zephyr.model.precision import DTYPES, Dtype, rounding
from zephyr.model.prefix import WORTH
from zephyr.model.template import Template
from zephyr.runs.store import read_json, write_json

Load = quantize.Method | Literal["int4"]
"""How weights are held in memory; int4 are the packed ones of `packed`."""

Form = Literal["computed", "answers", "adapts", "stored", "whole"]
"""Quantized weights as they compute quickest, as small as they are stored, or as whole ones.

Packed weights are unpacked when they are loaded to be computed with: the products are the same, and
a processor needs no time to unpack them again for each. `answers` is `computed` for what learns
nothing: weights stored in 16 bits stay so, where they are computed with in float32 (`half`). So it
is with `adapts`, where gradients pass through them to adapters, and the transposed weights are kept
as well.
"""

WHOLE = "download the whole model in Hugging Face format, safetensors included"


@dataclass(frozen=True)
class Lineage:
    """Where the weights of a model lie: a folder, how it is loaded, and adapters bottom to top.

    Paths are relative to the store, but for a base of the user's own.
    """

    weights: str
    load: Load | None = None
    adapters: tuple[str, ...] = ()

    @classmethod
    def read(cls, artifact: Path) -> "Lineage":
        """What the run that wrote `artifact` made."""
        row = read_json(artifact / "model.json")
        return cls(row["weights"], row["load"], tuple(row["adapters"]))

    def write(self, artifact: Path) -> None:
        value = {"weights": self.weights, "load": self.load, "adapters": list(self.adapters)}
        write_json(artifact / "model.json", value)

    def folder(self, store: Path) -> Path:
        """Where the weights lie."""
        return store / self.weights  # an absolute path stays as it is

    def with_adapter(self, folder: str) -> "Lineage":
        return replace(self, adapters=(*self.adapters, folder))


def quiet() -> None:
    """Keeps the libraries' progress bars and notices out of what people see while models load."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def load(
    lineage: Lineage,
    store: Path,
    *,
    token_budget: int,
    dtype: Dtype = "float32",
    form: Form = "computed",
) -> Model:
    """The model of a lineage on this machine's device, all weights frozen.

    Its weights are in `dtype`; where bitsandbytes quantized them, the others are in float32, unless
    they are wanted as small as they are stored.

    Raises:
        ZephyrError: the folder holds no weights or tokenizer, or an architecture whose
            log-probabilities this program does not compute as its own library does.
    """
    folder = lineage.folder(store)
    adapters = [store / path for path in lineage.adapters]
    tokenizer = load_tokenizer(folder)
    causal = load_network(folder, lineage.load, dtype, form)
    _refuse_foreign_tokenizer(folder, causal, tokenizer)
    wrapper = adapter.attach(causal, adapters)
    if dtype == "float32":
        dora = any(adapter.is_dora(path) for path in adapters)  # asks for norms of whole weights
        if dora:
            half.widen(causal)
        else:
            half.halve(causal, learns=form == "adapts")
    if wrapper is not None:
        fuse(wrapper)
    return assemble(causal, tokenizer, wrapper, token_budget=token_budget)


def assemble(causal: Any, tokenizer: Any, wrapper: Any = None, *, token_budget: int) -> Model:
    """A model of parts in memory; its layout is found by a probe."""
    causal.requires_grad_(False)
    causal.eval()
    network = ForkNetwork(causal)
    context = _context(causal.config)
    model = Model(network, tokenizer, Template(tokenizer), context, "rows", token_budget, wrapper)
    model.layout, model.shares = _probe(model)
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, which cuts text as its tokenizer.json says.

    transformers 5 builds some tokenizers anew by the architecture and takes only vocabulary and
    merges from the file: then numbers are cut in other places, or unknown characters vanish.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not any(
        (folder / name).exists() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")
    ):
        raise _missing(folder, "a tokenizer (tokenizer.json)")
    try:
        usual = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        if not (folder / "tokenizer.json").exists() or not usual.is_fast:
            return usual
        own = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if _cut(usual.backend_tokenizer) == _cut(own):
            return usual
        special = {
            role: token
            for role, token in usual.special_tokens_map.items()
            if isinstance(token, str) and own.token_to_id(token) is not None
        }
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, **special)
    except Exception as error:  # the library in Rust raises nothing narrower
        raise ZephyrError(
            "this tokenizer can't be read",
            where=str(folder),
            found=_first_line(error),
            todo=WHOLE,
        ) from error


def _cut(tokenizer: Any) -> list[Any]:
    """All of a tokenizer of the library in Rust that says where text is cut, but the vocabulary."""
    model = tokenizer.model
    options = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    parts = [
        part and part.__getstate__() for part in (tokenizer.normalizer, tokenizer.pre_tokenizer)
    ]
    return [type(model), parts, {k: v for k, v in options.items() if not callable(v)}]


def _refuse_foreign_tokenizer(folder: Path, causal: Any, tokenizer: Any) -> None:
    """Tokens added beyond the vocabulary (padding, mostly) may stay unknown to the network."""
    if tokenizer.vocab_size > causal.get_input_embeddings().num_embeddings:
        raise ZephyrError(
            "the tokenizer in this folder is not that of the network",
            where=str(folder),
            found=f"a vocabulary of {tokenizer.vocab_size} tokens",
            allowed=f"at most {causal.get_input_embeddings().num_embeddings}",
            todo=WHOLE,
        )


def load_network(
    folder: Path,
    method: Load | None,
    dtype: Dtype = "float32",
    form: Form = "computed",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The network of a folder, loaded in `dtype`, or by bitsandbytes' `method` with `options`.

    Where weights are to stay in 16 bits but be computed with in float32, they are in 16 bits still:
    `half.halve` is the next step, after adapters were put on it.
    """
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").exists():
        raise _missing(folder, "config.json")
    if not any(folder.glob("*.safetensors")):
        raise _missing(folder, "weights as *.safetensors (pickled weights are refused)")
    stored = read_json(folder / "config.json").get("quantization_config")
    plain = not stored and not method and dtype == "float32"
    small = half.held_in(folder) if plain and form in ("answers", "adapts", "stored") else None
    settings: dict[str, Any] = {"dtype": small or DTYPES[dtype], "use_safetensors": True}
    by_bitsandbytes = not packed.is_packed(stored) and bool(stored or method)
    layers: dict[str, packed.Packed] = {}
    network_class: Any = AutoModelForCausalLM
    source: Path | None = folder
    if by_bitsandbytes:
        kept = DTYPES[dtype] if form == "stored" else torch.float32
        settings |= {"dtype": kept, "device_map": {"": _device()}}
        if not stored:
            assert method != "int4", "packed weights say so in their folder"
            assert method is not None
            settings["quantization_config"] = quantize.config(method, **options)
    quantize.quiet()
    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns of its own internals while loading
        try:
            if packed.is_packed(stored):
                layers, others = packed.read(folder)
                network_class, more = _unpacked(folder, layers, others, DTYPES[dtype], form)
                source, settings = None, settings | more
            causal, report = network_class.from_pretrained(
                source,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told by `report`, and refused below
                **settings,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ZephyrError(
                "this network can't be read",
                where=str(folder),
                found=_first_line(error),
                todo=WHOLE,
            ) from error
    _refuse_random_weights(folder, report)
    if small and half.is_rounded(causal):
        return load_network(folder, method, dtype)
    if not by_bitsandbytes:
        if form == "stored":
            packed.put(causal, layers, DTYPES[dtype])
        return causal.to(_device())
    quantize.store_in(causal, settings["dtype"])  # transformers leaves some as they are stored
    if form == "whole":
        return quantize.dequantized(causal)
    quantize.keep_exact(causal)
    return causal


def _unpacked(
    folder: Path,
    layers: dict[str, packed.Packed],
    others: dict[str, torch.Tensor],
    dtype: torch.dtype,
    form: Form,
) -> tuple[Any, dict[str, Any]]:
    """The class of a network, and what it is given in place of a folder of packed weights.

    Where they stay as they are stored, tensors of one number stand for them until they are put in.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    del config.quantization_config
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    tensors = dict(others)
    for name, found in layers.items():
        if form == "stored":
            weight = torch.zeros(1, 1, dtype=dtype).expand(found.shape)
        else:
            weight = found.dense(dtype)
        transposed = adapter.is_transposed(skeleton.get_submodule(name))
        tensors[f"{name}.weight"] = weight.T if transposed else weight
    return type(skeleton), {"config": config, "state_dict": tensors}


def _refuse_random_weights(folder: Path, report: dict[str, Any]) -> None:
    """transformers fills what a file lacks with random numbers, and only warns of it."""
    missing = sorted(report["missing_keys"]) + sorted(k for k, *_ in report["mismatched_keys"])
    if missing:
        raise ZephyrError(
            "the weights in this folder are not those that config.json tells of",
            where=str(folder),
            found=f"{len(missing)} missing or of another size, such as {missing[0]}",
            todo=WHOLE,
        )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _context(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if name in config.to_dict():
            return int(config.to_dict()[name])
    return 2048  # BLOOM: ALiBi has no table of positions; 2,048 is what it was trained with


def _probe(model: Model) -> tuple[Layout, bool]:
    """The layout to use, and whether prefixes are shared: ours beside the library's own forward.

    `tree` wants sdpa attention over everything before a token, positions that are not ALiBi, and
    must equal `rows`; `rows` must equal the library's logits. A prefix may be shared where that
    equals `tree`.
    """
    vocabulary = model.causal.config.vocab_size
    ids = (np.arange(24) * 7 + 3) % vocabulary
    forks = [
        fork(ids[:5], ids[5:9], ids[9:12]),
        fork(ids[12:14], ids[14:17], ids[3:6], ids[17:19]),
        fork(ids[20:21], ids[:8]),
    ]
    rows = _flat(model.logprobs(forks))
    plain = _flat([[_plain(model, f.prompt, c.ids) for c in f.continuations] for f in forks])
    allowed = rounding(model.network)
    if (gap := float(np.abs(rows - plain).mean())) > allowed:
        raise ZephyrError(
            "log-probabilities of this architecture are not computed right here",
            found=f"{type(model.causal).__name__} differs from its own logits by {gap:.2g}",
            todo="use another base model, and report the architecture",
        )
    config = model.causal.config.to_dict()
    sliding = "sliding_attention" in (config.get("layer_types") or ())
    if model.causal.config._attn_implementation != "sdpa" or sliding or config.get("alibi"):
        return "rows", False
    able = replace(model, layout="tree")
    try:
        tree = _flat(able.logprobs(forks))
    except (ValueError, RuntimeError, TypeError):
        return "rows", False  # BLOOM and others refuse such a mask outright
    if float(np.abs(tree - rows).mean()) > allowed:
        return "rows", False
    long = (np.arange(WORTH) * 5 + 1) % vocabulary
    family = [fork(np.concatenate([long, ids[n : n + 3]]), ids[9:12]) for n in (1, 4, 6)]
    apart = _flat(able.logprobs(family))
    together = _flat(replace(able, shares=True).logprobs(family))
    return "tree", float(np.abs(together - apart).mean()) <= allowed


@torch.inference_mode()
def _plain(model: Model, prompt: Ids, continuation: Ids) -> NDArray[np.float32]:
    whole = torch.from_numpy(np.concatenate([prompt, continuation]).astype(np.int64))[None]
    logits = model.causal(whole.to(model.device)).logits[0].float().log_softmax(dim=-1).cpu()
    at = torch.arange(len(prompt), whole.shape[1])
    values: NDArray[np.float32] = logits[at - 1, whole[0, at]].numpy()
    return values


def _flat(results: list[list[NDArray[np.float32]]]) -> NDArray[np.float32]:
    return np.concatenate([part for parts in results for part in parts])


def _missing(folder: Path, what: str) -> ZephyrError:
    found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else "no such folder"
    return ZephyrError(
        f"a model folder lacks {what}",
        where=str(folder),
        found=found if isinstance(found, str) else ", ".join(found) or "an empty folder",
        todo=WHOLE,
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
