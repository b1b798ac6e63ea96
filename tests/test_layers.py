"""Imports: which way they go (also `make check`), and that importing does no work."""

import subprocess
import sys

import pytest

LIGHT = [
    "zephyr.cli.app",
    "zephyr.engine.scheduler",
    "zephyr.engine.plan",
    "zephyr.engine.worker",
    "zephyr.recipe.load",
    "zephyr.runs.graph",
    "zephyr.data.mixture",
    "zephyr.data.sources",
    "zephyr.evaluate.tasks",
    "zephyr.report.page",
    "zephyr.report.results",
    "zephyr.report.model_card",
]
HEAVY = ("torch", "transformers", "pyarrow", "matplotlib", "jieba", "nltk", "sacrebleu", "rensa")
HEAVY = (*HEAVY, "huggingface_hub")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
    assert found.stderr == ""
