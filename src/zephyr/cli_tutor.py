"""The commands of the tutor: serving it, and what students preferred."""

from pathlib import Path
from typing import Annotated

import typer

from zephyr.console import Overrides, RecipeOption, make_plan, out

Settings = Annotated[
    Path | None, typer.Option("--tutor", help="The settings of the course: tutor.yaml.")
]


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models of the recipe; all that are made, if none.")
    ] = None,
    recipe: RecipeOption = "embedded",
    overrides: Overrides = None,
    tutor: Settings = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy with TLS stands before the tutor.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate: TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
) -> None:
    """Puts models that have been run before students: a page, and an API that OpenAI's clients use.

    Open on this machine alone; for a class, ZEPHYR_CLASS_PASSWORD and TLS are needed.
    """
    from zephyr.tutor.serve import Door
    from zephyr.tutor.serve import serve as begin

    door = Door(host, port, behind_proxy, tls_cert, tls_key)
    begin(make_plan(recipe, overrides), models or [], tutor, door, _say)


def _say(text: str) -> None:
    out.print(text, soft_wrap=True, highlight=False, markup=False)
