"""Benchmark page: docs/benchmarks.md, made of the results in results/bench.

python -m bench.page [--check]
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from bench.evaluation.page import evaluation_tables
from bench.quantization.page import quantization_tables
from bench.serving.page import serving_tables
from bench.shared.environments import ROOT
from bench.training.page import training_tables

RESULTS = ROOT / "results" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"
NOTE = "<!-- Made by bench/page.py from results/bench; don't edit. -->\n\n"
TABLES = {
    "training": training_tables,
    "evaluation": evaluation_tables,
    "quantization": quantization_tables,
    "serving": serving_tables,
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  # Markdown
)


def render_section(subject: str, results: Iterable[dict[str, Any]]) -> str:
    """The section on a subject: its template, with the results of each device."""
    found = [{**result, **_common(result), **TABLES[subject](result)} for result in results]
    return TEMPLATES.get_template(f"{subject}/page.md.j2").render(results=found) if found else ""


def _common(result: dict[str, Any]) -> dict[str, Any]:
    rounds = result.get("rounds", 1)
    return {
        "rounds_text": "one round" if rounds == 1 else f"{rounds} rounds",
        "discarded": sum(not each["kept"] for each in result.get("measurements", [])),
    }


def render() -> str:
    sections = []
    for subject in TABLES:
        paths = sorted(RESULTS.glob(f"{subject}-*.json"))
        sections.append(
            render_section(subject, ({**json.loads(p.read_text()), "file": p.name} for p in paths))
        )
    return NOTE + "\n".join(filter(None, sections))


def write() -> None:
    PAGE.write_text(render(), encoding="utf-8")


def main() -> int:
    """1 where --check finds the page stale, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where the page is stale")
    if not parser.parse_args().check:
        write()
        return 0
    stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != render()
    if stale:
        print("docs/benchmarks.md is stale: make docs")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
