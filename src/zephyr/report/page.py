"""HTML report: one self-contained file with the results table, figures, answers and costs."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from zephyr.report import figures, sections, tables
from zephyr.report.data_card import data_card
from zephyr.report.frontier import read_frontier
from zephyr.report.latex import table_latex
from zephyr.report.markdown import table_markdown
from zephyr.report.plain_words import model_sentences, score_notes
from zephyr.report.plotting import Drawing
from zephyr.report.results import Cell, Results, read_results
from zephyr.runs.store import Store, explain_disk_errors, write_atomically


def write_report(store: Store, recipe_name: str) -> Path:
    """Writes tables, data cards, figures and `report.html` of a recipe; returns the HTML path.

    Raises:
        ZephyrError: the recipe was never run in this store, or the disk is full.
    """
    folder = store.recipe_folder(recipe_name)
    with _report_lock(folder):
        results = read_results(store, recipe_name)
        for name, text in (
            ("table.json", tables.table_json(results)),
            ("table.md", table_markdown(results)),
            ("table.csv", tables.table_csv(results)),
            ("table.tex", table_latex(results)),
        ):
            write_atomically(folder / name, text)
        _write_data_cards(folder, results)
        drawings = figures.draw_figures(results)
        _write_figures(folder / "figures", drawings)
        page = folder / "report.html"
        write_atomically(page, render_html(results, drawings))
    return page


@contextmanager
def _report_lock(folder: Path) -> Iterator[None]:
    """Locks a recipe's folder so that one process at a time writes reports there."""
    from filelock import FileLock

    if not folder.exists():
        yield
        return
    with explain_disk_errors(folder), FileLock(folder / ".lock"):
        yield


def _write_data_cards(folder: Path, results: Results) -> None:
    for name, mixture in results.recipe.data.items():
        node = results.nodes[f"data.{name}"]
        manifest = node.run.read("artifact/manifest.json") if node.state == "finished" else {}
        if "content" in manifest:  # a manifest of an earlier version holds less
            tokens = sections.token_counts(results, name)
            card = data_card(name, mixture, manifest, tokens, results.recipe.origin)
            write_atomically(folder / f"data-{name}.md", card)


def _write_figures(folder: Path, drawings: list[Drawing]) -> None:
    """Writes each figure and its data (CSV); removes stale ones of an earlier report."""
    folder.mkdir(exist_ok=True)
    files: dict[str, str | bytes] = {}
    for drawing in drawings:
        files |= {f"{drawing.name}.svg": drawing.svg, f"{drawing.name}.png": drawing.png}
        if drawing.csv:
            files[f"{drawing.name}.csv"] = drawing.csv
    for name, data in files.items():
        write_atomically(folder / name, data)
    for path in folder.iterdir():
        if path.suffix in (".svg", ".png", ".csv") and path.name not in files:
            path.unlink()


def render_html(results: Results, drawings: list[Drawing]) -> str:
    """Renders the HTML of the report; all text from models and files is escaped.

    Its content security policy allows only its own script, by hash. It shows the time only while a
    run is unfinished: the same finished runs give the same bytes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("zephyr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": tables.format_number,
        "interval": tables.interval_text,
        "plain_interval": tables.format_interval,
        "signed": tables.format_signed,
        "mark": tables.verdict_mark,
        "decision": tables.verdict_text,
        "label": tables.column_label,
        "size": _format_bytes,
        "duration": _format_duration,
        "energy": _format_energy,
        "image": _data_uri,
    }
    headlines = results.headline_indices
    script = (Path(__file__).parent / "templates" / "sort.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        results=results,
        recipe=results.recipe,
        headlines=headlines,
        others=[at for at in range(len(results.columns)) if at not in headlines],
        tasks=[
            (task, len(list(places)))
            for task, places in groupby(headlines, lambda at: results.columns[at].task)
        ],
        children={
            parent: [row for row in results.rows if row.parent == parent]
            for parent in [None, *(row.model for row in results.rows)]
        },
        verdicts=_cells_by_verdict(results),
        sentences=model_sentences(results),
        notes=score_notes(results),
        written=_utc_now()
        if any(e.state == "unfinished" for e in results.nodes.values())
        else None,
        unmade=[node for node in results.nodes.values() if node.state != "finished"],
        chances=[tables.column_chance(results, at) for at in range(len(results.columns))],
        protocols=[tables.column_protocols(results, at) for at in range(len(results.columns))],
        groups=[(at, found) for at in headlines if (found := tables.column_groups(results, at))],
        scores=[drawing for drawing in drawings if drawing.name == "scores"],
        sizes=[drawing for drawing in drawings if drawing.name == "frontier"],
        curves=[drawing for drawing in drawings if drawing.name not in ("scores", "frontier")],
        frontier=read_frontier(results),
        mixtures=sections.summarize_mixtures(results),
        examples=sections.training_example_counts(results),
        left_out=sections.excluded_item_counts(results),
        canaries=sections.read_sample_generations(results),
        questions=sections.sample_answered_items(results),
        costs=sections.costs_by_stage(results),
        environment=sections.environment_facts(results),
        generated=tables.GENERATED_NOTICE if results.recipe.origin == "embedded" else None,
        script=Markup(script),  # noqa: S704  # a file of our own
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        yaml=yaml.safe_dump(results.recipe.spec(), sort_keys=False, allow_unicode=True, width=88),
    )


def _cells_by_verdict(results: Results) -> dict[str, list[Cell]]:
    """The primary cells by the verdict of their difference."""
    found: dict[str, list[Cell]] = {"better": [], "worse": [], "cannot tell": []}
    for row in results.rows:
        for at in results.primary_indices:
            if (difference := row.cells[at].difference) and difference.verdict:
                found[difference.verdict].append(row.cells[at])
    return found


def _utc_now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _format_bytes(count: int) -> str:
    """Formats bytes: 999 B, 38.3 kB, 1.2 MB, 4.0 GB."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB"):
        if size < 999.95:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _format_duration(seconds: float) -> str:
    """Formats seconds: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    return (
        f"{minutes} min {whole % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    )


def _format_energy(joules: float) -> str:
    """Joules as kilowatt-hours: 0.00123 kWh, 45.6 kWh."""
    return f"{joules / 3.6e6:.3g} kWh"


def _data_uri(svg: bytes) -> Any:
    """An SVG as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
