"""A recipe's models before a class: what is loaded, who may ask, and the server itself."""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError, unknown
from zephyr.recipe.models import ModelSpec
from zephyr.tutor.door import LOOPBACK, Door
from zephyr.tutor.settings import Tutor, read_settings

if TYPE_CHECKING:
    from zephyr.engine.plan import Plan


def serve(
    plan: "Plan",
    wanted: Sequence[str],
    settings: Path | None,
    door: Door,
    say: Callable[[str], Any],
) -> None:
    """Serves models until it is stopped; `say` tells which are loaded, and where they answer.

    Raises:
        ZephyrError: nothing can be served, or not in this way.
    """
    tutor, folder = read_settings(settings)
    password = door.password()
    names = choose_models(plan, wanted or tutor.models or ())
    with door.bind() as listening:
        port = listening.getsockname()[1]
        say(f"loading {', '.join(names)}")
        _run(plan, names, tutor, folder, door, password, listening, port, say)


def choose_models(plan: "Plan", wanted: Sequence[str]) -> list[str]:
    """The models that are wanted, or all that have been made.

    Raises:
        ZephyrError: one of them is unknown or has not been made, or none has.
    """
    models = plan.recipe.models
    for name in wanted:
        if name not in models:
            raise unknown("model", name, models, where=f"recipe {plan.recipe.name}")
    made = [name for name in models if plan.state(name) in ("fresh", "waiting")]
    missing = [name for name in wanted if name not in made]
    if missing or not made:
        told = f"{', '.join(missing)} is not made yet"
        raise ZephyrError(
            told if missing else f"no model of {plan.recipe.name} is made yet",
            where=str(plan.store.root),
            allowed=made or None,
            todo=f"zephyr run {plan.recipe.name}",
        )
    return list(wanted) or sorted(made, key=lambda name: _learned(models, name))


def _learned(models: Mapping[str, ModelSpec], name: str) -> tuple[bool, int]:
    """An order in which what has learned most comes first, and quantized models last."""
    steps, origin = 0, models[name].from_
    while origin is not None:
        steps, origin = steps + 1, models[origin].from_
    return models[name].quantize is not None, -steps


def _allow_many_connections() -> None:
    """Lets the process have as many open files as it may: each connection is one."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems tell of more than they allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def about(model: ModelSpec) -> str:
    """In words, what a model of a recipe is."""
    if model.base is not None:
        return f"the base {model.base}"
    if model.pretrain is not None:
        return f"a base, pretrained on {model.pretrain.data}"
    if model.tune is not None:
        how = f" on {model.tune.load} weights" if model.tune.load else ""
        return f"{model.from_}, tuned on {model.tune.data}{how}"
    if model.align is not None:
        return f"{model.from_}, aligned on {model.align.data}"
    assert model.quantize is not None
    return f"{model.from_}, quantized by {model.quantize.method}"


def _run(
    plan: "Plan",
    names: Sequence[str],
    tutor: Tutor,
    folder: Path,
    door: Door,
    password: str | None,
    listening: socket.socket,
    port: int,
    say: Callable[[str], Any],
) -> None:
    import uvicorn

    from zephyr.model.load import Lineage
    from zephyr.tutor.access import Access, teacher_token
    from zephyr.tutor.api import make_app
    from zephyr.tutor.class_routes import class_routes
    from zephyr.tutor.classroom import Classroom
    from zephyr.tutor.events import Events
    from zephyr.tutor.quizzes import open_quizzes
    from zephyr.tutor.serving import open_models
    from zephyr.tutor.teacher_routes import teacher_routes

    store = plan.store
    database = tutor.database_path(folder, store.root)
    token = database.with_suffix(".teacher")
    access = Access(password, teacher_token(token), (*LOOPBACK, door.host))
    events = Events(database)
    if forgotten := events.forget(tutor.logs.keep_days):
        say(f"removed {forgotten} events older than {tutor.logs.keep_days} days from {database}")
    quizzes = open_quizzes(tutor, folder, plan.recipe, plan.folder)
    lineages = {
        name: Lineage.read(store.find(plan.nodes[name].fingerprint).artifact) for name in names
    }
    serving = open_models(
        lineages,
        {name: about(plan.recipe.models[name]) for name in names},
        store.root,
        batch=tutor.limits.batch,
        queue=tutor.limits.queue,
        dtype=plan.recipe.run.dtype,
    )
    room = Classroom(serving, tutor, events, quizzes)
    app = make_app(serving, tutor, access, (class_routes(room), teacher_routes(room)), room.heard)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=door.behind_proxy,
        ssl_certfile=door.certificate,
        ssl_keyfile=door.key,
        timeout_graceful_shutdown=3,
        ws="none",
    )
    _allow_many_connections()
    listening.listen(1024)  # from now on who calls is answered, if not at once
    address = replace(door, port=port).address
    say(f"{', '.join(names)}: {address}   teacher: {address}/teacher, token in {token}")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        serving.scheduler.end()
        events.close()
