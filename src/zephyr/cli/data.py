"""`zephyr data`: checks, downloads, builds, shows, compares and exports the data of a recipe."""

import re
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from zephyr.cli.base_notes import describe_bases
from zephyr.cli.console import (
    Overrides,
    RecipeArgument,
    RecipeOption,
    exit_with_outcome,
    load_plan,
    load_recipe,
    out,
    run_plan_with_progress,
)
from zephyr.cli.fetch import fetch, fetch_missing
from zephyr.errors import ZephyrError, unknown_name_error

if TYPE_CHECKING:
    from zephyr.data.sampling import ExcludedRow
    from zephyr.engine.fetch import SourceStatus
    from zephyr.engine.plan import Plan
    from zephyr.records import Record
    from zephyr.runs.store import Run

app = typer.Typer(
    help="What a recipe's data are: checked, fetched, shown, compared and exported.",
    no_args_is_help=True,
)

MixtureArgument = Annotated[str, typer.Argument(help="A mixture of the recipe, such as sft.")]


@app.command()
def check(recipe: RecipeArgument = "embedded", overrides: Overrides = None) -> None:
    """Lists every source with its columns, licence and rows, and says what can't be had here."""
    from zephyr.data.licences import licence_warnings
    from zephyr.engine import fetch as engine_fetch

    states = engine_fetch.check_sources(*load_recipe(recipe, overrides))
    table = Table(box=None, pad_edge=False)
    for heading in ("in", "source", "columns", "licence", "expected rows", "here"):
        side: Literal["left", "right"] = "right" if heading == "expected rows" else "left"
        table.add_column(heading, justify=side, overflow="fold")
    notes: dict[str, list[str]] = {}
    for state in states:
        registered = state.registered
        table.add_row(
            state.where.removeprefix("evaluate.tasks."),
            state.name,
            ", ".join(registered.columns) if registered else "by their form",
            "Zephyr's own"
            if state.is_embedded
            else registered.licence
            if registered
            else state.licence,
            f"{state.expected_rows:,}" if state.expected_rows is not None else "",
            f"[{'red' if state.problem else 'default'}]{escape(state.message)}[/]",
        )
        if registered is not None and not state.is_embedded:
            doubts = [f"{fact} is {how}" for fact, how in registered.uncertain.items()]
            unpinned = (
                ["its files are not pinned"]
                if registered.hub and not registered.hub.is_pinned
                else []
            )
            notes[registered.name] = [*licence_warnings(registered), *doubts, *unpinned]
    out.print(table)
    for name, warnings in notes.items():
        if warnings:
            out.print(f"[bold]{name}[/]: {escape('; '.join(warnings))}", highlight=False)
    if lines := describe_bases(*load_recipe(recipe, overrides)):
        out.print("\n" + "\n".join(lines), highlight=False, markup=False)
    unavailable = [state for state in states if state.problem is not None]
    _print_problems(unavailable)
    out.print(f"\n{len(states) - len(unavailable)} of {len(states)} can be had", highlight=False)
    if unavailable:
        raise typer.Exit(2)


def _print_problems(unavailable: "list[SourceStatus]") -> None:
    """Prints each problem once, with the names of all sources that have it."""
    from zephyr.data.hub import HubUnreachableError

    by_problem: dict[str, list[SourceStatus]] = {}
    for state in unavailable:
        problem = re.sub(r"(?m)^  where: .*\n", "", str(state.problem))
        if isinstance(state.problem, HubUnreachableError):
            problem = state.message
        by_problem.setdefault(problem, []).append(state)
    for states in by_problem.values():
        names = ", ".join(dict.fromkeys(state.name for state in states))
        out.print(f"\n[red]{names}[/]: {escape(str(states[0].problem))}", highlight=False)


app.command()(fetch)


@app.command()
def build(recipe: RecipeArgument = "embedded", overrides: Overrides = None) -> None:
    """Builds the mixtures of a recipe and nothing else, and shows the row counts of each."""
    fetch_missing(recipe, overrides)
    plan = load_plan(recipe, overrides)
    mixtures = [name for name, node in plan.nodes.items() if node.kind == "mixture"]
    outcome, plan = run_plan_with_progress(plan, mixtures)
    for name in mixtures:
        run = plan.store.find(plan.nodes[name].fingerprint)
        if run.is_finished:
            _show_counts(name.removeprefix("data."), run)
    exit_with_outcome(outcome, recipe)


