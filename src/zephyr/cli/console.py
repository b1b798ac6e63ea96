"""Shared by all commands: consoles, common arguments and options, loading recipes and plans."""

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from zephyr.engine.plan import Plan
    from zephyr.engine.scheduler import Outcome
    from zephyr.recipe.schema import Recipe
    from zephyr.runs.store import Store

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
Processes = Annotated[
    int | None,
    typer.Option(help="Processes that train together (default: run.processes).", min=1),
]
NoPreflight = Annotated[
    bool, typer.Option("--no-proofs", help="Trains without the proofs before the first step.")
]

EXIT_INTERRUPTED = 130


def open_store() -> "Store":
    """Opens the run store: ZEPHYR_RUNS, or ./runs."""
    from zephyr.runs.store import Store

    return Store(Path(os.environ.get("ZEPHYR_RUNS", "runs")).resolve())


def load_recipe(name: str, overrides: Sequence[str] | None = None) -> "tuple[Recipe, Path]":
    """Loads a recipe by file or name, and its folder."""
    from zephyr.recipe.load import find_recipe, read_recipe

    path = find_recipe(name)
    return read_recipe(path, overrides or ()), path.resolve().parent


def load_plan(
    name: str,
    overrides: Sequence[str] | None = None,
    jobs: int | None = None,
    processes: int | None = None,
    *,
    no_preflight: bool = False,
) -> "Plan":
    """Loads a recipe and makes its plan in the run store."""
    from zephyr.engine import plan

    chosen = {"jobs": jobs, "processes": processes}
    run_overrides = [f"run.{key}={value}" for key, value in chosen.items() if value]
    run_overrides += ["run.proofs=false"] if no_preflight else []
    recipe, folder = load_recipe(name, [*(overrides or ()), *run_overrides])
    return plan.make_plan(recipe, folder, open_store(), name, overrides or ())


def run_plan_with_progress(
    plan: "Plan", wanted: Collection[str] | None = None
) -> "tuple[Outcome, Plan]":
    """Runs the stale nodes of a plan (or only the wanted ones) with a progress display.

    Returns the outcome, and the plan as it is then.
    """
    from zephyr.cli.progress import ProgressDisplay
    from zephyr.engine import scheduler as engine_scheduler
    from zephyr.engine.plan import pending_nodes as find_pending_nodes

    todo = find_pending_nodes(plan, wanted)
    if wanted is None:
        waiting = sum(plan.state(name) == "waiting" for name in todo)
        fresh = len(plan.nodes) - len(todo)
        summary = f"{plan.recipe.name}: {fresh} nodes kept, {len(todo)} to make"
        if waiting:
            summary += f" ({waiting} of them only if the data change)"
        out.print(summary, highlight=False)
    with plan.store.lock():
        plan.write_nodes()
        with ProgressDisplay(plan, out, len(todo)) as display:
            return engine_scheduler.run_plan(plan, wanted, display.on_report)


def exit_with_outcome(outcome: "Outcome", recipe: str) -> None:
    """Prints the failures of a run, if any, and exits with the corresponding code."""
    for name, text in outcome.failed.items():
        err.print(f"[bold red]{name} failed:[/] {escape(text)}", highlight=False)
    for name, text in outcome.broken.items():
        err.print(f"[bold red]{name} broke; this is a defect of Zephyr:[/]\n{escape(text)}")
    if outcome.skipped:
        err.print(f"Not tried: {', '.join(outcome.skipped)}", highlight=False)
    if outcome.stopped:
        err.print(f"Stopped. What is finished is kept; to go on: zephyr run {recipe}")
        raise typer.Exit(EXIT_INTERRUPTED)
    if outcome.broken:
        raise typer.Exit(1)
    if outcome.failed:
        raise typer.Exit(2)
