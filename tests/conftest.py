"""What all tests share: offline, one thread, and where the real data lies if it is there."""

import os
from pathlib import Path

import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "120"}

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it are skipped where it is absent."""
    folder = Path(os.environ.get("ZEPHYR_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}; set ZEPHYR_REAL_DATA")
    return folder.resolve()
