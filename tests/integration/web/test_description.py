"""The description of the API, asked by a program that believes it: schemathesis."""

from copy import deepcopy

import hypothesis
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from position_sync_dagster.web.api import openapi
from position_sync_dagster.web.loopback_guard import LoopbackGuard
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import row
from tests.support.empty_lakes import put_tables
from tests.support.extent import examples
from tests.support.legs import leg
from tests.support.receiver import serving_app

# Its import costs each process a second, also one that runs other tests.
CHECKS = (
    "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method",
)  # fmt: skip


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    import schemathesis

    folder = tmp_path_factory.mktemp("described") / "lake"
    put_tables(folder)
    served = Settings(lake=str(folder), gateway_id="gate")
    lake = MoneyLake.of(served)
    lake.registry.sync.add_many([leg(1, "condor")])
    lake.updates.sync.append([row(conid) for conid in range(1, 5)])
    routes = money_routes(dagster=False, open_figures=lambda: PageFigures(served))
    app = Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])
    with serving_app(app) as port:
        loaded = schemathesis.openapi.from_dict(closed(openapi()))
        loaded.config.update(base_url=f"http://127.0.0.1:{port}")
        yield loaded


def closed(description):
    """Return the description without room for fields that it does not name: of this version."""
    copy = deepcopy(description)
    for schema in copy["components"]["schemas"].values():
        if schema["type"] == "object":
            schema["additionalProperties"] = False
    return copy


# Nothing can be wrong about a query of a route without parameters.
ASKED = []
for path, methods in openapi()["paths"].items():
    ASKED.append((path, "positive"))
    if methods["get"]["parameters"]:
        ASKED.append((path, "negative"))


@pytest.mark.parametrize(("path", "mode"), ASKED)
def test_each_route_answers_what_its_description_says(described, path, mode):
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as of_openapi

    operation = described[path]["GET"]
    queries = operation.as_strategy(generation_mode=GenerationMode(mode))
    checks = [not_a_server_error, *(getattr(of_openapi, name) for name in CHECKS)]

    @hypothesis.settings(max_examples=examples(40), deadline=None)
    @hypothesis.given(case=queries)
    def asked(case) -> None:
        case.call_and_validate(checks=checks, timeout=60)

    asked()
