"""A hundred students for a minute, and a server that is killed under them."""

import asyncio
import json

import pytest

from bench.load import measure
from tests.place import Place
from tests.tutor.test_load import plan

pytestmark = [pytest.mark.soak, pytest.mark.enable_socket]


def test_a_class_of_a_hundred_is_answered_and_its_votes_are_kept(finished: Place) -> None:
    figures = asyncio.run(measure(plan(finished, users=100, seconds=60)))
    print(json.dumps(figures, indent=1))
    assert figures["failed"] == []
    assert figures["log"]["acknowledged"] > 100
