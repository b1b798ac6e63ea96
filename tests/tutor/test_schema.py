"""Every route, asked with what the app's own description allows, and with what it does not."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.tutor.apps import TutorApp, check_still_answers, open_app
from tests.tutor.asgi import call
from tests.workspace import Workspace

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
LOCAL_HOST = {"host": "localhost"}
EXAMPLES = 15
ANSWERABLE_BODY = {"model": "M1", "max_tokens": 2, "n": 1}
"""What a description can't say of a request that is answered, and answered soon."""
FEW_EXAMPLES = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # what fails is small enough
)


@pytest.fixture(scope="module")
def tutor_app(finished_workspace: Workspace) -> Iterator[TutorApp]:
    with open_app(finished_workspace, "M1", "M2") as found:
        yield found


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_route_gives_what_its_description_does_not(tutor_app: TutorApp, mode: Any) -> None:
    answerable = ANSWERABLE_BODY | {
        "session": call(tutor_app.app, "POST", "/tutor/session", {}).json["session"]
    }
    schema = schemathesis.openapi.from_asgi("/openapi.json", tutor_app.app, headers=LOCAL_HOST)
    failed: dict[str, str] = {}
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @FEW_EXAMPLES
        def ask(case: Any) -> None:
            if mode is GenerationMode.POSITIVE and case.method != "DELETE":
                for part in (case.body, case.query, case.path_parameters):
                    if isinstance(part, dict):
                        part |= {key: value for key, value in answerable.items() if key in part}
            response = case.call_and_validate(checks=CHECKS, headers=LOCAL_HOST)
            statuses[response.status_code] += 1

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # a route that takes nothing takes nothing wrong
        except Exception as error:  # noqa: BLE001  # the other routes are asked, too
            failed[operation.label] = str(error)
    assert not failed, "\n\n".join(f"{label}: {text}" for label, text in failed.items())
    assert (statuses[200] if mode is GenerationMode.POSITIVE else statuses[400]) >= EXAMPLES
    check_still_answers(tutor_app)
