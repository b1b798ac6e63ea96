"""Stored fingerprints: runs that users have made stay valid when code is moved or renamed.

A stage whose result changes gets a new version, and with it new fingerprints here.
"""

import json
from pathlib import Path

from zephyr.engine.plan import make_plan
from zephyr.recipe.load import find_recipe, read_recipe
from zephyr.runs.store import Store

STORED = Path(__file__).with_name("embedded_fingerprints.json")


def test_fingerprints_of_the_default_recipe_are_the_stored_ones(tmp_path: Path) -> None:
    file = find_recipe("embedded")
    plan = make_plan(read_recipe(file), file.parent, Store(tmp_path))
    assert {name: node.fingerprint for name, node in plan.nodes.items()} == json.loads(
        STORED.read_text()
    )
