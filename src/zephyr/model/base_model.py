"""Locates a base model: a folder, a GGUF file, an id of the hub, or a name of the table."""

import re
from contextlib import suppress
from pathlib import Path

from zephyr.data import hub
from zephyr.data.cache import content_sha256
from zephyr.data.package_file import PackageFile
from zephyr.errors import ZephyrError, closest_name
from zephyr.model.base_table import BASES
from zephyr.model.gguf_base import SUFFIX as GGUF_SUFFIX
from zephyr.model.gguf_base import find_gguf, read_gguf_metadata
from zephyr.model.text_part import check_support
from zephyr.runs.store import read_json

_REQUIRED_SUFFIXES = (".json", ".safetensors")
_OPTIONAL_SUFFIXES = (".model", ".txt", ".jinja")
_CARD_LICENCE = re.compile(r"---\n(?:(?!---).*\n)*?license: *(\S+)")
"""The licence in the YAML head of a model card."""
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?")


def parse_hub_id(base: str, folder: Path) -> hub.HubQuery | None:
    """Parses a Hugging Face model id, `org/name` or `org/name@revision`, to the hub files.

    A name of the table of bases stands for its id. None where `base` is a folder or file, relative
    to the recipe's.
    """
    if (folder / base).exists():
        return None
    match = _HUB_ID.fullmatch(BASES[base].hub_id if base in BASES else base)
    if match is None:
        return None
    required, optional = (
        tuple(f"*{e}" for e in endings) for endings in (_REQUIRED_SUFFIXES, _OPTIONAL_SUFFIXES)
    )
    return hub.HubQuery(match[1], required, match[2] or "main", "model", optional)


def find_package(base: str, folder: Path) -> PackageFile | None:
    """The package that holds a base of the table, too; None if there is none."""
    return BASES[base].package if base in BASES and not (folder / base).exists() else None


def locate_base_model(base: str, folder: Path, where: str) -> Path:
    """The local folder, or GGUF file, that holds a base model; it must have been fetched.

    Of a name of the table, what the hub has comes before a package's file.

    Raises:
        ZephyrError: it is not there, or has not been fetched.
    """
    query = parse_hub_id(base, folder)
    if query is None:
        path = folder / base
        if gguf := find_gguf(path):
            return gguf.resolve()
        if not path.is_dir():
            raise ZephyrError(
                "this base model is not there",
                where=where,
                found=str(path),
                allowed="a folder in Hugging Face format, a GGUF file, an id of the hub "
                f"(org/name), or one of {', '.join(BASES)}",
                nearest=closest_name(base, BASES),
                todo="give the path of a folder with config.json, *.safetensors and tokenizer.json",
            )
        return path.resolve()
    snapshot = hub.cached_snapshot(query)
    package = find_package(base, folder)
    if snapshot is None and package is not None and package.path.is_file():
        return package.path
    if snapshot is None:
        raise ZephyrError(
            f"base model {base!r} has not been fetched",
            where=where,
            found=f"no folder {folder / base}, and nothing of the hub's {query.repo}",
            todo="zephyr data fetch RECIPE, or give the path of a folder",
        )
    return hub.snapshot_paths(query, snapshot)[0].parent


def find_base_licence(base: str, folder: Path, path: Path) -> str | None:
    """The licence of a base at `path`: the table's, or as its card or GGUF keys say; else None."""
    if base in BASES and not (folder / base).exists():
        return BASES[base].licence
    if path.suffix == GGUF_SUFFIX:
        licence = read_gguf_metadata(path).values.get("general.license")
        return str(licence) if licence else None
    card = path / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = _CARD_LICENCE.match(text)
    return found[1].strip("'\"") if found else None


def hash_base_model(base: str, folder: Path, where: str) -> dict[str, str]:
    """Hashes (SHA-256) each file of a base model, for its fingerprint.

    Raises:
        ZephyrError: it is not there, has not been fetched, or is a multimodal network whose text
            part is not supported.
    """
    path = locate_base_model(base, folder, where)
    if path.suffix == GGUF_SUFFIX:
        return {path.name: content_sha256(path)}
    with suppress(OSError, ValueError):  # told in full where the base is loaded
        check_support(read_json(path / "config.json"), path)
    files = [
        file
        for file in sorted(path.iterdir())
        if file.suffix in (*_REQUIRED_SUFFIXES, *_OPTIONAL_SUFFIXES)
    ]
    return {file.name: content_sha256(file) for file in files}
