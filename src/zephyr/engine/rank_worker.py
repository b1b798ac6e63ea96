"""A process that takes part in trainings which another one leads, and writes nothing.

It ends when the leader sends it home or ends. What fails here is told by the leader.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zephyr.distributed.rendezvous import Channel, Seat
from zephyr.engine.worker import TOKEN_BUDGET, Order, calm_threads, end_with_parent, ignore_signals
from zephyr.recipe.schema import Recipe
from zephyr.runs.context import Context
from zephyr.runs.store import Store
from zephyr.system.memory import give_memory_back


def follow(seat: Seat | None = None) -> None:
    """Takes its place, then does its share of every training that the leader begins."""
    ignore_signals()  # the leader stops all at the same step
    end_with_parent()
    calm_threads()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # that a leader ends is no news
    from zephyr.model.load import quiet

    quiet()
    channel = Channel(seat)
    while (message := channel.receive()) is not None:
        if channel.rank < message["env"]["processes"]:
            with contextlib.suppress(Exception):  # the channel has told the leader
                _take_part(message, channel)
            give_memory_back()


def _take_part(message: Any, channel: Channel) -> None:
    import torch

    from zephyr.engine.stages import run_stage

    env, order = message["env"], Order.from_json(message["order"])
    torch.set_num_threads(env["threads"])
    store = Store(Path(message["store"]))
    recipe = Recipe.model_validate(message["recipe"])
    with channel.group(env["processes"], divides=env["shard"]) as group:

        def settle(name: str, find: Callable[[], Any]) -> Any:
            return group.share(None)  # what the leader has settled

        context = Context(
            recipe,
            Path(message["folder"]),
            store.root,
            recipe.run.token_budget or TOKEN_BUDGET,
            settle=settle,
            group=group,
        )
        inputs = {role: store.find(mark) for role, mark in order.inputs.items()}
        run_stage(order.node, inputs, store.find(order.node.fingerprint), context)
