"""`/api/v1`: the figures and the risk of now for other programs, read only.

Each route has a query and an answer in `api_answers.py`; the description at
`/api/v1/openapi.json` is made of the same table. The guard of the page stands before it, and no
header allows pages of other origins.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response

from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.errors import (
    PositionSyncError,
    UnknownIdError,
    UserError,
    shown,
)
from position_sync_dagster.money.campaigns.one_campaign import OneCampaign, read_campaign
from position_sync_dagster.money.reports.book import BOOK_COLUMNS, names_ever, open_positions
from position_sync_dagster.money.reports.figures import VERSION, Figures, amounts_in_cents
from position_sync_dagster.money.reports.known_names import KnownNames, UnknownNameError, nearest
from position_sync_dagster.money.reports.status import plain
from position_sync_dagster.money.risk.payoff import payoffs
from position_sync_dagster.money.risk.priced_legs import PricedLegs
from position_sync_dagster.money.risk.recorded_risk import leg_notes
from position_sync_dagster.money.risk.scenario_file import Point, folder_of, read_scenarios
from position_sync_dagster.money.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.money.risk.what_if import rows_of_choice
from position_sync_dagster.terminal.text import csv_of
from position_sync_dagster.web.api_answers import (
    AccountsAnswer,
    ApiModel,
    ChangesAnswer,
    ComputedAnswer,
    FiguresAnswer,
    HeaderAnswer,
    MomentQuery,
    NoQuery,
    PayoffAnswer,
    PayoffQuery,
    PositionsPage,
    PositionsQuery,
    Problem,
    StrategiesAnswer,
    TradesQuery,
    WhatIfAnswer,
    WhatIfQuery,
)
from position_sync_dagster.web.book_answers import (
    CurveAnswer,
    CurveQuery,
    ExpiryAnswer,
    ExpiryQuery,
    LegAnswer,
    LegQuery,
    ScenariosAnswer,
    SearchAnswer,
    SearchQuery,
    closed_days,
    left_out_of,
    read_curve,
    read_expiry,
    read_leg,
    read_scenario_profits,
    search,
)
from position_sync_dagster.web.results_answers import (
    CampaignQuery,
    CampaignsAnswer,
    CampaignsQuery,
    ClosedDayAnswer,
    FillsAnswer,
    FillsQuery,
    OpenCampaignsAnswer,
    OpenCampaignsQuery,
    ResultsAnswer,
    ResultsQuery,
    ReturnsAnswer,
    ReturnsQuery,
    WhyAnswer,
    WhyQuery,
    closed_day,
    read_account_returns,
    read_all_campaigns,
    read_campaigns_so_far,
    read_fills,
    read_results,
    read_why,
)
from position_sync_dagster.web.served_figures import PageFigures
from position_sync_dagster.web.turns import RETRY_AFTER_S, BusyError

# The most scenarios of one request, prices of legs that it takes, and rows of legs in its answer.
# The risk page takes 45 scenarios of a book of 20,000 legs.
MOST_POINTS = 500
MOST_LEG_POINTS = 1_000_000
MOST_LEG_ROWS = 100_000

# A question about fewer legs does not wait for a large one.
MANY_LEGS = 100

Query = TypeVar("Query", bound=ApiModel)


def _figures(source: PageFigures, _query: MomentQuery, now: datetime) -> str:
    return source.figures(now).to_json()


def _part(summary: str, shape: type[ApiModel], *, is_tagged: bool = True) -> "ApiRoute":
    """Return the route of the part of the figures that a shape has."""

    def read(source: PageFigures, _query: MomentQuery, now: datetime) -> dict[str, Any]:
        return source.figures(now).to_dict(shape.model_fields)

    return ApiRoute(summary, MomentQuery, shape, read, is_tagged=is_tagged)


def _positions(source: PageFigures, query: PositionsQuery, now: datetime) -> dict[str, Any]:
    book = source.figures(now).book
    rows = open_positions(book, query.strategy, query.underlying)
    keys = [f"{account}:{conid}" for account, conid in rows.select(KEY).iter_rows()]
    begin = 0
    if query.cursor is not None:
        if query.cursor not in keys:
            raise UserError(
                f"No open position is that of the cursor {shown(query.cursor)}.",
                remedy="It may be closed: begin again, without a cursor.",
            )
        begin = keys.index(query.cursor) + 1

    end = len(keys)
    next_cursor = None
    if query.limit is not None and begin + query.limit < len(keys):
        end = begin + query.limit
        next_cursor = keys[end - 1]
    chosen = rows[begin:end].select(query.fields or BOOK_COLUMNS)
    return {"at": book.now, "positions": chosen.to_dicts(), "next_cursor": next_cursor}


def _positions_csv(source: PageFigures, _query: MomentQuery, now: datetime) -> str:
    """Return the open positions as CSV; unknown cells are empty, texts begin no formula."""
    rows = source.figures(now).positions.select(BOOK_COLUMNS)
    rows = amounts_in_cents(rows).unnest("greeks")
    return csv_of(rows.columns, rows.iter_rows())


def _require_bounded(legs: PricedLegs, query: WhatIfQuery, points: Sequence[Point]) -> None:
    """Raise if a query takes too many scenarios or prices of legs.

    Raises:
        UserError: It takes too many.
    """
    if len(points) > MOST_POINTS:
        raise UserError(
            f"These are {len(points)} scenarios, and at most {MOST_POINTS} are computed at once.",
            remedy="Ask for fewer numbers of spot, vol or days.",
        )
    count = legs.chosen(query.choice).parts.height
    if query.changes():
        # All legs are priced twice, and each row has what is before and after besides.
        count = 4 * legs.parts.height
    size = count * len(points)
    most = MOST_LEG_ROWS if query.level is Breakdown.LEG else MOST_LEG_POINTS
    if size > most:
        raise UserError(
            f"These are {size:,} prices of legs, and at most {most:,} are computed at once.",
            remedy="Ask for fewer numbers of spot, vol or days, or for one strategy or underlying.",
        )


def _what_if(source: PageFigures, query: WhatIfQuery, now: datetime) -> dict[str, Any]:
    points = query.points(read_scenarios(folder_of(source.settings.strategies_file)).points)
    book, legs = source.risk(now)
    _require_bounded(legs, query, points)
    changes = query.changes()
    notes: dict[str, Any] = {}
    if changes:
        compared = source.compared(changes, now)
        book, legs = compared.before, compared.after_legs
        rows = compared.rows(points, query.level)
        rows = rows_of_choice(rows, query.strategy, query.account)
        notes["notes"] = compared.notes
    else:
        legs = legs.chosen(query.choice)
        rows = scenario_rows(legs, points, query.level)

    return {
        "at": book.now,
        "rows": rows,
        "left_out": left_out_of(legs),
        "closed_days": closed_days(legs.given, points),
        **notes,
    }


def _payoff(source: PageFigures, query: PayoffQuery, now: datetime) -> dict[str, Any]:
    book, legs = source.risk(now)
    of_strategies = payoffs(legs.of_strategy(query.strategy), leg_notes(book))
    return {"at": book.now, "payoffs": [payoff.row for payoff in of_strategies]}


def _campaign(source: PageFigures, query: CampaignQuery, _now: datetime) -> OneCampaign:
    return read_campaign(source.lake, source.settings.calendar, query.id)


def _is_of_many_legs(source: PageFigures, query: ApiModel, now: datetime) -> bool:
    """Return whether a question is of so many legs, without an answer to it; trades price all."""
    parts = source.figures(now).book.split.parts
    if isinstance(query, PayoffQuery) or (isinstance(query, TradesQuery) and not query.changes()):
        parts = parts.filter(query.choice.condition)
    return parts.height >= MANY_LEGS


# The names that the parameters of a route may be.


def _names_of_figures(source: PageFigures, now: datetime) -> KnownNames:
    return source.figures(now).book.names


def _names_ever(source: PageFigures, now: datetime) -> KnownNames:
    return names_ever(source.lake, source.figures(now).book)


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """A route.

    Attributes:
        summary: What it answers, for the description.
        query: The parameters.
        answer: The shape of the JSON; None: it answers CSV.
        read: Returns the answer: a text, or values for the shape.
        names: Returns the names that its parameters may be.
        is_large: Whether a question of many legs waits for others; each one of the past does.
        is_tagged: Whether it has an entity tag: it changes only with the tables.
    """

    summary: str
    query: type[ApiModel]
    answer: type | None
    read: Callable[[PageFigures, Any, datetime], Any]
    names: Callable[[PageFigures, datetime], KnownNames] = _names_of_figures
    is_large: bool = False
    is_tagged: bool = False


# What is served below /api/v1/, by its name there. The header is untagged: its moment is what a
# page counts from, also where nothing changed.
ROUTES = {
    "figures": ApiRoute("All figures", MomentQuery, FiguresAnswer, _figures, is_tagged=True),
    "header": _part("What the header of a page says", HeaderAnswer, is_tagged=False),
    "accounts": _part("Accounts, and the profit of the day in its parts", AccountsAnswer),
    "changes": _part("What happened today: trades, closes, other moves and outages", ChangesAnswer),
    "strategies": _part("Sums of strategies, underlyings, expiries, and of all", StrategiesAnswer),
    "positions": ApiRoute(
        "Open positions", PositionsQuery, PositionsPage, _positions, is_tagged=True
    ),
    "positions.csv": ApiRoute(
        "Open positions as CSV", MomentQuery, None, _positions_csv, is_tagged=True
    ),
    "what-if": ApiRoute(
        "Value and profit under other prices, volatilities and days",
        WhatIfQuery,
        WhatIfAnswer,
        _what_if,
        is_large=True,
    ),
    "payoff": ApiRoute(
        "Break-evens, greatest profit and greatest loss at the next expiry",
        PayoffQuery,
        PayoffAnswer,
        _payoff,
        is_large=True,
    ),
    "curve": ApiRoute(
        "Profit and greeks over the price: now, on a chosen day, and at the next expiry",
        CurveQuery,
        CurveAnswer,
        read_curve,
        is_large=True,
    ),
    "scenarios": ApiRoute(
        "Profit in the recorded scenarios",
        NoQuery,
        ScenariosAnswer,
        read_scenario_profits,
        is_large=True,
    ),
    "closed-day": ApiRoute(
        "Where the profit of the newest closed day came from, and its books",
        NoQuery,
        ClosedDayAnswer,
        closed_day,
    ),
    "expiry": ApiRoute(
        "What expires, and what may be assigned early",
        ExpiryQuery,
        ExpiryAnswer,
        read_expiry,
        is_large=True,
    ),
    "leg": ApiRoute("A leg, its values of today, and its events", LegQuery, LegAnswer, read_leg),
    "search": ApiRoute(
        "Strategies, underlyings and legs by their names", SearchQuery, SearchAnswer, search
    ),
    "why": ApiRoute(
        "Why today's profit of each strategy is what it is",
        WhyQuery,
        WhyAnswer,
        read_why,
        _names_ever,
        is_large=True,
    ),
    "results": ApiRoute(
        "What campaigns that are over brought, by group and by day",
        ResultsQuery,
        ResultsAnswer,
        read_results,
    ),
    "returns": ApiRoute(
        "What accounts returned, by time and by money",
        ReturnsQuery,
        ReturnsAnswer,
        read_account_returns,
    ),
    "fills": ApiRoute(
        "What fills cost against the quote before them, with fees",
        FillsQuery,
        FillsAnswer,
        read_fills,
    ),
    "campaigns": ApiRoute(
        "Campaigns that are over", CampaignsQuery, CampaignsAnswer, read_all_campaigns, _names_ever
    ),
    "open-campaigns": ApiRoute(
        "Open campaigns of strategies: what they brought so far, and how they stood",
        OpenCampaignsQuery,
        OpenCampaignsAnswer,
        read_campaigns_so_far,
    ),
    "campaign": ApiRoute(
        "One campaign: its fills and rolls, and its days",
        CampaignQuery,
        OneCampaign,
        _campaign,
    ),
}


def ask(source: PageFigures, name: str, now: datetime, /, **parameters: Any) -> Any:
    """Return what a route answers; blocks.

    Raises:
        ValidationError: A parameter is not usable.
        UserError: There is no such parameter, account, underlying or strategy; or it is too large.
    """
    return question(source, name, now, parameters).read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a route.

    Attributes:
        name: The name of the route.
        query: The parameters.
        source: What is asked: the figures of now, or those of a past moment.
        now: The moment of the question.
    """

    name: str
    query: ApiModel
    source: PageFigures
    now: datetime

    @property
    def _route(self) -> ApiRoute:
        return ROUTES[self.name]

    def is_large(self) -> bool:
        """Return whether it waits for other large questions; blocks, and computes little."""
        if self.source.past is not None:
            return True
        return self._route.is_large and _is_of_many_legs(self.source, self.query, self.now)

    def read(self) -> Any:
        """Return the answer: a text, or values for the shape of the route; blocks.

        Raises:
            UserError: There is no such account, underlying or strategy; or it is too large.
        """
        self._require_known_names()
        return self._content()

    def response(self, known_tags: str) -> Response:
        """Return the answer to a request; blocks.

        Args:
            known_tags: The entity tags that the client has (If-None-Match).
        """
        try:
            self._require_known_names()
            headers: dict[str, str] = {}
            if self._route.is_tagged:
                headers["ETag"] = etag_of(self.source.figures(self.now))
                if headers["ETag"] in re.findall(r'"[^"]*"', known_tags):
                    return Response(status_code=304, headers=headers)

            return _response(
                self._route, self._content(), headers, f"{self.now:%Y-%m-%d}-{self.name}"
            )
        except (PositionSyncError, ValidationError) as error:
            return refusal(error)

    def _content(self) -> Any:
        """Return the answer; what is computed says which values are not of now."""
        if not issubclass(self._route.answer or str, ComputedAnswer):
            return self._route.read(self.source, self.query, self.now)

        not_current = self.source.figures(self.now).not_current
        content = self._route.read(self.source, self.query, self.now)
        return content | {"not_current": not_current}

    def _require_known_names(self) -> None:
        kinds = ("strategy", "account", "underlying")
        given = {kind: getattr(self.query, kind, None) for kind in kinds}
        if any(text is not None for text in given.values()):
            self._route.names(self.source, self.now).require(**given)


