"""Twenty kills at random moments, twenty identical ends."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.place import Place, everything, make_place

KILLS = 20
OFTEN = ("--set", "run.checkpoint_every=1", "--set", "models.M1.tune.evaluate_every=2")
"""A checkpoint after each step, and many looks at the hold-out: kills meet them, too."""

pytestmark = pytest.mark.soak


class Moment(NamedTuple):
    """When a run is to be killed: so many seconds after it has come so far."""

    progress: int
    seconds: float


class Whole(NamedTuple):
    """A place where nothing was killed, and when the run had come how far."""

    place: Place
    came: list[tuple[float, int]]
    seconds: float

    def moment(self, at: float) -> Moment:
        """The moment at a share of the run's time, told so that it does not depend on the load."""
        seconds = at * self.seconds
        then, progress = max(row for row in self.came if row[0] <= seconds)
        return Moment(progress, seconds - then)


def progress(place: Place) -> int:
    """Grows with each node that is begun and each row that is logged."""
    runs = list((place.runs / "objects").glob("*"))
    logs = [run / "metrics.jsonl" for run in runs]
    return len(runs) + sum(log.read_bytes().count(b"\n") for log in logs if log.exists())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    place = make_place(tmp_path_factory.mktemp("whole"))
    start = time.monotonic()
    process = place.start_anew("run", "tiny.yaml", *OFTEN)
    came = [(0.0, 0)]
    while process.poll() is None:
        with suppress(FileNotFoundError):  # a run has just got its last name
            now = progress(place)
            if now > came[-1][1]:
                came.append((time.monotonic() - start, now))
        time.sleep(0.005)
    seconds = time.monotonic() - start
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return Whole(place, came, seconds)


@pytest.fixture(scope="module")
def met() -> Iterator[Counter[str]]:
    """What was under way when it was killed."""
    counts: Counter[str] = Counter()
    yield counts
    print("\n" + "\n".join(f"{count:3} kills met {what}" for what, count in counts.most_common()))


@pytest.mark.parametrize("number", range(KILLS))
def test_the_end_is_the_same(whole: Whole, tmp_path: Path, number: int, met: Counter[str]) -> None:
    """The first kill is early in the run, the last late: each falls into its twentieth of it."""
    place = make_place(tmp_path / "killed")
    moment = whole.moment((number + random.Random(number).random()) / KILLS)
    process = place.start_anew("run", "tiny.yaml", *OFTEN)
    wait(place, process, moment)
    place.kill(process, group=number % 4 != 3)
    met.update(under_way(place))
    place.zephyr("run", "tiny.yaml", *OFTEN)
    assert everything(place) == everything(whole.place)


def wait(place: Place, process: Any, moment: Moment) -> None:
    """Until the moment; where a quiet time is shorter than it was, until something happens."""
    came = None
    while process.poll() is None:
        with suppress(FileNotFoundError):
            now = progress(place)
            if now > moment.progress:
                return
            if now == moment.progress:
                came = came or time.monotonic()
                if time.monotonic() - came >= moment.seconds:
                    return
        time.sleep(0.005)


def under_way(place: Place) -> list[str]:
    """What each unfinished run was at, as far as its files tell."""
    if not (place.runs / "tiny" / "nodes.json").exists():
        return ["the start"]
    kinds = {node["fingerprint"]: node["kind"] for node in place.nodes().values()}
    parts = list((place.runs / "objects").glob("*.part"))
    return [f"{kinds[path.stem]}, {stage(path)}" for path in parts] or ["no run"]


def stage(run: Path) -> str:
    if (run / "DONE").exists():
        return "its last name"
    if (run / "checkpoints" / "writing").exists():
        return "a checkpoint half written"
    if list(run.rglob("*.tmp")):
        return "a file half written"
    if any((run / "artifact" / name).exists() for name in ("adapter", "weights", "items.jsonl")):
        return "what it made half written"
    if (run / "checkpoints").exists():
        return "its steps"
    return "before its steps"
