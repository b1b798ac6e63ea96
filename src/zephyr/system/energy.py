"""The energy that the processors of this machine use, where Linux tells it (RAPL).

All of the machine is counted, whatever else runs on it; graphics cards are not.
"""

from pathlib import Path

ROOT = Path("/sys/class/powercap")


class Meter:
    """Counts joules from when it is made.

    The processors' counters start anew after some hundred kilojoules, minutes of heavy work: that
    is seen as long as it is read more often.
    """

    def __init__(self) -> None:
        self._counters = [path for path in sorted(ROOT.glob("intel-rapl:*")) if _is_package(path)]
        self._last = self._values()
        self._joules = 0.0

    def read(self) -> float | None:
        """The joules so far; None where this machine does not tell them."""
        now = self._values()
        if now is None or self._last is None:
            return None
        for path, before, after in zip(self._counters, self._last, now, strict=True):
            wrapped = _number(path / "max_energy_range_uj") if after < before else 0
            self._joules += (after - before + wrapped) / 1e6
        self._last = now
        return self._joules

    def _values(self) -> list[int] | None:
        """The counters in microjoules; None if there are none, or they are not for everybody."""
        try:
            return [_number(path / "energy_uj") for path in self._counters] or None
        except OSError:
            return None


def _is_package(path: Path) -> bool:
    """Whether a counter is that of a whole processor, not of a part of one or of the platform."""
    try:
        return (path / "name").read_text().startswith("package")
    except OSError:
        return False


def _number(path: Path) -> int:
    return int(path.read_text())
