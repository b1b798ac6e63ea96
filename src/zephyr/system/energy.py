"""Energy use of this machine's processors in joules, where Linux reports it (RAPL).

All of the machine is counted, whatever else runs on it; graphics cards are not.
"""

from pathlib import Path

POWERCAP_ROOT = Path("/sys/class/powercap")


class EnergyMeter:
    """Energy meter (RAPL): counts joules since it was created.

    The counters wrap around after some hundred kilojoules, minutes of heavy work: `read` must be
    called more often than that.
    """

    def __init__(self) -> None:
        self._counters = [
            path for path in sorted(POWERCAP_ROOT.glob("intel-rapl:*")) if _is_package_counter(path)
        ]
        self._last_values = self._read_counters()
        self._joules = 0.0

    def read(self) -> float | None:
        """Joules used so far; None where this machine does not report them."""
        now = self._read_counters()
        if now is None or self._last_values is None:
            return None
        for path, before, after in zip(self._counters, self._last_values, now, strict=True):
            wrap_range = _read_integer(path / "max_energy_range_uj") if after < before else 0
            self._joules += (after - before + wrap_range) / 1e6
        self._last_values = now
        return self._joules

    def _read_counters(self) -> list[int] | None:
        """The RAPL counters in microjoules; None if there are none, or they may not be read."""
        try:
            return [_read_integer(path / "energy_uj") for path in self._counters] or None
        except OSError:
            return None


def _is_package_counter(path: Path) -> bool:
    """Whether a RAPL counter is that of a CPU package, not of a core domain or the platform."""
    try:
        return (path / "name").read_text().startswith("package")
    except OSError:
        return False


def _read_integer(path: Path) -> int:
    return int(path.read_text())
