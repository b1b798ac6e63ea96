"""Server start-up (uvicorn): loads settings, password and models, and builds the app."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.recipe.models import ModelSpec
from zephyr.tutor.listen import LOOPBACK, ListenAddress
from zephyr.tutor.settings import TutorSettings

if TYPE_CHECKING:
    from zephyr.engine.plan import Plan


def run_server(
    plan: "Plan",
    model_names: Sequence[str],
    settings: TutorSettings,
    folder: Path,
    listen_address: ListenAddress,
    notify: Callable[[str], Any],
) -> None:
    """Runs the tutor server until it is stopped; `notify` prints the models and the URL.

    Paths of the settings are relative to `folder`.

    Raises:
        ZephyrError: there is no model to serve, or the settings or the address are invalid.
    """
    password = listen_address.read_password()
    names = choose_models(plan, model_names or settings.models or ())
    with listen_address.bind() as server_socket:
        port = server_socket.getsockname()[1]
        notify(f"loading {', '.join(names)}")
        _run(plan, names, settings, folder, listen_address, password, server_socket, port, notify)


def choose_models(plan: "Plan", requested_names: Sequence[str]) -> list[str]:
    """The models to serve: the requested ones, or all whose artifact is available.

    Raises:
        ZephyrError: one of them is unknown or has not been made, or none has.
    """
    models = plan.recipe.models
    for name in requested_names:
        if name not in models:
            raise unknown_name_error("model", name, models, where=f"recipe {plan.recipe.name}")
    available = [name for name in models if plan.state(name) in ("fresh", "waiting")]
    missing = [name for name in requested_names if name not in available]
    if missing or not available:
        problem = f"{', '.join(missing)} is not made yet"
        raise ZephyrError(
            problem if missing else f"no model of {plan.recipe.name} is made yet",
            where=str(plan.store.root),
            allowed=available or None,
            todo=f"zephyr run {plan.argument}{_name_other_recipes(plan)}",
        )
    return list(requested_names) or sorted(
        available, key=lambda name: _training_order(models, name)
    )


def _name_other_recipes(plan: "Plan") -> str:
    """The other recipes that have been run here, as a part of an advice."""
    names = sorted(p.parent.name for p in plan.store.root.glob("*/nodes.json"))
    others = ", ".join(name for name in names if name != plan.recipe.name)
    return f"; or serve another recipe with --recipe (run here: {others})" if others else ""


def _training_order(models: Mapping[str, ModelSpec], name: str) -> tuple[bool, int]:
    """Sort key: models with most training stages first, and quantized models last."""
    steps, parent = 0, models[name].from_
    while parent is not None:
        steps, parent = steps + 1, models[parent].from_
    return models[name].quantize is not None, -steps


def describe_model(model: ModelSpec) -> str:
    """Describes a model of a recipe in words (its base, SFT, DPO or quantization)."""
    if model.base is not None:
        return f"the base {model.base}"
    if model.pretrain is not None:
        return f"a base, pretrained on {model.pretrain.data}"
    if model.tune is not None:
        weights_note = f" on {model.tune.load} weights" if model.tune.load else ""
        return f"{model.from_}, tuned on {model.tune.data}{weights_note}"
    if model.align is not None:
        return f"{model.from_}, aligned on {model.align.data}"
    assert model.quantize is not None
    return f"{model.from_}, quantized by {model.quantize.method}"


def _run(
    plan: "Plan",
    names: Sequence[str],
    settings: TutorSettings,
    folder: Path,
    listen_address: ListenAddress,
    password: str | None,
    server_socket: socket.socket,
    port: int,
    notify: Callable[[str], Any],
) -> None:
    import uvicorn

    from zephyr.model.load import Lineage
    from zephyr.tutor.access import AccessPolicy, load_teacher_token
    from zephyr.tutor.api import create_app
    from zephyr.tutor.class_routes import class_routes
    from zephyr.tutor.classroom import Classroom
    from zephyr.tutor.connections import TutorServer, limit_logs
    from zephyr.tutor.events import EventLog
    from zephyr.tutor.quizzes import open_quizzes
    from zephyr.tutor.serving import load_served_models
    from zephyr.tutor.teacher_routes import teacher_routes

    store = plan.store
    database = settings.database_path(folder, store.root)
    token_path = database.with_suffix(".teacher")
    access = AccessPolicy(
        password,
        load_teacher_token(token_path),
        (*LOOPBACK, listen_address.host),
        settings.origins,
        listen_address.behind_proxy,
    )
    events = EventLog(database)
    if num_deleted := events.delete_older_than(settings.logs.keep_days):
        notify(
            f"removed {num_deleted} events older than {settings.logs.keep_days} days from "
            f"{database}"
        )
    quizzes = open_quizzes(settings, folder, plan.recipe, plan.folder)
    for note in quizzes.notes:
        notify(f"quiz: {note}")
    lineages = {
        name: Lineage.read(store.find(plan.nodes[name].fingerprint).artifact) for name in names
    }
    serving = load_served_models(
        lineages,
        {name: describe_model(plan.recipe.models[name]) for name in names},
        store.root,
        batch=settings.limits.batch,
        queue=settings.limits.queue,
        dtype=plan.recipe.run.dtype,
    )
    classroom = Classroom(serving, settings, events, quizzes)
    url = replace(listen_address, port=port).url
    is_hidden = listen_address.is_local or listen_address.behind_proxy  # students open another
    app = create_app(
        serving,
        settings,
        access,
        (class_routes(classroom), teacher_routes(classroom, None if is_hidden else url)),
        classroom.on_answer,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=listen_address.behind_proxy,
        ssl_certfile=listen_address.tls_certificate,
        ssl_keyfile=listen_address.tls_key,
        timeout_graceful_shutdown=3,
        http="h11",
        ws="none",
    )
    limit_logs(("asyncio", "uvicorn.error", "zephyr.tutor.classroom", "zephyr.tutor.connections"))
    server_socket.listen(1024)  # connections are accepted from now on
    notify(f"{', '.join(names)}: {url}   teacher: {url}/teacher, token in {token_path}")
    try:
        TutorServer(config).run(sockets=[server_socket])
    finally:
        serving.scheduler.shutdown()
        events.close()
