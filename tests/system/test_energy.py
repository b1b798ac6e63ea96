"""Joules: the sum of all processors, also where a counter starts anew; None without counters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workspace import Command, Workspace
from zephyr.runs.store import read_json
from zephyr.system import energy
from zephyr.system.energy import EnergyMeter

SetCounter = Callable[[str, int], None]


@pytest.fixture
def set_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetCounter:
    """Sets a processor's counter, in microjoules; there are two of them, a part, and the whole."""

    def set_counter(name: str, value: int) -> None:
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")

    for name, what in (("0", "package-0"), ("1", "package-1"), ("0:0", "core"), ("2", "psys")):
        folder = tmp_path / f"intel-rapl:{name}"
        folder.mkdir()
        (folder / "name").write_text(f"{what}\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
        set_counter(folder.name, 1_000_000)
    monkeypatch.setattr(energy, "POWERCAP_ROOT", tmp_path)
    return set_counter


def test_whole_processors_are_summed(set_counter: SetCounter) -> None:
    meter = EnergyMeter()
    assert meter.read() == 0
    for name, value in (("0", 3), ("1", 2), ("0:0", 9), ("2", 9)):
        set_counter(f"intel-rapl:{name}", value * 1_000_000)
    assert meter.read() == pytest.approx((3 - 1) + (2 - 1))


def test_a_counter_that_starts_anew_has_gone_to_its_end(set_counter: SetCounter) -> None:
    meter = EnergyMeter()
    set_counter("intel-rapl:0", 9_000_000)
    assert meter.read() == pytest.approx(8)
    set_counter("intel-rapl:0", 500_000)  # 1 to the end at 10, and 0.5 from there
    assert meter.read() == pytest.approx(9.5)


def test_without_counters_nothing_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP_ROOT", tmp_path / "none")
    assert EnergyMeter().read() is None


def test_counters_that_only_root_may_read_are_none(set_counter: SetCounter, tmp_path: Path) -> None:
    """As most systems have it since 2020; here a folder stands where the number would."""
    path = tmp_path / "intel-rapl:1" / "energy_uj"
    path.unlink()
    path.mkdir()
    assert EnergyMeter().read() is None


def test_a_run_keeps_its_joules_and_the_report_tells_them(
    set_counter: SetCounter,
    finished_workspace: Workspace,
    zephyr: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other runs were made on a machine without counters."""
    workspace = finished_workspace.copy(tmp_path / "copy")
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setenv("ZEPHYR_RUNS", str(workspace.runs))
    page = workspace.runs / "tiny" / "report.html"
    assert "not told by this machine" in page.read_text()
    (workspace.run_folder("M1/mcqa") / "DONE").unlink()
    assert zephyr("run", "tiny.yaml").code == 0
    assert read_json(workspace.run_folder("M1/mcqa") / "env.json")["joules"] == 0
    assert "not told by this machine" not in page.read_text()
    assert "0 kWh<small>of 1 runs</small>" in page.read_text()
