"""Exports a model in a format (peft, merged, gguf, ollama), with its model card, to a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from zephyr.engine.plan import Plan
from zephyr.errors import ZephyrError
from zephyr.export.gguf_file import GgufType, check_gguf_support, write_gguf
from zephyr.export.merged import load_merged, write_merged
from zephyr.export.ollama import build_modelfile, choose_num_ctx
from zephyr.export.output_folder import output_folder
from zephyr.export.peft_adapter import write_peft_adapter
from zephyr.export.prompt_check import check_prompts
from zephyr.model.base_model import find_base_licence, locate_base_model, parse_hub_id
from zephyr.model.load import Lineage, silence_libraries
from zephyr.model.model import Model
from zephyr.model.tokenizer import load_tokenizer
from zephyr.report.model_card import ExportFormat, model_card

PhaseCallback = Callable[[str], None]
"""Called with the name of each phase of an export as it begins."""


class ExportSummary(NamedTuple):
    """Summary of an export: its contents in a few words, and notes for its model card."""

    contents: str
    notes: tuple[str, ...]


def export_model(
    plan: Plan,
    name: str,
    export_format: ExportFormat,
    folder: Path,
    *,
    gguf_type: GgufType | None = None,
    force: bool = False,
    on_phase: PhaseCallback = lambda phase: None,
) -> ExportSummary:
    """Exports a finished model to a folder, atomically.

    `gguf_type` is the quantization type of GGUF (default: q8_0); `on_phase` hears of each phase.

    Raises:
        ZephyrError: the model can't be exported in this format, or the folder is not empty.
    """
    if gguf_type is not None and export_format in ("peft", "merged"):
        raise ZephyrError(
            f"--to {export_format} has no --type: its weights are stored as they are trained",
            found=gguf_type,
            allowed="--type with --to gguf or ollama",
        )
    silence_libraries()
    with output_folder(folder, force=force) as staging:
        export = _EXPORTERS[export_format]
        contents, notes = export(plan, name, staging, gguf_type or "q8_0", on_phase)
        card = model_card(
            plan.store,
            plan.recipe,
            name,
            plan.nodes[name].fingerprint,
            export_format=export_format,
            contents=contents,
            notes=notes,
            base_hub_id=_base_hub_id(plan, name),
            base_licence=_base_licence(plan, name),
        )
        (staging / "README.md").write_text(card, encoding="utf-8")
    return ExportSummary(contents, tuple(notes))


def _export_adapter(
    plan: Plan, name: str, folder: Path, gguf_type: GgufType, on_phase: PhaseCallback
) -> tuple[str, list[str]]:
    on_phase("joining its adapters")
    return f"an adapter for {write_peft_adapter(plan, name, folder)}", []


def _export_merged(
    plan: Plan, name: str, folder: Path, gguf_type: GgufType, on_phase: PhaseCallback
) -> tuple[str, list[str]]:
    on_phase("merging and writing the weights")
    template, notes = write_merged(_read_lineage(plan, name), plan.store.root, folder)
    from transformers import AutoTokenizer

    plain_tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    on_phase("comparing prompts with the plain tokenizer's")
    return "a whole model for transformers", [*notes, *check_prompts(template, plain_tokenizer)]


def _export_gguf(
    plan: Plan, name: str, folder: Path, gguf_type: GgufType, on_phase: PhaseCallback
) -> tuple[str, list[str]]:
    model, notes = _load_merged_model(plan, name, on_phase)
    on_phase(f"writing the weights in {gguf_type}")
    notes += write_gguf(model, folder / f"{name}-{gguf_type}.gguf", gguf_type, name)
    return f"a whole model for llama.cpp in {gguf_type}", notes


def _export_ollama(
    plan: Plan, name: str, folder: Path, gguf_type: GgufType, on_phase: PhaseCallback
) -> tuple[str, list[str]]:
    model, notes = _load_merged_model(plan, name, on_phase)
    on_phase(f"writing the weights in {gguf_type}")
    file = f"{name}-{gguf_type}.gguf"
    text = build_modelfile(model.template, file, model.context_length)
    notes.append(
        f"Ollama keeps {choose_num_ctx(model.context_length)} tokens of a conversation (`num_ctx` "
        f"in the Modelfile); the model reads {model.context_length}."
    )
    notes += write_gguf(model, folder / file, gguf_type, name)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return (
        f"a whole model for Ollama in {gguf_type}: ollama create {name.lower()} -f Modelfile",
        notes,
    )


def _base_hub_id(plan: Plan, name: str) -> str | None:
    """The hub id of a model's base model, if it is from the hub."""
    base = _base_of(plan, name)
    wanted = parse_hub_id(base, plan.folder) if base is not None else None
    return wanted.repo if wanted is not None else None


def _base_licence(plan: Plan, name: str) -> str | None:
    """The licence of a model's base model, if it is known."""
    if (base := _base_of(plan, name)) is None:
        return None
    path = locate_base_model(base, plan.folder, f"the base of {name}")
    return find_base_licence(base, plan.folder, path)


def _base_of(plan: Plan, name: str) -> str | None:
    model = plan.recipe.models[name]
    return model.base if model.from_ is None else _base_of(plan, model.from_)


def _load_merged_model(plan: Plan, name: str, on_phase: PhaseCallback) -> tuple[Model, list[str]]:
    lineage = _read_lineage(plan, name)
    _check_gguf_support(lineage.weights_folder(plan.store.root))
    on_phase("loading and merging the weights")
    model, notes = load_merged(lineage, plan.store.root)
    on_phase("comparing prompts with the plain tokenizer's")
    return model, [*notes, *check_prompts(model.template, model.tokenizer)]


def _check_gguf_support(folder: Path) -> None:
    """Refuses a network or tokenizer that GGUF can't hold, before its weights are loaded."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    check_gguf_support(config, load_tokenizer(folder))


def _read_lineage(plan: Plan, name: str) -> Lineage:
    run = plan.store.find(plan.nodes[name].fingerprint)
    if not run.is_finished:
        raise ZephyrError(f"{name} has not been made yet", where=str(plan.store.root))
    return Lineage.read(run.artifact)


_EXPORTERS = {
    "peft": _export_adapter,
    "merged": _export_merged,
    "gguf": _export_gguf,
    "ollama": _export_ollama,
}
