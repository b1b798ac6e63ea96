"""The command line. Heavy libraries are imported by the command that needs them."""

import os
import signal
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from zephyr.cli import data as cli_data
from zephyr.cli import evaluate as cli_eval
from zephyr.cli import tutor as cli_tutor
from zephyr.cli.console import (
    STOPPED,
    Jobs,
    NoProofs,
    Overrides,
    Processes,
    RecipeArgument,
    RecipeOption,
    bring_up_to_date,
    end,
    err,
    make_plan,
    open_store,
    out,
)
from zephyr.errors import ZephyrError, unknown

if TYPE_CHECKING:
    from zephyr.engine.plan import Plan
    from zephyr.runs.store import Run

app = typer.Typer(
    help="Turns a small open language model into a course tutor, and measures every step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_eval.app, name="eval")
app.add_typer(cli_tutor.preferences, name="preferences")


def main() -> None:
    """Runs the command line; wrong input is told without a traceback and exits with code 2.

    SIGTERM, by which a scheduler asks a process to end, does what Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app()
    except ZephyrError as error:
        err.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("Stopped.")
        sys.exit(STOPPED)


@app.command()
def run(
    recipe: RecipeArgument = "embedded",
    overrides: Overrides = None,
    jobs: Jobs = None,
    processes: Processes = None,
    no_proofs: NoProofs = False,
) -> None:
    """Brings a recipe up to date: trains, evaluates and reports what is not there yet.

    Started by torchrun, its first process does that, and all of them train together.
    """
    from zephyr.distributed.rendezvous import given_rank, given_size

    if given_rank() > 0:
        from zephyr.engine.rank_worker import follow

        follow()
        return
    cli_data.fetch_missing(recipe, overrides)
    if given_size() > 1:
        processes = given_size()
    plan = make_plan(recipe, overrides, jobs, processes, no_proofs=no_proofs)
    outcome, plan = bring_up_to_date(plan)
    _report(plan)
    end(outcome, recipe)


@app.command()
def plan(recipe: RecipeArgument = "embedded", overrides: Overrides = None) -> None:
    """Shows which nodes of a recipe are fresh, and which are to be made; makes nothing."""
    found = make_plan(recipe, overrides)
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "kind", "from", "state", "run"):
        table.add_column(heading)
    colours = {"fresh": "green", "stale": "yellow", "failed": "red", "damaged": "red"}
    for name, node in found.nodes.items():
        state = found.state(name)
        colour = colours.get(state, "default")
        origin = ", ".join(node.inputs.values())
        table.add_row(name, node.kind, origin, f"[{colour}]{state}[/]", node.fingerprint[:8])
    out.print(table)
    todo = sum(found.state(name) != "fresh" for name in found.nodes)
    out.print(
        f"\n{todo} of {len(found.nodes)} nodes to make in {found.store.root}", highlight=False
    )
    if any(found.state(name) == "waiting" for name in found.nodes):
        out.print("waiting: kept if the mixtures above draw the same records as before")


@app.command()
def why(
    node: Annotated[str, typer.Argument(help="A node of the recipe, such as M2 or M2/gsm8k.")],
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Says why a node would be made again: which of its inputs changed since the last run."""
    from zephyr.engine.plan import changes

    found = make_plan(recipe, overrides)
    if node not in found.nodes:
        raise unknown("node", node, found.nodes, where=f"recipe {found.recipe.name}")
    state = found.state(node)
    out.print(f"[bold]{node}[/] is {state}", highlight=False)
    for line in changes(found, node):
        out.print(f"  {escape(line)}", highlight=False)
    _show_environment(found.store.find(found.nodes[node].fingerprint))


@app.command()
def report(
    recipe: RecipeArgument = "embedded",
    overrides: Overrides = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Writes it again when runs change, until Ctrl-C.")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks of --watch.", min=1)] = 30,
) -> None:
    """Writes the tables, the figures and the report from what has been run, and shows the table."""
    found = make_plan(recipe, overrides)
    if not watch:
        _report(found)
        return
    with suppress(KeyboardInterrupt):
        _watch(found, every)


app.command()(cli_eval.compare)
app.command()(cli_tutor.serve)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A model of the recipe.")],
    recipe: RecipeOption = "embedded",
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Talks with a model that has been run. An empty line or Ctrl-D ends, /new starts afresh."""
    from zephyr.cli.chat import converse

    found = make_plan(recipe)
    made = _made(found, model, recipe)
    converse(made, found.store, out, temperature=temperature, max_new_tokens=max_new_tokens)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model of the recipe.")],
    to: Annotated[
        Literal["peft", "merged", "gguf", "ollama"],
        typer.Option(
            help="peft: its adapters as one. merged: a whole model for transformers. gguf: one file"
            " for llama.cpp. ollama: the same with a Modelfile."
        ),
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="A folder that is new, or empty.")],
    kind: Annotated[
        Literal["f16", "q8_0", "q4_0"] | None,
        typer.Option("--type", help="How gguf and ollama store weights (default: q8_0)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Writes into a folder that holds something already.")
    ] = False,
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Writes a model that has been run for other programs, with a model card."""
    from zephyr.export.write import export as write

    found = make_plan(recipe, overrides)
    _made(found, model, recipe)
    made = write(found, model, to, out_folder, kind=kind, force=force)
    out.print(f"{out_folder}: {made.what}", soft_wrap=True, highlight=False, markup=False)
    for text in made.said:
        out.print(f"  {text}", soft_wrap=True, highlight=False, markup=False)


