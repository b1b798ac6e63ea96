"""Where a base model lies: in a folder of one's own, or on the hub."""

import re
from pathlib import Path

from zephyr.data import hub
from zephyr.data.cache import content_sha256
from zephyr.errors import ZephyrError

_NEEDED = (".json", ".safetensors")
_OPTIONAL = (".model", ".txt", ".jinja")
_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?")


def on_hub(base: str, folder: Path) -> hub.Wanted | None:
    """The files of the hub that a `base` names as `org/name` or `org/name@revision`.

    None where it is a folder, from the recipe's on.
    """
    named = _HUB.fullmatch(base)
    if named is None or (folder / base).exists():
        return None
    needed, optional = (tuple(f"*{e}" for e in endings) for endings in (_NEEDED, _OPTIONAL))
    return hub.Wanted(named[1], needed, named[2] or "main", "model", optional)


def locate(base: str, folder: Path, where: str) -> Path:
    """The folder that holds a base model.

    Raises:
        ZephyrError: it is not there, or has not been fetched.
    """
    wanted = on_hub(base, folder)
    if wanted is None:
        if not (folder / base).is_dir():
            raise ZephyrError(
                "this base model is not there",
                where=where,
                found=str(folder / base),
                allowed="a folder in Hugging Face format, or an id of the hub (org/name)",
                todo="give the path of a folder with config.json, *.safetensors and tokenizer.json",
            )
        return (folder / base).resolve()
    snapshot = hub.remembered(wanted)
    if snapshot is None:
        raise ZephyrError(
            f"base model {base!r} has not been fetched",
            where=where,
            found=f"no folder {folder / base}, and nothing of the hub's {wanted.repo}",
            todo="zephyr data fetch RECIPE, or give the path of a folder",
        )
    return hub.paths(wanted, snapshot)[0].parent


def content(base: str, folder: Path, where: str) -> dict[str, str]:
    """The hash of each file of a base model, which enters its fingerprint.

    Raises:
        ZephyrError: it is not there, or has not been fetched.
    """
    path = locate(base, folder, where)
    files = [file for file in sorted(path.iterdir()) if file.suffix in (*_NEEDED, *_OPTIONAL)]
    return {file.name: content_sha256(file) for file in files}
