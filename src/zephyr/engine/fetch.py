"""Downloads the data sets and base models that a recipe needs, and reports what is missing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

from zephyr.data import hub, sources
from zephyr.data.evaluation_records import check_evaluation_share
from zephyr.data.package_file import PackageFile
from zephyr.data.read_stats import ReadStats
from zephyr.data.table import SOURCES, RegisteredSource
from zephyr.errors import ZephyrError
from zephyr.evaluate.tasks import get_task, resolve_few_shot_sources, resolve_sources
from zephyr.model import base_model
from zephyr.model.base_table import BASES
from zephyr.recipe.data import SourceSpec, Use
from zephyr.recipe.schema import Recipe
from zephyr.records import RecordKind

_In = TypeVar("_In")
_Out = TypeVar("_Out")

UNKNOWN_LICENCE = "not known to Zephyr"
PREVIEW_ROWS = 1_000
"""Rows of a source that `check_sources` reads."""


@dataclass(frozen=True)
class RequiredSource:
    """A source required by a mixture or a task; `where` is its place in the recipe.

    `unreadable` is the share of its rows that may be left out, `cap` how many records are drawn.
    """

    where: str
    source: SourceSpec
    kind: RecordKind
    use: Use
    unreadable: float
    cap: int | None = None


def required_sources(recipe: Recipe) -> list[RequiredSource]:
    """All sources that a recipe requires."""
    required = [
        RequiredSource(
            f"data.{name}",
            source,
            mixture.kind,
            "train",
            mixture.unreadable,
            source.cap or mixture.cap,
        )
        for name, mixture in recipe.data.items()
        for source in mixture.sources
    ]
    return required + [
        RequiredSource(f"evaluate.tasks.{task.key}", source, kind, "exam", task.unreadable)
        for task in recipe.evaluate.tasks
        if (kind := get_task(task.name).record_kind) is not None
        for source in (*resolve_sources(task), *resolve_few_shot_sources(task))
    ]


def required_hub_files(recipe: Recipe, folder: Path) -> dict[hub.HubQuery, str]:
    """The hub files that a recipe requires, each with the first place that names it."""
    hub_files: dict[hub.HubQuery, str] = {}
    for required in required_sources(recipe):
        if not sources.is_embedded(required.source, recipe.origin):
            files = sources.hub_query(required.source, required.use, required.where)
            if files is not None:
                hub_files.setdefault(
                    files, f"{required.where}.{sources.source_label(required.source)}"
                )
    for name, model in recipe.models.items():
        if model.base is None or _is_fetched_package(model.base, folder):
            continue
        if (files := base_model.parse_hub_id(model.base, folder)) is not None:
            hub_files.setdefault(files, f"models.{name}.base")
    return hub_files


def _is_fetched_package(base: str, folder: Path) -> bool:
    package = base_model.find_package(base, folder)
    return package is not None and package.path.is_file()


class Download(NamedTuple):
    """Files of the hub still to be downloaded, and their size in bytes."""

    files: hub.HubQuery
    where: str
    snapshot: hub.Snapshot
    missing_bytes: int


class PackageDownload(NamedTuple):
    """A base model that is fetched as a package, since the hub can't be reached, or lacks it."""

    package: PackageFile
    where: str
    reason: str


class PendingDownloads(NamedTuple):
    """What a recipe still needs: files of the hub, and packages in place of base models."""

    hub_files: list[Download]
    packages: list[PackageDownload]


def pending_downloads(recipe: Recipe, folder: Path, *, refresh: bool = False) -> PendingDownloads:
    """What a recipe still needs; with `refresh`, also what has changed on the hub.

    Raises:
        ZephyrError: the hub can't be reached, or refuses something.
    """
    packages = _packages_by_hub_files(recipe, folder)

    def resolve(item: tuple[hub.HubQuery, str]) -> Download | PackageDownload:
        files, where = item
        try:
            snapshot = hub.resolve_snapshot(files, where)
        except (hub.HubUnreachableError, hub.NotOnHubError) as error:
            if files not in packages:
                raise
            return PackageDownload(packages[files], where, error.problem)
        return Download(files, where, snapshot, hub.missing_bytes(files, snapshot))

    to_check = [
        (files, where)
        for files, where in required_hub_files(recipe, folder).items()
        if refresh or hub.cached_snapshot(files) is None
    ]
    found = _map_concurrently(resolve, to_check)
    return PendingDownloads(
        [each for each in found if isinstance(each, Download)],
        [each for each in found if isinstance(each, PackageDownload)],
    )


def _packages_by_hub_files(recipe: Recipe, folder: Path) -> dict[hub.HubQuery, PackageFile]:
    """The packages that hold base models of the table too, by their files on the hub."""
    found = {}
    for model in recipe.models.values():
        package = base_model.find_package(model.base, folder) if model.base is not None else None
        if package is not None:
            assert model.base is not None
            files = base_model.parse_hub_id(model.base, folder)
            assert files is not None, "a base of the table is on the hub"
            found[files] = package
    return found


def download_hub_files(
    downloads: list[Download], progress: Callable[[int], None] = lambda count: None
) -> None:
    """Downloads files of the hub; what was fetched before a failure is kept."""
    for download in downloads:
        hub.download_snapshot(download.files, download.snapshot, download.where, progress)


