"""The command line. Heavy libraries are imported by the command that needs them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zephyr.errors import ZephyrError, unknown

if TYPE_CHECKING:
    from zephyr.engine import Outcome, Plan
    from zephyr.store import Run, Store

app = typer.Typer(
    help="Turns a small open language model into a course tutor, and measures every step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, soft_wrap=True)

RecipeArgument = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a recipe that comes with Zephyr.")
]
RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="The recipe whose nodes are meant.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="Changes the recipe: models.M2.align.beta=0.2", metavar="KEY=VALUE"
    ),
]
Jobs = Annotated[int | None, typer.Option(help="Stages side by side (default: run.jobs).", min=1)]

STOPPED = 130


def main() -> None:
    """Runs the command line; wrong input is told without a traceback and exits with code 2."""
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
    recipe: RecipeArgument = "embedded", overrides: Overrides = None, jobs: Jobs = None
) -> None:
    """Brings a recipe up to date: trains, evaluates and reports what is not there yet."""
    plan = _plan(recipe, overrides, jobs)
    outcome = _bring_up_to_date(plan)
    _report(plan)
    _end(outcome, recipe)


@app.command()
def plan(recipe: RecipeArgument = "embedded", overrides: Overrides = None) -> None:
    """Shows each node of a recipe as fresh, stale, missing, unfinished or failed; makes nothing."""
    found = _plan(recipe, overrides)
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "kind", "from", "state", "run"):
        table.add_column(heading)
    colours = {"fresh": "green", "stale": "yellow", "failed": "red"}
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


@app.command()
def why(
    node: Annotated[str, typer.Argument(help="A node of the recipe, such as M2 or M2/gsm8k.")],
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Says why a node would be made again: which of its inputs changed since the last run."""
    from zephyr.engine import changes

    found = _plan(recipe, overrides)
    if node not in found.nodes:
        raise unknown("node", node, found.nodes, where=f"recipe {found.recipe.name}")
    state = found.state(node)
    out.print(f"[bold]{node}[/] is {state}", highlight=False)
    for line in changes(found, node):
        out.print(f"  {escape(line)}", highlight=False)
    _show_environment(found.store.find(found.nodes[node].fingerprint))


@app.command()
def report(recipe: RecipeArgument = "embedded", overrides: Overrides = None) -> None:
    """Writes the tables, the figures and the report from what has been run, and shows the table."""
    _report(_plan(recipe, overrides))


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A model of the recipe.")],
    task: Annotated[str, typer.Argument(help="A task of the recipe.")],
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Asks one model one task, making whatever that needs, and prints the scores."""
    found = _plan(recipe, overrides)
    name = f"{model}/{task}"
    if name not in found.nodes:
        evaluations = [n for n, node in found.nodes.items() if node.kind == "evaluation"]
        raise unknown("evaluation", name, evaluations, where=f"recipe {found.recipe.name}")
    outcome = _bring_up_to_date(found, only=name)
    if not (outcome.failed or outcome.broken or outcome.stopped):
        _show_scores(found.store.find(found.nodes[name].fingerprint))
    _end(outcome, recipe)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A model of the recipe.")],
    recipe: RecipeOption = "embedded",
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Talks with a model that has been run. An empty line or Ctrl-D ends, /new starts afresh."""
    from zephyr.chat import converse

    found = _plan(recipe)
    if model not in found.recipe.models:
        raise unknown("model", model, found.recipe.models, where=f"recipe {found.recipe.name}")
    made = found.store.find(found.nodes[model].fingerprint)
    if not made.finished:
        raise ZephyrError(
            f"{model} has not been made yet",
            where=str(found.store.root),
            todo=f"zephyr run {recipe}",
        )
    converse(made, found.store, out, temperature=temperature, max_new_tokens=max_new_tokens)


@app.command("list")
def list_runs() -> None:
    """Lists the recipes that have been run here, and what each of their nodes weighs."""
    store = _store()
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
            state = "finished" if made.finished else "failed" if made.failure else "unfinished"
            sizes = made.read("DONE")["bytes"].values() if made.finished else ()
            seconds = f"{made.read('env.json')['seconds']:.1f}" if made.finished else ""
            size = f"{sum(sizes) / 1e6:.1f} MB" if made.finished else ""
            mark = node["fingerprint"][:8]
            table.add_row(recipe, node["name"], node["kind"], state, size, seconds, mark)
    out.print(table)


