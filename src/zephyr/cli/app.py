"""The command line interface (typer). Heavy libraries are imported by the commands."""

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
from zephyr.cli import new_course as cli_new_course
from zephyr.cli import tutor as cli_tutor
from zephyr.cli.base_notes import print_base_notes
from zephyr.cli.console import (
    EXIT_INTERRUPTED,
    Jobs,
    NoPreflight,
    Overrides,
    Processes,
    RecipeArgument,
    RecipeOption,
    err,
    exit_with_outcome,
    load_plan,
    open_store,
    out,
    run_plan_with_progress,
)
from zephyr.cli.fetch import fetch_missing
from zephyr.errors import ZephyrError, unknown_name_error

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
app.command()(cli_new_course.new)


def main() -> None:
    """Entry point of the command line; invalid input prints an error and exits with code 2.

    SIGTERM is handled like Ctrl-C.
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
        sys.exit(EXIT_INTERRUPTED)


@app.command()
def run(
    recipe: RecipeArgument = "embedded",
    overrides: Overrides = None,
    jobs: Jobs = None,
    processes: Processes = None,
    no_preflight: NoPreflight = False,
) -> None:
    """Brings a recipe up to date: trains, evaluates and reports what is not there yet.

    Started by torchrun, its first process does that, and all of them train together.
    """
    from zephyr.distributed.rendezvous import launched_rank, launched_world_size

    if launched_rank() > 0:
        from zephyr.engine.rank_worker import run_rank_worker

        run_rank_worker()
        return
    fetch_missing(recipe, overrides)
    if launched_world_size() > 1:
        processes = launched_world_size()
    plan = load_plan(recipe, overrides, jobs, processes, no_preflight=no_preflight)
    if any(
        node.kind == "base" and plan.state(name) != "fresh" for name, node in plan.nodes.items()
    ):
        print_base_notes(plan.recipe, plan.folder)
    outcome, plan = run_plan_with_progress(plan)
    if not outcome.stopped:
        _write_report(plan)
    exit_with_outcome(outcome, recipe)


@app.command()
def plan(recipe: RecipeArgument = "embedded", overrides: Overrides = None) -> None:
    """Shows what is fresh or to be made, how long it took, and what bases allow; makes nothing."""
    from zephyr.cli.progress import format_seconds

    recipe_plan = load_plan(recipe, overrides)
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "kind", "from", "state", "run", "time"):
        table.add_column(heading, justify="right" if heading == "time" else "left")
    colours = {"fresh": "green", "stale": "yellow", "failed": "red", "damaged": "red"}
    for name, node in recipe_plan.nodes.items():
        state = recipe_plan.state(name)
        colour = colours.get(state, "default")
        origin = ", ".join(node.inputs.values())
        seconds = recipe_plan.last_seconds(name)
        last = "" if state == "fresh" else "last "
        time = "–" if seconds is None else f"{last}{format_seconds(seconds)}"
        styled_state = f"[{colour}]{state}[/]"
        table.add_row(name, node.kind, origin, styled_state, node.fingerprint, time)
    out.print(table, "")
    todo = sum(recipe_plan.state(name) != "fresh" for name in recipe_plan.nodes)
    if todo:
        print_base_notes(recipe_plan.recipe, recipe_plan.folder)
    out.print(
        f"{todo} of {len(recipe_plan.nodes)} nodes to make in {recipe_plan.store.root}",
        highlight=False,
    )
    if any(recipe_plan.state(name) == "waiting" for name in recipe_plan.nodes):
        out.print("waiting: kept if the mixtures above draw the same records as before")


@app.command()
def why(
    node: Annotated[str, typer.Argument(help="A node of the recipe, such as M2 or M2/gsm8k.")],
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
) -> None:
    """Says why a node would be made again: which of its inputs changed since the last run."""
    from zephyr.engine.plan import explain_changes

    recipe_plan = load_plan(recipe, overrides)
    if node not in recipe_plan.nodes:
        raise unknown_name_error(
            "node", node, recipe_plan.nodes, where=f"recipe {recipe_plan.recipe.name}"
        )
    state = recipe_plan.state(node)
    out.print(f"[bold]{node}[/] is {state}", highlight=False)
    for line in explain_changes(recipe_plan, node):
        out.print(f"  {escape(line)}", highlight=False)
    _show_environment(recipe_plan.store.find(recipe_plan.nodes[node].fingerprint))


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
    recipe_plan = load_plan(recipe, overrides)
    if not watch:
        _write_report(recipe_plan)
        return
    with suppress(KeyboardInterrupt):
        _rewrite_on_change(recipe_plan, every)


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
    from zephyr.cli.chat import run_chat

    recipe_plan = load_plan(recipe)
    model_run = _finished_model_run(recipe_plan, model, recipe)
    run_chat(
        model_run, recipe_plan.store, out, temperature=temperature, max_new_tokens=max_new_tokens
    )


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
    from zephyr.export.write import export_model as run_export

    recipe_plan = load_plan(recipe, overrides)
    _finished_model_run(recipe_plan, model, recipe)

    def print_phase(phase: str) -> None:
        out.print(f"  {model}: {phase}", highlight=False, markup=False)

    summary = run_export(
        recipe_plan, model, to, out_folder, gguf_type=kind, force=force, on_phase=print_phase
    )
    out.print(f"{out_folder}: {summary.contents}", soft_wrap=True, highlight=False, markup=False)
    for text in summary.notes:
        out.print(f"  {text}", soft_wrap=True, highlight=False, markup=False)


@app.command("list")
def list_runs() -> None:
    """Lists the recipes that have been run here, and what each of their nodes weighs."""
    from zephyr.report.integrity import integrity_error

    store = open_store()
    recipes = sorted(p.parent.name for p in store.root.glob("*/nodes.json"))
    if not recipes:
        out.print(f"Nothing has been run in {store.root} yet: zephyr run", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "node", "kind", "state", "size", "seconds", "run"):
        table.add_column(heading, justify="right" if heading in ("size", "seconds") else "left")
    for recipe in recipes:
        for node in (store.read_nodes(recipe) or {"nodes": []})["nodes"]:
            node_run = store.find(node["fingerprint"])
            seconds = size = ""
            if integrity_error(node_run):
                state = "damaged"
            elif node_run.is_finished:
                state = "finished"
                size = f"{sum(node_run.read('DONE')['bytes'].values()) / 1e6:.1f} MB"
                seconds = f"{node_run.read('env.json')['seconds']:.1f}"
            else:
                state = "failed" if node_run.failure else "unfinished"
            fingerprint = node["fingerprint"][:8]
            table.add_row(recipe, node["name"], node["kind"], state, size, seconds, fingerprint)
    out.print(table)


@app.command()
def doctor() -> None:
    """Shows versions, devices, free memory and disk, and what is missing."""
    from zephyr.cli.doctor import check_machine

    findings = check_machine(open_store().root)
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        status = "[green]ok[/]" if finding.is_ok else "[red]!![/]"
        table.add_row(status, finding.name, escape(finding.found), escape(finding.todo))
    out.print(table)
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(2)


def _finished_model_run(plan: "Plan", model: str, recipe: str) -> "Run":
    """The finished run of a model; an error if it is not up to date."""
    if model not in plan.recipe.models:
        raise unknown_name_error(
            "model", model, plan.recipe.models, where=f"recipe {plan.recipe.name}"
        )
    model_run = plan.store.find(plan.nodes[model].fingerprint)
    if plan.state(model) != "fresh":
        reason = (
            f"the data of {model} have changed"
            if model_run.is_finished
            else f"{model} is not made yet"
        )
        raise ZephyrError(
            f"the run of {model} is damaged" if plan.state(model) == "damaged" else reason,
            where=str(plan.store.root),
            todo=f"zephyr run {recipe}",
        )
    return model_run


def _write_report(plan: "Plan") -> None:
    from zephyr.report.page import write_report
    from zephyr.report.results import read_results
    from zephyr.report.terminal import console_table

    _check_recorded_runs(plan)
    try:
        page = write_report(plan.store, plan.recipe.name)
        table = console_table(read_results(plan.store, plan.recipe.name))
    except FileNotFoundError as error:
        raise ZephyrError(
            "a run has been moved or removed while it was read",
            where=error.filename,
            todo="write the report again: zephyr report",
        ) from error
    out.print(table)
    out.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _rewrite_on_change(plan: "Plan", interval_seconds: float) -> None:
    from zephyr.report.page import write_report
    from zephyr.report.watch import watch_runs

    run_changes = watch_runs(plan.store, plan.recipe.name, interval_seconds)
    next(run_changes)
    _write_report(plan)
    out.print("Watching its runs; Ctrl-C ends.")
    for _ in run_changes:
        with suppress(FileNotFoundError):  # a run has just finished: retried at the next change
            write_report(plan.store, plan.recipe.name)
            out.print(f"Written at {datetime.now().astimezone():%H:%M:%S}", highlight=False)


def _check_recorded_runs(plan: "Plan") -> None:
    """Checks that the recorded runs of this name are those of the recipe.

    Raises:
        ZephyrError: they are of another recipe, or there are none.
    """
    name = plan.recipe.name
    recorded = plan.store.read_nodes(name)
    if recorded is None:
        raise ZephyrError(
            f"recipe {name} has not been run here",
            where=str(plan.store.root),
            todo=f"zephyr run {plan.arguments}",
        )
    models = recorded["spec"].get("models", {})
    if not plan.recipe.models.keys() & models.keys():
        raise ZephyrError(
            f"another recipe of the name {name} was run here",
            where=str(plan.store.recipe_folder(name)),
            found=f"models {', '.join(models)}",
            allowed=plan.recipe.models,
            todo="give one of them another `name`, or run this one",
        )
    plan.check_name_is_free()
    recorded_fingerprints = {node["name"]: node["fingerprint"] for node in recorded["nodes"]}
    outdated = [
        n for n, node in plan.nodes.items() if recorded_fingerprints.get(n) != node.fingerprint
    ]
    if outdated:
        err.print(
            f"[yellow]The report is of the last run; {len(outdated)} of {len(plan.nodes)} nodes of "
            "this recipe are not in it "
            f"({', '.join(outdated[:3])}{', …' * (len(outdated) > 3)}).[/]",
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
        if "lora_reach" in env:
            reach = env["lora_reach"]
            share = reach["weights"] / max(1, reach["of_weights"])
            out.print(
                f"  LoRA: on {reach['matrices']} of {reach['of_matrices']} matrices, "
                f"{share:.1%} of their weights",
                highlight=False,
            )
        if "proofs" in env:
            out.print(
                f"  proofs: {_preflight_text(env['proofs'])}", highlight=False, soft_wrap=True
            )
        for text in env.get("told", ()):
            out.print(f"  note: {escape(text)}", highlight=False)


def _preflight_text(found: dict[str, float] | str) -> str:
    """The results of the preflight checks, or why there are none."""
    if isinstance(found, str):
        return found
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.items())
