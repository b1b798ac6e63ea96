"""Every family of the matrix goes through the whole line as docs/models.md says.

    python -m tests.families.test_families [FAMILY ...]   # measures rows anew, and writes them

A row of `matrix.json` holds what each step came to; the page is made of it by docs/generate.py.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.families.line import Row, run_line
from tests.families.networks import LINE_FAMILIES

MATRIX = Path(__file__).with_name("matrix.json")
RECORDED: dict[str, Row] = json.loads(MATRIX.read_text(encoding="utf-8"))


def test_the_matrix_has_a_row_for_each_family() -> None:
    assert list(RECORDED) == list(LINE_FAMILIES)


@pytest.mark.parametrize("family", LINE_FAMILIES)
def test_a_family_goes_through_the_line(family: str, tmp_path: Path) -> None:
    assert run_line(family, tmp_path) == RECORDED[family]


def record(families: list[str]) -> None:
    """Measures rows and writes them into `matrix.json`, in the order of the families."""
    measured = dict(RECORDED)
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            measured[family] = run_line(family, Path(folder))
        print(family, measured[family], flush=True)
        rows = {name: measured[name] for name in LINE_FAMILIES if name in measured}
        MATRIX.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(sys.argv[1:] or list(LINE_FAMILIES))
