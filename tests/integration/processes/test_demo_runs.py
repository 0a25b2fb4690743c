"""A demo that is over, and the runs that it launched."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from position_sync_dagster.demo import has_runs
from tests.support.ports import free_port
from tests.support.receiver import serving_app


@pytest.mark.parametrize(
    ("jobs", "has"),
    [(["stream_positions"], False), (["stream_positions", "close_day"], True), ([], False)],
)
def test_a_demo_that_is_over_waits_for_runs_but_not_for_the_stream(jobs, has):
    async def graphql(request: Request) -> JSONResponse:
        assert "runsOrError" in (await request.json())["query"]
        results = [{"jobName": job} for job in jobs]
        return JSONResponse({"data": {"runsOrError": {"results": results}}})

    with serving_app(Starlette(routes=[Route("/graphql", graphql, methods=["POST"])])) as port:
        assert has_runs(port) is has


def test_a_demo_whose_dagster_does_not_answer_waits_for_nothing():
    assert not has_runs(free_port())
