"""A hundred students for a minute, and a server that is killed under them."""

import asyncio
import json

import pytest

from bench.serving.class_load import measure
from tests.tutor.test_load import load_plan
from tests.workspace import Workspace

pytestmark = [pytest.mark.soak, pytest.mark.enable_socket, pytest.mark.timeout(7200)]


def test_a_class_of_a_hundred_is_answered_and_its_votes_are_kept(
    finished_workspace: Workspace,
) -> None:
    figures = asyncio.run(measure(load_plan(finished_workspace, users=100, seconds=60, hostile=28)))
    print(json.dumps(figures, indent=1))
    assert figures["failed"] == []
    assert figures["log"]["acknowledged"] > 100
