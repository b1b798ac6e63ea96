"""`zephyr serve` and `zephyr preferences`: serves the tutor, and exports its votes."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from zephyr.cli.console import Overrides, load_plan, open_store, out
from zephyr.errors import ZephyrError

Settings = Annotated[
    Path | None, typer.Option("--tutor", help="The settings of the course: tutor.yaml.")
]

preferences = typer.Typer(
    no_args_is_help=True, help="What students prefer, as they voted in the tutor."
)


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models of the recipe; all that are made, if none.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "-r", help="The recipe whose models are served (default: tutor.yaml's)."
        ),
    ] = None,
    overrides: Overrides = None,
    tutor: Settings = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy with TLS stands before the tutor.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate: TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    self_signed: Annotated[
        bool,
        typer.Option("--self-signed", help="TLS by a certificate that browsers warn of once."),
    ] = False,
) -> None:
    """Puts models that have been run before students: a page, and an API that OpenAI's clients use.

    Open on this machine alone; for a class, ZEPHYR_CLASS_PASSWORD and TLS are needed.
    """
    from zephyr.tutor.listen import ListenAddress, find_network_address
    from zephyr.tutor.self_signed import make_certificate
    from zephyr.tutor.server import run_server as start_server
    from zephyr.tutor.settings import read_settings

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a service manager stops it so
    if self_signed:
        if tls_cert or tls_key or behind_proxy:
            raise ZephyrError(
                "--self-signed makes a certificate of its own",
                found="--tls-cert, --tls-key or --behind-proxy beside it",
                todo="leave one of them out",
            )
        tls_cert, tls_key = make_certificate(open_store().root / "tls", find_network_address())
    listen_address = ListenAddress(host, port, behind_proxy, tls_cert, tls_key)
    settings, folder = read_settings(tutor)
    argument = recipe or settings.recipe_argument(folder) or "embedded"
    plan = load_plan(argument, overrides)
    start_server(plan, models or [], settings, folder, listen_address, _print_line)


def _print_line(text: str) -> None:
    out.print(text, soft_wrap=True, highlight=False, markup=False)


@preferences.callback()
def _group() -> None:
    """Typer callback: keeps `preferences` a group although it has a single command."""


@preferences.command()
def export(
    out_file: Annotated[Path, typer.Option("--out", help="The file to write (JSON).")],
    tutor: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Writes over a file.")] = False,
) -> None:
    """Writes the votes of a class in the course's form, for `align` to learn from.

    A recipe takes the file as a source of pairs: {name: votes, path: FILE}.
    """
    from zephyr.tutor.events import EventLog
    from zephyr.tutor.preferences import write_preferences
    from zephyr.tutor.settings import read_settings

    settings, folder = read_settings(tutor)
    path = settings.database_path(folder, open_store().root)
    if not path.is_file():
        raise ZephyrError(
            "there is no log of a class here",
            where=str(path),
            todo="serve a tutor first (zephyr serve), or give its settings by --tutor",
        )
    event_log = EventLog(path)
    try:
        events = event_log.list_events("comparison", "vote")
    finally:
        event_log.close()
    questions, votes = write_preferences(events, settings.course, out_file, force=force)
    out.print(f"{out_file}: questions {questions}, votes {votes}", soft_wrap=True, highlight=False)