def question(
    source: PageFigures, name: str, now: datetime, parameters: Mapping[str, Any]
) -> Question:
    """Return what is asked of a route.

    Raises:
        ValidationError: A parameter is not usable.
        UserError: There is no such route or parameter, or a moment is in the future.
    """
    route = ROUTES.get(name)
    if route is None:
        raise UnknownIdError(
            f"There is nothing at /api/v1/{shown(name)}.", remedy="See /api/v1/openapi.json."
        )

    query = query_of(route.query, parameters)
    asked = source.played_back(getattr(query, "at", None), now)
    return Question(name=name, query=query, source=asked, now=now)


def query_of(shape: type[Query], parameters: Mapping[str, Any]) -> Query:
    """Return parameters as a query.

    Raises:
        ValidationError: A parameter is not usable.
        UserError: There is no such parameter.
    """
    known_parameters(parameters, shape.model_fields)
    return shape(**parameters)


def known_parameters(given: Iterable[str], known: Collection[str]) -> None:
    """Raise if a parameter is given that there is not.

    Raises:
        UserError: It names the nearest ones.
    """
    for name in given:
        if name not in known:
            remedy = nearest(name, known) if known else "It takes none."
            raise UserError(f"There is no parameter {shown(name)}.", remedy=remedy)


def answer(
    name: str, parameters: QueryParams, known_tags: str, source: PageFigures, now: datetime
) -> Response | Question:
    """Return the answer to a request, or the question if it is large; blocks.

    Args:
        name: What is asked for: a name of ROUTES.
        parameters: The query.
        known_tags: The entity tags that the client has (If-None-Match).
        source: Where it is read from.
        now: The moment.
    """
    # What is there several times is a list, as with commas.
    given = {each: ",".join(parameters.getlist(each)) for each in parameters}
    try:
        asked = question(source, name, now, given)
        return asked if asked.is_large() else asked.response(known_tags)
    except (PositionSyncError, ValidationError) as error:
        return refusal(error)