@app.command()
def doctor() -> None:
    """Shows versions, devices, free memory and disk, and what is missing."""
    from zephyr.doctor import examine

    findings = examine(_store().root)
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = "[green]ok[/]" if finding.good else "[red]!![/]"
        table.add_row(mark, finding.what, escape(finding.found), escape(finding.todo))
    out.print(table)
    if not all(finding.good for finding in findings):
        raise typer.Exit(2)


def _store() -> "Store":
    from zephyr.store import Store

    return Store(Path(os.environ.get("ZEPHYR_RUNS", "runs")).resolve())


def _plan(recipe: str, overrides: list[str] | None = None, jobs: int | None = None) -> "Plan":
    from zephyr.engine import plan as make_plan
    from zephyr.recipe_file import find_recipe, read_recipe

    path = find_recipe(recipe)
    extra = [f"run.jobs={jobs}"] if jobs else []
    return make_plan(
        read_recipe(path, [*(overrides or ()), *extra]), path.resolve().parent, _store()
    )


def _bring_up_to_date(plan: "Plan", only: str | None = None) -> "Outcome":
    from zephyr import engine
    from zephyr.display import Display

    todo = engine.todo(plan, only)
    kept = len(plan.nodes) - len(todo)
    if only is None:
        out.print(f"{plan.recipe.name}: {kept} nodes kept, {len(todo)} to make", highlight=False)
    with plan.store.lock():
        plan.record()
        with Display(plan, out, len(todo)) as display:
            return engine.run(plan, todo, display.hear)


def _report(plan: "Plan") -> None:
    from zephyr.report.ledger import read_ledger
    from zephyr.report.page import write_report
    from zephyr.report.tables import console_table

    if plan.store.nodes(plan.recipe.name) is None:
        raise ZephyrError(
            f"recipe {plan.recipe.name} has not been run here",
            where=str(plan.store.root),
            todo=f"zephyr run {plan.recipe.name}",
        )
    page = write_report(plan.store, plan.recipe.name)
    out.print(console_table(read_ledger(plan.store, plan.recipe.name)))
    out.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _show_scores(run: "Run") -> None:
    scores = run.read("artifact/scores.json")
    for metric in scores["metrics"]:
        if metric.get("value") is None:
            out.print(f"{metric['name']}: {metric['empty']}", highlight=False)
            continue
        value, low, high = (metric[k] * metric["scale"] for k in ("value", "low", "high"))
        out.print(
            f"{metric['name']} {value:.2f}  95 % [{low:.2f}, {high:.2f}]  n={metric['n']}\n"
            f"  {metric['protocol']}",
            highlight=False,
        )


def _show_environment(run: "Run") -> None:
    if (run.path / "env.json").exists():
        env = run.read("env.json")
        keys = ("threads", "token_budget", "layout", "dtype", "device", "machine", "python")
        facts = ", ".join(f"{k} {env[k]}" for k in keys if k in env)
        out.print(f"  made with: {facts}", highlight=False)


def _end(outcome: "Outcome", recipe: str) -> None:
    """Tells what went wrong, if anything did, and leaves with the code that says so."""
    for name, text in outcome.failed.items():
        err.print(f"[bold red]{name} failed:[/] {escape(text)}", highlight=False)
    for name, text in outcome.broken.items():
        err.print(f"[bold red]{name} broke; this is a defect of Zephyr:[/]\n{escape(text)}")
    if outcome.skipped:
        err.print(f"Not tried: {', '.join(outcome.skipped)}", highlight=False)
    if outcome.stopped:
        err.print(f"Stopped. What is finished is kept; to go on: zephyr run {recipe}")
        raise typer.Exit(STOPPED)
    if outcome.broken:
        raise typer.Exit(1)
    if outcome.failed:
        raise typer.Exit(2)
