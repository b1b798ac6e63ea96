"""Twenty students for some seconds, some of whom leave or read slowly, and a server that is killed.

`tests/soak/test_load.py` is the same with a hundred for a minute.
"""

import asyncio

import pytest

from bench.serving.class_load import Plan, measure
from tests.workspace import Workspace

pytestmark = pytest.mark.enable_socket


def load_plan(workspace: Workspace, users: int, seconds: float, hostile: int = 0) -> Plan:
    """A load on two models of the tiny recipe."""
    environment = {"ZEPHYR_RUNS": str(workspace.runs), "OMP_NUM_THREADS": "1"}
    return Plan("tiny.yaml", ["M1", "M2"], users, seconds, hostile, workspace.folder, environment)


def test_a_class_is_answered_and_its_votes_are_kept(finished_workspace: Workspace) -> None:
    figures = asyncio.run(measure(load_plan(finished_workspace, users=20, seconds=5, hostile=7)))
    assert figures["failed"] == []
    assert figures["streams to their end"] > 20
    assert figures["left in mid-stream"] > 0
    assert figures["log"]["acknowledged"] > 0
    refused = ("send_digits: 400", "send_nonsense: 400", "send_two_lengths: 400")
    assert figures["hostile"].keys() >= set(refused)
