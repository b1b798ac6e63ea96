"""Energy use of this machine's processors in joules, where Linux reports it (RAPL).

All of the machine is counted, whatever else runs on it; graphics cards are not.
"""

from pathlib import Path

POWERCAP_ROOT = Path("/sys/class/powercap")


class EnergyMeter:
    """Energy meter: counts joules from when it is created.

    The processors' counters start anew after some hundred kilojoules, minutes of heavy work: that
    is seen as long as it is read more often.
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
        """The counters in microjoules; None if there are none, or they are not for everybody."""
        try:
            return [_read_integer(path / "energy_uj") for path in self._counters] or None
        except OSError:
            return None


def _is_package_counter(path: Path) -> bool:
    """Whether a counter is that of a whole processor, not of a part of one or of the platform."""
    try:
        return (path / "name").read_text().startswith("package")
    except OSError:
        return False


def _read_integer(path: Path) -> int:
    return int(path.read_text())
