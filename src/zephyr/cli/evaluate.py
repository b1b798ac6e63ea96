"""`zephyr eval`: runs an evaluation, shows its items, and compares two models."""

import json
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from zephyr.cli.console import (
    NoPreflight,
    Overrides,
    RecipeOption,
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
    from zephyr.report.model_comparison import MetricComparison
    from zephyr.runs.store import Run

ModelArgument = Annotated[str, typer.Argument(help="A model of the recipe.")]
TaskArgument = Annotated[str, typer.Argument(help="A task of the recipe.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead, a line for each.")]


class _DefaultToRunGroup(TyperGroup):
    """`zephyr eval M1 gsm8k` is short for `zephyr eval run M1 gsm8k`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DefaultToRunGroup,
    no_args_is_help=True,
    help="Asks one model one task (`eval MODEL TASK`), or shows what it was asked and said.",
)


@app.command("run")
def evaluate(
    model: ModelArgument,
    task: TaskArgument,
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
    no_preflight: NoPreflight = False,
) -> None:
    """Asks one model one task, making whatever that needs, and prints the scores."""
    from zephyr.engine.plan import with_ancestors

    fetch_missing(recipe, overrides)
    recipe_plan = load_plan(recipe, overrides, no_preflight=no_preflight)
    name = _evaluation_name(recipe_plan, model, task)
    outcome, recipe_plan = run_plan_with_progress(recipe_plan, with_ancestors(recipe_plan, name))
    if not (outcome.failed or outcome.broken or outcome.stopped):
        _show_scores(recipe_plan.store.find(recipe_plan.nodes[name].fingerprint))
    exit_with_outcome(outcome, recipe)


@app.command()
def show(
    model: ModelArgument,
    task: TaskArgument,
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="What is wrong, or worst.")] = False,
    right: Annotated[bool, typer.Option("--right", help="What is right, or best.")] = False,
    group: Annotated[str | None, typer.Option(help="A subject, a kind, or 'source: …'.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many items.")] = 10,
    as_json: Json = False,
) -> None:
    """Shows the items of an evaluation that was run: asked, answered, right, and the scores."""
    from zephyr.report.items import item_sections, select_items

    if wrong and right:
        raise ZephyrError("an item is not wrong and right", todo="leave out one of both, or both")
    recipe_plan = load_plan(recipe, overrides)
    name = _evaluation_name(recipe_plan, model, task)
    evaluation_run = recipe_plan.store.find(recipe_plan.nodes[name].fingerprint)
    if not evaluation_run.is_finished:
        raise ZephyrError(
            f"{name} has not been run yet",
            where=str(recipe_plan.store.root),
            todo=f"zephyr eval {model} {task} --recipe {recipe}",
        )
    correctness: Literal["wrong", "right"] | None = "wrong" if wrong else "right" if right else None
    selected = select_items(evaluation_run, correctness, group, limit)
    if as_json:
        for item in selected.items:
            typer.echo(json.dumps(item, ensure_ascii=False))
        return
    for item in selected.items:
        out.print(Text(f"{item['id']}  {item['source']}  {item['group']}", style="bold"))
        for heading, text in item_sections(item):
            out.print(Text(f"  {heading}", style="dim"))
            out.print(Text(_replace_control_characters(text)), soft_wrap=True)
        out.print()
    by = f", by {selected.metric.name}" if correctness else ""
    count_text = f"{len(selected.items)} of {selected.total} {correctness or ''} items".replace(
        "  ", " "
    )
    out.print(Text(f"{count_text}{by}"))


def compare(
    first: Annotated[str, typer.Argument(help="RECIPE/MODEL, such as embedded/M1.")],
    second: Annotated[str, typer.Argument(help="Another, or the same of another recipe.")],
    as_json: Json = False,
) -> None:
    """Compares two models that have been run, on the items that both were asked."""
    from zephyr.report.model_comparison import compare_models as compare_pair
    from zephyr.report.model_comparison import comparison_json

    rows = compare_pair(open_store(), first, second)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(comparison_json(row), ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", first, second, "difference", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(*map(Text, _comparison_row(row)))
    out.print(table)
    out.print(
        "Differences on the same items, 95 % intervals (≈ may hold less); verdicts of primary "
        "metrics corrected together (Holm), of secondary ones by their own p-value."
    )


def _comparison_row(row: "MetricComparison") -> tuple[str, ...]:
    from zephyr.report.tables import (
        column_label,
        format_number,
        format_signed,
        interval_text,
        verdict_text,
    )

    scale = row.column.scale
    label = column_label(row.column)
    if row.chance is not None:
        label += f" (chance {format_number(row.chance, scale)})"
    values = ["" if e is None else format_number(e.value, scale) for e in (row.first, row.second)]
    if row.difference is None or row.decision is None:
        return label, *values, "", row.missing_reason or ""
    difference_text = (
        f"{format_signed(row.difference.value, scale)} {interval_text(row.column, row.difference)}"
    )
    return (
        label,
        *values,
        difference_text,
        verdict_text(row.column, row.decision, row.difference.n),
    )


def _evaluation_name(plan: "Plan", model: str, task: str) -> str:
    name = f"{model}/{task}"
    if name not in plan.nodes:
        evaluations = [n for n, node in plan.nodes.items() if node.kind == "evaluation"]
        raise unknown_name_error(
            "evaluation", name, evaluations, where=f"recipe {plan.recipe.name}"
        )
    return name


def _show_scores(run: "Run") -> None:
    scores: dict[str, Any] = run.read("artifact/scores.json")
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


def _replace_control_characters(text: str) -> str:
    """Replaces control characters, so that a text can't control the terminal."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else "\ufffd" for c in text
    )