def refusal(error: PositionSyncError | ValidationError) -> Response:
    """Return the answer to a request that cannot be answered."""
    if isinstance(error, ValidationError):
        return problem(422, invalid(error), "See /api/v1/openapi.json for the parameters.")
    if isinstance(error, UnknownNameError | UnknownIdError):
        return problem(404, error.what, error.remedy)
    if isinstance(error, UserError):
        return problem(422, error.what, error.remedy)
    if isinstance(error, BusyError):
        refused = problem(503, error.what, error.remedy, title="Too many questions wait")
        refused.headers["Retry-After"] = f"{RETRY_AFTER_S}"
        return refused
    return problem(503, error.what, error.remedy)


def _response(route: ApiRoute, content: Any, headers: dict[str, str], file: str) -> Response:
    """Return what was read as a response."""
    if route.answer is None:
        headers["Content-Disposition"] = f'attachment; filename="{file}"'
        return Response(content, headers=headers, media_type="text/csv")
    if isinstance(content, str):
        return Response(content, headers=headers, media_type="application/json")
    return JSONResponse(plain(content), headers=headers)


def invalid(error: ValidationError) -> str:
    """Return what is wrong with a parameter."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or "the query"
    if first["type"] == "missing":
        return f"The parameter {name} is missing."
    given = shown(str(first["input"]))
    if first["type"] in ("float_parsing", "int_parsing"):
        return f"{name}={given} is no number. Write it without a unit, several as -5,0,2.5."
    return f"{name}={given}: {first['msg']}."


_TITLES = {
    404: "Not found",
    422: "A parameter is not usable",
    503: "The tables cannot be read",
}


def problem(status: int, detail: str, remedy: str, *, title: str | None = None) -> Response:
    """Return an error as RFC 9457 has it; without a title that of its status."""
    title = title or _TITLES[status]
    body = Problem(title=title, status=status, detail=detail, remedy=remedy)
    return JSONResponse(body.model_dump(), status, media_type="application/problem+json")


def etag_of(figures: Figures) -> str:
    """Return the entity tag: the version of the ledger, and what else changes without a row.

    That is the other tables that were read, the day, the state of each login and of each limit.
    """
    status = figures.status
    logins = [
        (login.gateway_id, login.session_state, login.session_detail) for login in status.each_login
    ]
    limits = [(evaluated.limit, evaluated.outcome) for evaluated in figures.limits]

    day = (figures.at.date(), figures.day.since)
    counts = (len(status.attention), figures.current)
    content = repr((figures.versions, day, logins, counts, limits)).encode()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return f'"{figures.ledger_version or 0}-{digest}"'


# The shape of an answer, by its name.
Shape = tuple[str, Literal["serialization"], TypeAdapter[Any]]


@cache
def openapi() -> dict[str, Any]:
    """Return the description of all routes (OpenAPI 3.1)."""
    shapes: list[Shape] = [("problem", "serialization", TypeAdapter(Problem))]
    paths: dict[str, Any] = {}
    for name, route in ROUTES.items():
        paths[f"/api/v1/{name}"] = {"get": _operation(name)}
        if route.answer is not None:
            shapes.append((name, "serialization", TypeAdapter(route.answer)))

    _references, schemas = TypeAdapter.json_schemas(
        shapes, by_alias=True, ref_template="#/components/schemas/{model}"
    )
    for schema in schemas["$defs"].values():
        _open(schema)

    return {
        "openapi": "3.1.0",
        "info": {"title": "Position Sync", "version": f"{VERSION}"},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _open(schema: dict[str, Any]) -> None:
    """Open the shape of a part of an answer for fields and values of later versions.

    The values of now are text, and a list that no client takes for the only ones. A field that may
    be absent is not required; null is no value of it.
    """
    schema.pop("additionalProperties", None)
    values = schema.pop("enum", None)
    if values is not None:
        schema["x-values"] = values
        schema["description"] += f"\n\nOne of {', '.join(values)}, or what later versions add."
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]


def _operation(name: str) -> dict[str, Any]:
    """Return the description of a route."""
    route = ROUTES[name]
    operation_id = name.replace(".", "_").replace("-", "_")
    content: Mapping[str, Any] = _CSV
    if route.answer is not None:
        content = _content_of("application/json", route.answer)

    responses = {}
    responses["200"] = {"description": route.summary, "content": content}
    if route.is_tagged:
        unchanged = "Nothing has changed since the entity tag in If-None-Match."
        responses["304"] = {"description": unchanged}
    for status, title in _TITLES.items():
        if status != 404 or route.query.model_fields:
            responses[f"{status}"] = {"description": title, "content": _ERROR}
    responses["503"] |= _UNAVAILABLE

    return {
        "operationId": operation_id,
        "summary": route.summary,
        "parameters": _parameters(route.query),
        "responses": responses,
    }


def _content_of(kind: str, model: type) -> dict[str, Any]:
    return {kind: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


_CSV = {"text/csv": {"schema": {"type": "string"}}}

_ERROR = _content_of("application/problem+json", Problem)

_UNAVAILABLE = {
    "description": "The tables cannot be read; or, with Retry-After, too many questions wait.",
    "headers": {
        "Retry-After": {
            "description": "The seconds until one may ask again.",
            "schema": {"type": "integer"},
        }
    },
}


def _parameters(query: type[ApiModel]) -> list[dict[str, Any]]:
    """Return the description of the parameters of a query; lists are separated by commas."""
    schema = query.model_json_schema()
    required = schema.get("required", ())
    closed = schema.get("$defs", {})
    parameters = []
    for name, field in schema.get("properties", {}).items():
        parameter = {"name": name, "in": "query", "required": name in required}
        parameter["description"] = field.pop("description", "")
        parameter |= {"style": "form", "explode": False}
        parameter["schema"] = _written_out(field, closed)
        parameters.append(parameter)
    return parameters


def _written_out(field: dict[str, Any], shapes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a parameter with its values: the shapes of this name are those of answers, open."""
    name = field.pop("$ref", "").rpartition("/")[2]
    return shapes.get(name, {}) | field
