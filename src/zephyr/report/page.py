"""The report: one HTML file that needs nothing else, with the tables and figures beside it."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from zephyr.report import account, figures, tables
from zephyr.report.card import data_card
from zephyr.report.frontier import frontier
from zephyr.report.latex import table_latex
from zephyr.report.ledger import Cell, Ledger, read_ledger
from zephyr.report.sheets import Drawing
from zephyr.runs.store import Store, full_disk_explained, write_atomically


def write_report(store: Store, recipe_name: str) -> Path:
    """Writes tables, data cards, figures and `report.html` of a recipe; returns the last's path.

    Raises:
        ZephyrError: the recipe was never run in this store, or the disk is full.
    """
    folder = store.recipe_folder(recipe_name)
    with _alone(folder):
        ledger = read_ledger(store, recipe_name)
        for name, text in (
            ("table.json", tables.table_json(ledger)),
            ("table.md", tables.table_markdown(ledger)),
            ("table.csv", tables.table_csv(ledger)),
            ("table.tex", table_latex(ledger)),
        ):
            write_atomically(folder / name, text)
        _write_cards(folder, ledger)
        drawings = figures.draw_all(ledger)
        _write_figures(folder / "figures", drawings)
        page = folder / "report.html"
        write_atomically(page, render(ledger, drawings))
    return page


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time write reports there: one that watches, one that has run."""
    from filelock import FileLock

    if not folder.exists():
        yield
        return
    with full_disk_explained(folder), FileLock(folder / ".lock"):
        yield


def _write_cards(folder: Path, ledger: Ledger) -> None:
    for name, mixture in ledger.recipe.data.items():
        entry = ledger.entries[f"data.{name}"]
        manifest = entry.run.read("artifact/manifest.json") if entry.state == "finished" else {}
        if "content" in manifest:  # one that an earlier version drew tells less
            tokens = account.tokens_of(ledger, name)
            card = data_card(name, mixture, manifest, tokens, ledger.recipe.origin)
            write_atomically(folder / f"data-{name}.md", card)


def _write_figures(folder: Path, drawings: list[Drawing]) -> None:
    """Writes each figure and its numbers; removes those of an earlier report that are no more."""
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


def render(ledger: Ledger, drawings: list[Drawing]) -> str:
    """The HTML of the report; all that a model or a file has written is escaped.

    The page's own policy lets its one script run, by its hash, and no other. It tells the time just
    where a run is being made: the same finished runs give the same bytes.
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
        "number": tables.number,
        "interval": tables.interval,
        "signed": tables.signed,
        "rounded": tables.rounded,
        "label": tables.label,
        "size": _size,
        "duration": _duration,
        "energy": _energy,
        "image": _image,
    }
    headlines = ledger.headlines
    script = (Path(__file__).parent / "templates" / "sort.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        ledger=ledger,
        recipe=ledger.recipe,
        headlines=headlines,
        others=[at for at in range(len(ledger.columns)) if at not in headlines],
        tasks=[
            (task, len(list(places)))
            for task, places in groupby(headlines, lambda at: ledger.columns[at].task)
        ],
        children={
            parent: [row for row in ledger.rows if row.parent == parent]
            for parent in [None, *(row.model for row in ledger.rows)]
        },
        verdicts=_verdicts(ledger),
        written=_now() if any(e.state == "unfinished" for e in ledger.entries.values()) else None,
        unmade=[entry for entry in ledger.entries.values() if entry.state != "finished"],
        protocols=[tables.protocols_of(ledger, at) for at in range(len(ledger.columns))],
        groups=[(at, found) for at in headlines if (found := tables.groups_of(ledger, at))],
        scores=[drawing for drawing in drawings if drawing.name == "scores"],
        sizes=[drawing for drawing in drawings if drawing.name == "frontier"],
        curves=[drawing for drawing in drawings if drawing.name not in ("scores", "frontier")],
        frontier=frontier(ledger),
        mixtures=account.mixtures(ledger),
        examples=account.examples(ledger),
        left_out=account.left_out(ledger),
        canaries=account.canaries(ledger),
        questions=account.questions(ledger),
        costs=account.costs(ledger),
        environment=account.environment(ledger),
        generated=tables.GENERATED if ledger.recipe.origin == "embedded" else None,
        script=Markup(script),  # noqa: S704  # a file of our own
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        yaml=yaml.safe_dump(ledger.recipe.spec(), sort_keys=False, allow_unicode=True, width=88),
    )


def _verdicts(ledger: Ledger) -> dict[str, list[Cell]]:
    """The headline cells by the verdict of their difference."""
    found: dict[str, list[Cell]] = {"better": [], "worse": [], "cannot tell": []}
    for row in ledger.rows:
        for at in ledger.headlines:
            if (gap := row.cells[at].difference) and gap.verdict:
                found[gap.verdict].append(row.cells[at])
    return found


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _size(count: int) -> str:
    """Bytes in words: 999 B, 38.3 kB, 1.2 MB, 4.0 GB."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB"):
        if size < 999.95:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    return (
        f"{minutes} min {whole % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    )


def _energy(joules: float) -> str:
    """Joules as what a household pays for: 0.00123 kWh, 45.6 kWh."""
    return f"{joules / 3.6e6:.3g} kWh"


def _image(svg: bytes) -> Any:
    """An SVG as an address that holds it whole."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