@app.command("list")
def list_runs() -> None:
    """Lists the recipes that have been run here, and what each of their nodes weighs."""
    from zephyr.report.damage import damage

    store = open_store()
    recipes = sorted(p.parent.name for p in store.root.glob("*/nodes.json"))
    if not recipes:
        out.print(f"Nothing has been run in {store.root} yet: zephyr run", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "node", "kind", "state", "size", "seconds", "run"):
        table.add_column(heading, justify="right" if heading in ("size", "seconds") else "left")
    for recipe in recipes:
        for node in (store.nodes(recipe) or {"nodes": []})["nodes"]:
            made = store.find(node["fingerprint"])
            seconds = size = ""
            if damage(made):
                state = "damaged"
            elif made.finished:
                state = "finished"
                size = f"{sum(made.read('DONE')['bytes'].values()) / 1e6:.1f} MB"
                seconds = f"{made.read('env.json')['seconds']:.1f}"
            else:
                state = "failed" if made.failure else "unfinished"
            mark = node["fingerprint"][:8]
            table.add_row(recipe, node["name"], node["kind"], state, size, seconds, mark)
    out.print(table)


@app.command()
def doctor() -> None:
    """Shows versions, devices, free memory and disk, and what is missing."""
    from zephyr.cli.doctor import examine

    findings = examine(open_store().root)
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = "[green]ok[/]" if finding.good else "[red]!![/]"
        table.add_row(mark, finding.what, escape(finding.found), escape(finding.todo))
    out.print(table)
    if not all(finding.good for finding in findings):
        raise typer.Exit(2)


def _made(plan: "Plan", model: str, recipe: str) -> "Run":
    """The run of a model that is up to date."""
    if model not in plan.recipe.models:
        raise unknown("model", model, plan.recipe.models, where=f"recipe {plan.recipe.name}")
    made = plan.store.find(plan.nodes[model].fingerprint)
    if plan.state(model) != "fresh":
        told = f"the data of {model} have changed" if made.finished else f"{model} is not made yet"
        raise ZephyrError(
            f"the run of {model} is damaged" if plan.state(model) == "damaged" else told,
            where=str(plan.store.root),
            todo=f"zephyr run {recipe}",
        )
    return made


def _report(plan: "Plan") -> None:
    from zephyr.report.ledger import read_ledger
    from zephyr.report.page import write_report
    from zephyr.report.tables import console_table

    _refuse_other(plan)
    try:
        page = write_report(plan.store, plan.recipe.name)
        table = console_table(read_ledger(plan.store, plan.recipe.name))
    except FileNotFoundError as error:
        raise ZephyrError(
            "a run has been moved or removed while it was read",
            where=error.filename,
            todo="write the report again: zephyr report",
        ) from error
    out.print(table)
    out.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _watch(plan: "Plan", every: float) -> None:
    from zephyr.report.page import write_report
    from zephyr.report.watch import changes

    looks = changes(plan.store, plan.recipe.name, every)
    next(looks)
    _report(plan)
    out.print("Watching its runs; Ctrl-C ends.")
    for _ in looks:
        with suppress(FileNotFoundError):  # a run has been finished meanwhile: the next change
            write_report(plan.store, plan.recipe.name)
            out.print(f"Written at {datetime.now().astimezone():%H:%M:%S}", highlight=False)


def _refuse_other(plan: "Plan") -> None:
    """Says so where the runs of this name are not those that the recipe asks for.

    Raises:
        ZephyrError: they are those of another recipe, or there are none.
    """
    name = plan.recipe.name
    known = plan.store.nodes(name)
    if known is None:
        raise ZephyrError(
            f"recipe {name} has not been run here",
            where=str(plan.store.root),
            todo=f"zephyr run {name}",
        )
    models = known["spec"].get("models", {})
    if not plan.recipe.models.keys() & models.keys():
        raise ZephyrError(
            f"another recipe of the name {name} was run here",
            where=str(plan.store.recipe_folder(name)),
            found=f"models {', '.join(models)}",
            allowed=plan.recipe.models,
            todo="give one of them another `name`, or run this one",
        )
    last = {node["name"]: node["fingerprint"] for node in known["nodes"]}
    other = [n for n, node in plan.nodes.items() if last.get(n) != node.fingerprint]
    if other:
        err.print(
            f"[yellow]The report is of the last run; {len(other)} of {len(plan.nodes)} nodes of "
            f"this recipe are not in it ({', '.join(other[:3])}{', …' * (len(other) > 3)}).[/]",
            highlight=False,
        )


def _show_environment(run: "Run") -> None:
    if (run.path / "env.json").exists():
        env = run.read("env.json")
        keys = ("threads", "processes", "layout", "dtype", "kept_step", "device", "machine")
        facts = ", ".join(f"{k} {env[k]}" for k in (*keys, "python") if k in env)
        if "budget" in env:
            facts += f", {env['budget']['tokens']} tokens in a forward"
        out.print(f"  made with: {facts}", highlight=False, soft_wrap=True)
        if "proofs" in env:
            out.print(f"  proofs: {_proofs(env['proofs'])}", highlight=False, soft_wrap=True)
        for text in env.get("told", ()):
            out.print(f"  told: {escape(text)}", highlight=False)


def _proofs(found: dict[str, float] | str) -> str:
    """The figures of the proofs before the first step, or that there were none."""
    if isinstance(found, str):
        return found
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.items())