def _show_counts(name: str, run: "Run") -> None:
    from zephyr.report.data_card import account_lines

    manifest = run.read("artifact/manifest.json")
    table = Table(box=None, pad_edge=False, title=name, title_justify="left")
    totals = manifest["totals"]
    shown = [k for k in totals if totals[k] or k in ("seen", "kept")]
    for heading in ("source", *shown):
        side: Literal["left", "right"] = "left" if heading == "source" else "right"
        table.add_column(heading.replace("_", " "), justify=side, overflow="fold")
    for source, row in (*manifest["sources"].items(), ("all", totals)):
        counts = (sum(row[k].values()) if isinstance(row[k], dict) else row[k] for k in shown)
        table.add_row(source, *(f"{count:,}" for count in counts))
    out.print(table)
    if manifest["clean"] == "report":
        out.print("Repeated, contaminated and near-duplicate records are counted, and kept.")
    for line in account_lines(manifest):
        out.print(escape(line), soft_wrap=True, highlight=False)
    if totals["unreadable"]:
        out.print(f"`zephyr data show {name} --left-out` lists what could not be read.")
    out.print(f"{run.artifact}\n", soft_wrap=True, highlight=False)


@app.command()
def show(
    mixture: MixtureArgument,
    recipe: RecipeOption = "embedded",
    model: Annotated[
        str | None, typer.Option(help="Whose tokens are shown (default: the first trained on it).")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only records of this source.")] = None,
    side: Annotated[Literal["train", "holdout"], typer.Option(help="Which side.")] = "train",
    skip: Annotated[int, typer.Option(min=0, help="Records to pass over.")] = 0,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Records to show.")] = None,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="The rows left out, with place and reason.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Pages through records as a model will see them, supervised tokens in colour."""
    from zephyr.cli.show import render_records
    from zephyr.data import mixture as mixtures
    from zephyr.model.load import silence_libraries
    from zephyr.model.tokenizer import load_tokenizer

    plan = load_plan(recipe, overrides)
    run = _finished_mixture_run(plan, mixture, recipe)
    end = None if n is None else skip + n
    if left_out:
        _check_source(source, run.read("artifact/manifest.json")["sources"], f"mixture {mixture}")
        rows = mixtures.load_excluded_rows(run.artifact)
        _print_excluded_rows([row for row in rows if source in (None, row.source)][skip:end])
        return
    records: list[Record] = getattr(mixtures.load_mixture(run.artifact), side)
    _check_source(source, (r.source for r in records), f"mixture {mixture}, {side}")
    records = [record for record in records if source in (None, record.source)]
    silence_libraries()
    tokenizer = load_tokenizer(_tokenizer_folder(plan, mixture, model, recipe))
    chosen = records[skip:end]
    if not sys.stdout.isatty():
        for view in render_records(chosen, tokenizer):
            out.print(view, soft_wrap=True)
        return
    with out.pager(styles=True):
        for view in islice(render_records(chosen, tokenizer), None if n else 100):
            out.print(view)


def _check_source(source: str | None, known: Iterable[str], where: str) -> None:
    """Checks that a source, if one is asked for, is among those known."""
    if source is not None and source not in (names := set(known)):
        raise unknown_name_error("source", source, names, where=where)


def _print_excluded_rows(rows: "list[ExcludedRow]") -> None:
    """Prints the rows that were left out, and how many for each reason."""
    for row in rows:
        outcome = row.outcome.replace("_", " ")
        line = f"{row.source} row {row.row} · {row.location} · {outcome}: {row.reason}"
        out.print(escape(line), soft_wrap=True, highlight=False)
    out.print(f"{len(rows):,} row{'s' * (len(rows) != 1)} left out", highlight=False)


def _finished_mixture_run(plan: "Plan", mixture: str, recipe: str) -> "Run":
    if mixture not in plan.recipe.data:
        where = f"recipe {plan.recipe.name}"
        raise unknown_name_error("mixture", mixture, plan.recipe.data, where=where)
    run = plan.store.find(plan.nodes[f"data.{mixture}"].fingerprint)
    if not run.is_finished:
        raise ZephyrError(
            f"mixture {mixture!r} has not been drawn yet",
            where=str(plan.store.root),
            todo=f"zephyr data build {recipe}",
        )
    return run


def _tokenizer_folder(plan: "Plan", mixture: str, model: str | None, recipe: str) -> Path:
    """The folder of the tokenizer of the first model trained on a mixture, or of `model`."""
    from zephyr.model.base_model import locate_base_model

    models = plan.recipe.models
    if model is None:
        readers = [name for name, m in models.items() if mixture in m.mixtures]
        model = next(iter(readers or models))
    if model not in models:
        raise unknown_name_error("model", model, models, where=f"recipe {plan.recipe.name}")
    while (origin := models[model].from_) is not None:
        model = origin
    base = models[model].base
    if base is not None:
        path = locate_base_model(base, plan.folder, f"models.{model}.base")
        if path.is_dir():
            return path
    run = plan.store.find(plan.nodes[model].fingerprint)
    if not run.is_finished:
        raise ZephyrError(
            f"{model} makes the tokenizer, and has not been made yet",
            where=str(plan.store.root),
            todo=f"zephyr run {recipe}",
        )
    return run.artifact / "weights"


@app.command()
def card(
    mixture: MixtureArgument, recipe: RecipeOption = "embedded", overrides: Overrides = None
) -> None:
    """Prints the data card of a mixture (Markdown): row counts, sources, licences and warnings."""
    from zephyr.report.data_card import data_card

    plan = load_plan(recipe, overrides)
    manifest = _finished_mixture_run(plan, mixture, recipe).read("artifact/manifest.json")
    spec = plan.recipe.data[mixture]
    tokens = _token_counts(plan, mixture, recipe)
    sys.stdout.write(data_card(mixture, spec, manifest, tokens, plan.recipe.origin))


def _token_counts(plan: "Plan", mixture: str, recipe: str) -> "Mapping[str, Mapping[str, int]]":
    """Token counts by source for the first model trained on a mixture, if available."""
    from zephyr.data import mixture as mixtures
    from zephyr.model.load import silence_libraries
    from zephyr.model.template import ChatTemplate
    from zephyr.model.tokenizer import load_tokenizer
    from zephyr.train.examples import build_examples

    for name, model in plan.recipe.models.items():
        spec = model.tune or model.align
        if spec is not None and spec.data == mixture:
            trained = plan.store.find(plan.nodes[name].fingerprint)
            if trained.is_finished:
                recorded: Mapping[str, Mapping[str, int]] = trained.read("artifact/examples.json")[
                    "sources"
                ]
                return recorded
            try:
                folder = _tokenizer_folder(plan, mixture, name, recipe)
            except ZephyrError:
                return {}
            silence_libraries()
            template = ChatTemplate(load_tokenizer(folder))
            records = mixtures.load_mixture(_finished_mixture_run(plan, mixture, recipe).artifact)
            counts: Mapping[str, Mapping[str, int]] = build_examples(
                template, records, spec, spec.max_length
            ).summary["sources"]
            return counts
    return {}


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A lock file, a folder with one, or a mixture.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Compares two builds of a mixture row by row; exits with 1 where they differ."""
    from zephyr.data.lock import compare_locks, count_by_source

    difference = compare_locks(
        *(_read_lock_of(name, recipe, overrides) for name in (first, second))
    )
    out.print(f"{difference.unchanged:,} records are the same", highlight=False)
    for label, places in (
        (f"only in {first}", difference.only_first),
        (f"only in {second}", difference.only_second),
        ("of other content", difference.changed_content),
        ("on another side", difference.changed_side),
    ):
        if places:
            counts = ", ".join(f"{s} {n:,}" for s, n in count_by_source(places).items())
            some = ", ".join(f"{s} {row}" for s, row in places[:5])
            out.print(f"{len(places):,} {label}: {counts} (rows: {some}, …)", highlight=False)
    if difference.is_reordered:
        out.print("in another order")
    if not difference.is_empty:
        raise typer.Exit(1)


def _read_lock_of(name: str, recipe: str, overrides: list[str] | None) -> "list[dict[str, str]]":
    from zephyr.data.lock import read_lock

    if Path(name).exists():
        return read_lock(Path(name))
    return read_lock(_finished_mixture_run(load_plan(recipe, overrides), name, recipe).artifact)


@app.command()
def export(
    mixture: MixtureArgument,
    to: Annotated[
        Literal["llama-factory", "trl", "parquet", "course"], typer.Option(help="The form.")
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="The folder to write to.")],
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Writes a mixture for other programs."""
    from zephyr.data import mixture as mixtures
    from zephyr.data.export import export_mixture as write_data_set

    run = _finished_mixture_run(load_plan(recipe, overrides), mixture, recipe)
    for path in write_data_set(mixtures.load_mixture(run.artifact), out_folder, mixture, to):
        out.print(str(path), soft_wrap=True, highlight=False)