class SourceStatus(NamedTuple):
    """Status of a source or base model: local or to download; `problem` says why neither.

    `registered` is its row of the table, `is_embedded` says that Zephyr makes its rows itself.
    """

    where: str
    name: str
    registered: RegisteredSource | None
    expected_rows: int | None
    """Rows of the split, where the table knows them."""
    message: str
    problem: ZephyrError | None = None
    is_embedded: bool = False
    licence: str = UNKNOWN_LICENCE


def check_sources(recipe: Recipe, folder: Path) -> list[SourceStatus]:
    """Status of every source and base model of a recipe; reads the first rows of local ones."""
    probe = _HubProbe()
    statuses = _map_concurrently(
        lambda need: _source_status(need, recipe, folder, probe), required_sources(recipe)
    )
    bases = [(f"models.{n}.base", m.base) for n, m in recipe.models.items() if m.base is not None]
    return statuses + _map_concurrently(lambda named: _base_status(*named, folder, probe), bases)


class _HubProbe:
    """Queries the hub; if the first query can't reach it, no other is sent."""

    def __init__(self) -> None:
        self._unreachable: hub.HubUnreachableError | None = None
        self._first_query = Lock()
        self._is_reached = False

    def describe_download(self, files: hub.HubQuery, where: str) -> str:
        """How much there is to download, in words."""
        with nullcontext() if self._is_reached else self._first_query:
            if self._unreachable is not None:
                raise self._unreachable
            try:
                snapshot = hub.resolve_snapshot(files, where)
            except hub.HubUnreachableError as error:
                self._unreachable = error
                raise
            finally:
                self._is_reached = True
        return f"on the hub, {hub.missing_bytes(files, snapshot) / 1e6:,.1f} MB to fetch"


def _source_status(
    required: RequiredSource, recipe: Recipe, folder: Path, probe: _HubProbe
) -> SourceStatus:
    """Status of one source: local rows (a preview is read), or bytes to download."""
    source, where = required.source, required.where
    name = sources.source_label(source)
    is_embedded = sources.is_embedded(source, recipe.origin)
    registered = SOURCES.get(source.name or "")
    expected_rows = None
    try:
        if registered is not None and not is_embedded:
            expected_rows = registered.splits.get(
                sources.split_of(source, registered, required.use, where)
            )
        files = None if is_embedded else sources.hub_query(source, required.use, where)
        if files is not None and hub.cached_snapshot(files) is None:
            return SourceStatus(
                where, name, registered, expected_rows, probe.describe_download(files, where)
            )
        opened = sources.open_source(
            source,
            kind=required.kind,
            use=required.use,
            origin=recipe.origin,
            base=folder,
            where=where,
        )
        read_stats = ReadStats(opened.label)
        for outcome in opened.read(range(min(len(opened.rows), PREVIEW_ROWS))):
            read_stats.count(outcome)
        _check_readable(required, read_stats, len(opened.rows))
    except ZephyrError as error:
        return SourceStatus(where, name, registered, expected_rows, error.problem, error)
    message = f"{len(opened.rows):,} rows {'made by Zephyr' if is_embedded else 'at hand'}"
    for reason, count in read_stats.unreadable_reasons.items():
        first = Path(read_stats.first_location[reason]).name
        message += f"; {count} of the first {read_stats.item_count:,} can't be read: {reason}"
        message += f" ({'first at ' if count > 1 else ''}{first})"
    return SourceStatus(where, name, registered, expected_rows, message, is_embedded=is_embedded)


def _check_readable(required: RequiredSource, stats: ReadStats, row_count: int) -> None:
    """Checks what the run will check, where the preview has all the rows that the run will read.

    Raises:
        ZephyrError: too many rows can't be read; of a longer or a capped source, all of them.
    """
    reads_all = row_count <= PREVIEW_ROWS and (required.cap is None or required.cap >= row_count)
    if not reads_all:
        stats.check_unreadable_share(1)
    elif required.use == "exam":
        check_evaluation_share(stats, required.unreadable)
    else:
        stats.check_unreadable_share(required.unreadable)


def _base_status(where: str, name: str, folder: Path, probe: _HubProbe) -> SourceStatus:
    """Status of one base model: local, or bytes to download from the hub or as a package."""
    licence = BASES[name].licence if name in BASES else UNKNOWN_LICENCE
    message = "at hand"
    try:
        files = base_model.parse_hub_id(name, folder)
        is_fetched = _is_fetched_package(name, folder)
        if files is not None and not is_fetched and hub.cached_snapshot(files) is None:
            message = probe.describe_download(files, where)
        else:
            base_model.locate_base_model(name, folder, where)
    except (hub.HubUnreachableError, hub.NotOnHubError) as error:
        if (package := base_model.find_package(name, folder)) is None:
            return SourceStatus(where, name, None, None, error.problem, error)
        message = f"{error.problem}; package {package.requirement} has it, {package.size}"
    except ZephyrError as error:
        return SourceStatus(where, name, None, None, error.problem, error)
    return SourceStatus(where, name, None, None, message, licence=licence)


def _map_concurrently(function: Callable[[_In], _Out], items: list[_In]) -> list[_Out]:
    """Maps in order, eight threads at a time, for most of the time is spent waiting."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))
