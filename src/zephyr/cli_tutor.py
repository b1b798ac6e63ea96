"""The commands about the tutor of a class."""

from pathlib import Path
from typing import Annotated

import typer

from zephyr.console import open_store, out
from zephyr.errors import ZephyrError

TutorOption = Annotated[
    Path | None, typer.Option("--tutor", help="The settings of the tutor, such as tutor.yaml.")
]

preferences = typer.Typer(
    no_args_is_help=True, help="What students prefer, as they voted in the tutor."
)


@preferences.callback()
def _group() -> None:
    """A group stays one while it has a single command."""


@preferences.command()
def export(
    out_file: Annotated[Path, typer.Option("--out", help="The file to write (JSON).")],
    tutor: TutorOption = None,
    force: Annotated[bool, typer.Option("--force", help="Writes over a file.")] = False,
) -> None:
    """Writes the votes of a class in the course's form, for `align` to learn from.

    A recipe takes the file as a source of pairs: {name: epfl, path: FILE}.
    """
    from zephyr.tutor.events import Events
    from zephyr.tutor.preferences import write
    from zephyr.tutor.settings import read_settings

    settings, folder = read_settings(tutor)
    path = settings.database_path(folder, open_store().root)
    if not path.is_file():
        raise ZephyrError(
            "there is no log of a class here",
            where=str(path),
            todo="serve a tutor first (zephyr serve), or give its settings by --tutor",
        )
    log = Events(path)
    try:
        found = log.all("comparison", "vote")
    finally:
        log.close()
    questions, votes = write(found, settings.course, out_file, force=force)
    out.print(f"{out_file}: questions {questions}, votes {votes}", soft_wrap=True, highlight=False)
