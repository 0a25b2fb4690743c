"""The money page at `/money`, its feed, and the routes of all pages.

Nobody can write: the tables that a viewer sorts and groups are in his own browser, and every route
is for GET alone.
"""

import asyncio
from collections.abc import Callable
from functools import cache

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.settings import load_settings
from position_sync_dagster.web.api import answer, openapi, query_of, refusal
from position_sync_dagster.web.api_answers import FeedQuery
from position_sync_dagster.web.feed import Feed
from position_sync_dagster.web.metrics import MetricsPage
from position_sync_dagster.web.page import (
    HEADERS,
    html_route,
    packed_answer,
    static_routes,
)
from position_sync_dagster.web.served_figures import PageFigures


def money_routes(
    *,
    dagster: bool = True,
    open_figures: Callable[[], PageFigures] = lambda: PageFigures(load_settings()),
) -> list[BaseRoute]:
    """Return the routes of the pages and of the API; the caller puts the guard before them.

    Args:
        dagster: Whether Dagster's pages are on the same port, so that rows can link to their runs.
        open_figures: Opens what the feed reads.
    """
    opened = cache(open_figures)
    return [
        *map(html_route, ("/money", "/money/risk", "/money/results")),
        *static_routes(),
        _feed_route(Feed(opened, {"dagster": dagster})),
        *_api_routes(opened),
        _metrics_route(opened),
    ]


def _milliseconds_now() -> str:
    """Return the time that the ages in an answer count to, however old its figures are."""
    return str(round(utc_now().timestamp() * 1000))


def _feed_route(feed: Feed) -> Route:
    async def data(request: Request) -> Response:
        try:
            query = query_of(FeedQuery, dict(request.query_params))
            packed = None
            if query.at is not None:
                packed = await asyncio.to_thread(feed.played_back, query.at, curves=query.curves)
        except (PositionSyncError, ValidationError) as error:
            refused = refusal(error)
            refused.headers.update(HEADERS)
            return refused

        if query.at is None:
            packed = await feed.after(query.after)
        headers = {"Server-Time": _milliseconds_now(), "Cache-Control": "no-store"}
        if packed is None:
            return Response(status_code=204, headers={**HEADERS, **headers})
        return packed_answer(request, packed, "application/json", headers)

    return Route("/money/data", data, methods=["GET"])


# Starlette calls an endpoint that is no coroutine in a thread: it blocks no other request.
def _api_routes(opened: Callable[[], PageFigures]) -> list[Route]:
    def api(request: Request) -> Response:
        known_tags = request.headers.get("if-none-match", "")
        name = request.path_params["name"]
        response = answer(name, request.query_params, known_tags, opened(), utc_now())
        headers = {**HEADERS, "Cache-Control": "no-cache", "Server-Time": _milliseconds_now()}
        response.headers.update(headers)
        return response

    def description(request: Request) -> Response:
        return JSONResponse(openapi(), headers={**HEADERS, "Cache-Control": "no-cache"})

    return [
        Route("/api/v1/openapi.json", description, methods=["GET"]),
        Route("/api/v1/{name}", api, methods=["GET"]),
    ]


def _metrics_route(opened: Callable[[], PageFigures]) -> Route:
    @cache
    def metrics_page() -> MetricsPage:
        return MetricsPage(opened().figures, opened().lake.updates.sync)

    def metrics(request: Request) -> Response:
        response = metrics_page().answer(request.headers.get("accept", ""), utc_now())
        response.headers.update({**HEADERS, "Cache-Control": "no-store"})
        return response

    return Route("/metrics", metrics, methods=["GET"])
