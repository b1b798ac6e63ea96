"""An export as a whole: the model in the form that is wanted, and its card, in one folder."""

from pathlib import Path
from typing import NamedTuple

from zephyr.engine.plan import Plan
from zephyr.errors import ZephyrError
from zephyr.export.adapters import write_adapter
from zephyr.export.gguf_file import Type, write_gguf
from zephyr.export.merged import load_whole, write_merged
from zephyr.export.ollama import modelfile
from zephyr.export.prompts import compare
from zephyr.export.target import target
from zephyr.model.base import on_hub
from zephyr.model.load import Lineage, quiet
from zephyr.model.model import Model
from zephyr.report.model_card import Form, model_card


class Exported(NamedTuple):
    """What was written, in a few words, and what must be said of it."""

    what: str
    said: tuple[str, ...]


def export(
    plan: Plan, name: str, to: Form, folder: Path, *, kind: Type | None = None, force: bool = False
) -> Exported:
    """Writes a model that has been made to a folder; nothing is left there if that fails.

    `kind` is how GGUF stores weights: q8_0 unless given.

    Raises:
        ZephyrError: the model can't be had in this form, or the folder is in use.
    """
    if kind is not None and to in ("peft", "merged"):
        raise ZephyrError(
            f"--to {to} has no --type: its weights are stored as they are trained",
            found=kind,
            allowed="--type with --to gguf or ollama",
        )
    quiet()
    with target(folder, force=force) as part:
        what, said = _FORMS[to](plan, name, part, kind or "q8_0")
        card = model_card(
            plan.store,
            plan.recipe,
            name,
            plan.nodes[name].fingerprint,
            form=to,
            what=what,
            said=said,
            hub=_hub(plan, name),
        )
        (part / "README.md").write_text(card, encoding="utf-8")
    return Exported(what, tuple(said))


def _adapter(plan: Plan, name: str, folder: Path, kind: Type) -> tuple[str, list[str]]:
    return f"an adapter for {write_adapter(plan, name, folder)}", []


def _merged(plan: Plan, name: str, folder: Path, kind: Type) -> tuple[str, list[str]]:
    template, said = write_merged(_lineage(plan, name), plan.store.root, folder)
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return "a whole model for transformers", [*said, *compare(template, plain)]


def _gguf(plan: Plan, name: str, folder: Path, kind: Type) -> tuple[str, list[str]]:
    model, said = _whole(plan, name)
    said += write_gguf(model, folder / f"{name}-{kind}.gguf", kind, name)
    return f"a whole model for llama.cpp in {kind}", said


def _ollama(plan: Plan, name: str, folder: Path, kind: Type) -> tuple[str, list[str]]:
    model, said = _whole(plan, name)
    file = f"{name}-{kind}.gguf"
    text = modelfile(model.template, file)
    said += write_gguf(model, folder / file, kind, name)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return f"a whole model for Ollama in {kind}: ollama create {name.lower()} -f Modelfile", said


def _hub(plan: Plan, name: str) -> str | None:
    """The id on the hub of what a model comes from, if that is where it comes from."""
    model = plan.recipe.models[name]
    if model.from_ is not None:
        return _hub(plan, model.from_)
    wanted = on_hub(model.base, plan.folder) if model.base is not None else None
    return wanted.repo if wanted is not None else None


def _whole(plan: Plan, name: str) -> tuple[Model, list[str]]:
    model, said = load_whole(_lineage(plan, name), plan.store.root)
    return model, [*said, *compare(model.template, model.tokenizer)]


def _lineage(plan: Plan, name: str) -> Lineage:
    run = plan.store.find(plan.nodes[name].fingerprint)
    if not run.finished:
        raise ZephyrError(f"{name} has not been made yet", where=str(plan.store.root))
    return Lineage.read(run.artifact)


_FORMS = {"peft": _adapter, "merged": _merged, "gguf": _gguf, "ollama": _ollama}
