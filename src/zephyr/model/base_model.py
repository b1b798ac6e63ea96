"""Locates a base model: a local folder, or a model id of the Hugging Face hub."""

import re
from pathlib import Path

from zephyr.data import hub
from zephyr.data.cache import content_sha256
from zephyr.errors import ZephyrError

_REQUIRED_SUFFIXES = (".json", ".safetensors")
_OPTIONAL_SUFFIXES = (".model", ".txt", ".jinja")
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?")


def parse_hub_id(base: str, folder: Path) -> hub.HubQuery | None:
    """Parses a Hugging Face model id, `org/name` or `org/name@revision`, to the hub files.

    None where `base` is a folder, relative to the recipe's.
    """
    match = _HUB_ID.fullmatch(base)
    if match is None or (folder / base).exists():
        return None
    required, optional = (
        tuple(f"*{e}" for e in endings) for endings in (_REQUIRED_SUFFIXES, _OPTIONAL_SUFFIXES)
    )
    return hub.HubQuery(match[1], required, match[2] or "main", "model", optional)


def locate_base_model(base: str, folder: Path, where: str) -> Path:
    """The local folder that holds a base model; a hub model must have been downloaded.

    Raises:
        ZephyrError: it is not there, or has not been fetched.
    """
    query = parse_hub_id(base, folder)
    if query is None:
        if not (folder / base).is_dir():
            raise ZephyrError(
                "this base model is not there",
                where=where,
                found=str(folder / base),
                allowed="a folder in Hugging Face format, or an id of the hub (org/name)",
                todo="give the path of a folder with config.json, *.safetensors and tokenizer.json",
            )
        return (folder / base).resolve()
    snapshot = hub.cached_snapshot(query)
    if snapshot is None:
        raise ZephyrError(
            f"base model {base!r} has not been fetched",
            where=where,
            found=f"no folder {folder / base}, and nothing of the hub's {query.repo}",
            todo="zephyr data fetch RECIPE, or give the path of a folder",
        )
    return hub.snapshot_paths(query, snapshot)[0].parent


def hash_base_model(base: str, folder: Path, where: str) -> dict[str, str]:
    """Hashes (SHA-256) each file of a base model, for its fingerprint.

    Raises:
        ZephyrError: it is not there, or has not been fetched.
    """
    path = locate_base_model(base, folder, where)
    files = [
        file
        for file in sorted(path.iterdir())
        if file.suffix in (*_REQUIRED_SUFFIXES, *_OPTIONAL_SUFFIXES)
    ]
    return {file.name: content_sha256(file) for file in files}
