"""The commands about evaluations: asked, shown item by item, and two models compared."""

import json
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from zephyr.cli.console import (
    NoProofs,
    Overrides,
    RecipeOption,
    bring_up_to_date,
    end,
    make_plan,
    open_store,
    out,
)
from zephyr.cli.data import fetch_missing
from zephyr.errors import ZephyrError, unknown

if TYPE_CHECKING:
    from zephyr.engine.plan import Plan
    from zephyr.report.compare import Compared
    from zephyr.runs.store import Run

ModelArgument = Annotated[str, typer.Argument(help="A model of the recipe.")]
TaskArgument = Annotated[str, typer.Argument(help="A task of the recipe.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead, a line for each.")]


class _RunUnlessNamed(TyperGroup):
    """`zephyr eval M1 gsm8k` is short for `zephyr eval run M1 gsm8k`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunUnlessNamed,
    no_args_is_help=True,
    help="Asks one model one task (`eval MODEL TASK`), or shows what it was asked and said.",
)


@app.command("run")
def evaluate(
    model: ModelArgument,
    task: TaskArgument,
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
    no_proofs: NoProofs = False,
) -> None:
    """Asks one model one task, making whatever that needs, and prints the scores."""
    from zephyr.engine.plan import needed

    fetch_missing(recipe, overrides)
    found = make_plan(recipe, overrides, no_proofs=no_proofs)
    name = _evaluation(found, model, task)
    outcome, found = bring_up_to_date(found, needed(found, name))
    if not (outcome.failed or outcome.broken or outcome.stopped):
        _show_scores(found.store.find(found.nodes[name].fingerprint))
    end(outcome, recipe)


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
    from zephyr.report.items import choose, lines

    if wrong and right:
        raise ZephyrError("an item is not wrong and right", todo="leave out one of both, or both")
    found = make_plan(recipe, overrides)
    name = _evaluation(found, model, task)
    made = found.store.find(found.nodes[name].fingerprint)
    if not made.finished:
        raise ZephyrError(
            f"{name} has not been run yet",
            where=str(found.store.root),
            todo=f"zephyr eval {model} {task} --recipe {recipe}",
        )
    side: Literal["wrong", "right"] | None = "wrong" if wrong else "right" if right else None
    chosen = choose(made, side, group, limit)
    if as_json:
        for item in chosen.items:
            typer.echo(json.dumps(item, ensure_ascii=False))
        return
    for item in chosen.items:
        out.print(Text(f"{item['id']}  {item['source']}  {item['group']}", style="bold"))
        for heading, text in lines(item):
            out.print(Text(f"  {heading}", style="dim"))
            out.print(Text(_visible(text)), soft_wrap=True)
        out.print()
    by = f", by {chosen.judge.metric}" if side else ""
    told = f"{len(chosen.items)} of {chosen.found} {side or ''} items".replace("  ", " ")
    out.print(Text(f"{told}{by}"))


def compare(
    first: Annotated[str, typer.Argument(help="RECIPE/MODEL, such as embedded/M1.")],
    second: Annotated[str, typer.Argument(help="Another, or the same of another recipe.")],
    as_json: Json = False,
) -> None:
    """Compares two models that have been run, on the items that both were asked."""
    from zephyr.report.compare import compare as compared
    from zephyr.report.compare import to_json

    rows = compared(open_store(), first, second)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(to_json(row), ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", first, second, "difference", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(*map(Text, _compared(row)))
    out.print(table)
    out.print("Differences on the same items, 95 % intervals; verdicts corrected for all (Holm).")


def _compared(row: "Compared") -> tuple[str, ...]:
    from zephyr.report.tables import interval, label, number, rounded, signed

    scale = row.column.scale
    values = ["" if e is None else number(e.value, scale) for e in (row.first, row.second)]
    if row.difference is None:
        return label(row.column), *values, "", row.empty or ""
    gap = f"{signed(row.difference.value, scale)} {interval(row.difference, scale)}"
    told = "" if row.column.better is None else f"{row.verdict}, n={row.difference.n:,}"
    if row.needed is not None:
        told += f"; about {rounded(row.needed):,} could tell"
    return label(row.column), *values, gap, told


def _evaluation(plan: "Plan", model: str, task: str) -> str:
    name = f"{model}/{task}"
    if name not in plan.nodes:
        evaluations = [n for n, node in plan.nodes.items() if node.kind == "evaluation"]
        raise unknown("evaluation", name, evaluations, where=f"recipe {plan.recipe.name}")
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


def _visible(text: str) -> str:
    """A text whose control characters can do nothing to a terminal."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else "\ufffd" for c in text
    )
