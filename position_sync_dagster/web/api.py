"""`/api/v1`: the figures and the risk of now for other programs, read only.

Each route has a query and an answer in `api_answers.py`; the description at
`/api/v1/openapi.json` is made of the same table. The guard of the page stands before it, and no
header allows pages of other origins.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response

from position_sync_dagster.errors import (
    PositionSyncError,
    UnknownIdError,
    UnknownStrategyError,
    UserError,
    shown,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.payoff import payoffs
from position_sync_dagster.risk.priced_legs import PricedLegs
from position_sync_dagster.risk.scenario_file import folder_of, read_scenarios
from position_sync_dagster.risk.scenarios import scenario_rows
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import (
    COLUMNS,
    Book,
    open_positions,
)
from position_sync_dagster.sync.reports.figures import VERSION, Figures, limit_of
from position_sync_dagster.sync.reports.risk import leg_notes
from position_sync_dagster.sync.reports.status import plain
from position_sync_dagster.sync.reports.what_if import Changes, WhatIf, rows_of_choice
from position_sync_dagster.terminal.text import cell_text
from position_sync_dagster.web import api_answers, results_answers, risk_answers
from position_sync_dagster.web.api_answers import (
    ApiModel,
    NoQuery,
    PayoffQuery,
    PositionsQuery,
    Problem,
    WhatIfQuery,
)
from position_sync_dagster.web.closed_day_answers import ClosedDayAnswer, closed_day
from position_sync_dagster.web.expiry_answers import ExpiryAnswer, ExpiryQuery, expiry_of
from position_sync_dagster.web.leg_answers import LegAnswer, LegQuery, read_leg
from position_sync_dagster.web.search_answers import SearchAnswer, SearchQuery, search
from position_sync_dagster.web.served_figures import ExplainedFigures
from position_sync_dagster.web.why_answers import WhyAnswer, WhyQuery, answer_why

# The most scenarios of one request.
MOST_POINTS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSource:
    """Where an answer is read from.

    Attributes:
        figures: Reads the figures of now; all requests of a second share a read.
        risk: Returns the book and its legs as the option model has them; requests share a read.
        compared: Returns that book before and after trades.
        explained: Returns why today's profit is what it is; all requests of a minute share it.
        lake: Opens the tables.
        settings: Reads the settings.
    """

    figures: Callable[[], Figures]
    risk: Callable[[], tuple[Book, PricedLegs]]
    compared: Callable[[Changes], WhatIf]
    explained: Callable[[], ExplainedFigures]
    lake: Callable[[], Lake]
    settings: Callable[[], Settings]


def _figures(source: ApiSource, _query: NoQuery) -> str:
    return source.figures().to_json()


def _header(source: ApiSource, _query: NoQuery) -> dict[str, Any]:
    figures = source.figures()
    status = figures.status
    gateways = [login.gateway for login in status.each_login]
    limits = [limit_of(evaluated) for evaluated in figures.limits]
    attention = [*status.attention, *status.unresolved_legs]
    return {
        "at": figures.at,
        "gateways": gateways,
        "attention": attention,
        "hints": status.hints,
        "limits": limits,
        "accounts": figures.accounts,
        "current": figures.current,
        "held": figures.held,
        "oldest_age_s": figures.oldest_age_s,
        "lines": status.lines_text,
        "without_line": status.legs_without_line,
        "mode": status.trading_mode,
        "changes": figures.changes[:1],
    }


def _accounts(source: ApiSource, _query: NoQuery) -> dict[str, Any]:
    figures = source.figures()
    return {"at": figures.at, "accounts": figures.accounts}


def _strategies(source: ApiSource, _query: NoQuery) -> dict[str, Any]:
    figures = source.figures()
    book = figures.book
    strategies = [*book.strategies, *book.rest]
    totals = [*book.totals, *book.in_base]
    return {
        "at": figures.at,
        "strategies": strategies,
        "underlyings": book.underlyings,
        "expiries": book.expiries,
        "totals": totals,
    }


def _positions(source: ApiSource, query: PositionsQuery) -> dict[str, Any]:
    figures = source.figures()
    figures.book.require_strategy(query.strategy)
    rows = open_positions(figures.book, query.strategy, query.underlying)
    return {"at": figures.at, "positions": rows.select(COLUMNS).to_dicts()}


def _positions_csv(source: ApiSource, _query: NoQuery) -> str:
    """Return the open positions as CSV; unknown cells are empty, texts begin no formula."""
    rows = source.figures().positions.select(COLUMNS).unnest("greeks")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows.columns)
    table.writerows(map(cell_text, row) for row in rows.iter_rows())
    return text.getvalue()


def _what_if(source: ApiSource, query: WhatIfQuery) -> dict[str, Any]:
    points = query.points()
    if len(points) > MOST_POINTS:
        raise UserError(
            f"These are {len(points)} scenarios, and at most {MOST_POINTS} are computed at once.",
            remedy="Ask for fewer numbers of spot, vol or days.",
        )

    changes = query.changes()
    if changes:
        return _compared(source, query, changes)

    book, legs = source.risk()
    book.require_strategy(query.strategy)
    chosen = legs.chosen(query.choice)
    rows = scenario_rows(chosen, points, query.level)
    return {"at": book.now, "rows": rows, "left_out": risk_answers.left_out_of(chosen)}


def _compared(source: ApiSource, query: WhatIfQuery, changes: Changes) -> dict[str, Any]:
    """Return what groups are before and after trades."""
    found = source.compared(changes)
    rows = found.rows(query.points(), query.level)
    rows = rows_of_choice(rows, query.strategy, query.account)
    reasons = found.after_legs.left_out().items()
    left_out = [{"reason": reason, "legs": count} for reason, count in reasons]
    return {"at": found.before.now, "rows": rows, "left_out": left_out, "notes": found.notes}


def _payoff(source: ApiSource, query: PayoffQuery) -> dict[str, Any]:
    book, legs = source.risk()
    book.require_strategy(query.strategy)
    found = payoffs(legs.of_strategy(query.strategy), leg_notes(book))
    return {"at": book.now, "payoffs": [payoff.row for payoff in found]}


def _curve(source: ApiSource, query: risk_answers.CurveQuery) -> dict[str, Any]:
    changes = query.changes()
    if not changes:
        return risk_answers.curve_answer(*source.risk(), query, notes=())

    after = source.compared(changes)
    return risk_answers.curve_answer(after.after, after.after_legs, query, notes=after.notes)


def _scenarios(source: ApiSource, _query: NoQuery) -> dict[str, Any]:
    scenarios = read_scenarios(folder_of(source.settings().strategies_file))
    return risk_answers.scenarios_answer(*source.risk(), scenarios.recorded)


def _closed_day(source: ApiSource, _query: NoQuery) -> dict[str, Any]:
    return closed_day(source.lake(), source.figures().at)


def _expiry(source: ApiSource, query: ExpiryQuery) -> dict[str, Any]:
    book, legs = source.risk()
    book.require_strategy(query.strategy)
    return expiry_of(legs, query)


def _search(source: ApiSource, query: SearchQuery) -> dict[str, Any]:
    return search(source.figures(), query)


def _leg(source: ApiSource, query: LegQuery) -> dict[str, Any]:
    return read_leg(source.lake(), source.figures(), query)


def _why(source: ApiSource, query: WhyQuery) -> dict[str, Any]:
    return answer_why(source.explained(), query)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """A route.

    Attributes:
        summary: What it answers, for the description.
        query: The parameters.
        answer: The shape of the JSON; None: it answers CSV.
        read: Returns the answer: a text, or values for the shape.
        is_tagged: Whether it has an entity tag: it changes only with the tables.
    """

    summary: str
    query: type[ApiModel]
    answer: type[ApiModel] | None
    read: Callable[[ApiSource, Any], str | dict[str, Any]]
    is_tagged: bool = False


# What is served below /api/v1/, by its name there.
ROUTES: dict[str, ApiRoute] = {}

ROUTES["figures"] = ApiRoute(
    summary="All figures",
    query=NoQuery,
    answer=api_answers.FiguresAnswer,
    read=_figures,
    is_tagged=True,
)

ROUTES["header"] = ApiRoute(
    summary="What the header of a page says",
    query=NoQuery,
    answer=api_answers.HeaderAnswer,
    # Untagged: its moment is what a page counts from, also where nothing changed.
    read=_header,
)

ROUTES["accounts"] = ApiRoute(
    summary="Accounts, and the profit of the day in its parts",
    query=NoQuery,
    answer=api_answers.AccountsAnswer,
    read=_accounts,
    is_tagged=True,
)

ROUTES["strategies"] = ApiRoute(
    summary="Sums of strategies, underlyings, expiries, and of all",
    query=NoQuery,
    answer=api_answers.StrategiesAnswer,
    read=_strategies,
    is_tagged=True,
)

ROUTES["positions"] = ApiRoute(
    summary="Open positions",
    query=PositionsQuery,
    answer=api_answers.PositionsAnswer,
    read=_positions,
)

ROUTES["positions.csv"] = ApiRoute(
    summary="Open positions as CSV",
    query=NoQuery,
    answer=None,
    read=_positions_csv,
    is_tagged=True,
)

ROUTES["what-if"] = ApiRoute(
    summary="Value and profit under other prices, volatilities and days",
    query=WhatIfQuery,
    answer=api_answers.WhatIfAnswer,
    read=_what_if,
)

ROUTES["payoff"] = ApiRoute(
    summary="Break-evens, greatest profit and greatest loss at the next expiry",
    query=PayoffQuery,
    answer=api_answers.PayoffAnswer,
    read=_payoff,
)

ROUTES["curve"] = ApiRoute(
    summary="Profit and greeks over the price: now, on a chosen day, and at the next expiry",
    query=risk_answers.CurveQuery,
    answer=risk_answers.CurveAnswer,
    read=_curve,
)

ROUTES["scenarios"] = ApiRoute(
    summary="Profit in the recorded scenarios",
    query=NoQuery,
    answer=risk_answers.ScenariosAnswer,
    read=_scenarios,
)

ROUTES["closed-day"] = ApiRoute(
    summary="Where the profit of the newest closed day came from, and its books",
    query=NoQuery,
    answer=ClosedDayAnswer,
    read=_closed_day,
)

ROUTES["expiry"] = ApiRoute(
    summary="What expires, and what may be assigned early",
    query=ExpiryQuery,
    answer=ExpiryAnswer,
    read=_expiry,
)

ROUTES["leg"] = ApiRoute(
    summary="A leg, its values of today, and its events",
    query=LegQuery,
    answer=LegAnswer,
    read=_leg,
)

ROUTES["search"] = ApiRoute(
    summary="Strategies, underlyings and legs by their names",
    query=SearchQuery,
    answer=SearchAnswer,
    read=_search,
)

ROUTES["why"] = ApiRoute(
    summary="Why today's profit of each strategy is what it is",
    query=WhyQuery,
    answer=WhyAnswer,
    read=_why,
)

ROUTES["results"] = ApiRoute(
    summary="What campaigns that are over brought, by group and by day",
    query=results_answers.ResultsQuery,
    answer=results_answers.ResultsAnswer,
    read=lambda source, query: results_answers.answer_results(source.lake(), query),
)

ROUTES["campaigns"] = ApiRoute(
    summary="Campaigns that are over",
    query=results_answers.CampaignsQuery,
    answer=results_answers.CampaignsAnswer,
    read=lambda source, query: results_answers.answer_campaigns(source.lake(), query),
)

ROUTES["campaign"] = ApiRoute(
    summary="One campaign: its legs, fills, rolls, and how it stood at each close",
    query=results_answers.CampaignQuery,
    answer=results_answers.CampaignAnswer,
    read=lambda source, query: results_answers.answer_campaign(
        source.lake(), source.settings(), query
    ),
)


def answer(name: str, parameters: QueryParams, known_tags: str, source: ApiSource) -> Response:
    """Return the answer to a request; blocks.

    Args:
        name: What is asked for: a name of ROUTES.
        parameters: The query.
        known_tags: The entity tags that the client has (If-None-Match).
        source: Where it is read from.
    """
    route = ROUTES.get(name)
    if route is None:
        what = f"There is nothing at /api/v1/{shown(name)}."
        return problem(404, what, "See /api/v1/openapi.json.")

    try:
        query = route.query.model_validate(dict(parameters))
        headers: dict[str, str] = {}
        if route.is_tagged:
            headers["ETag"] = etag_of(source.figures())
            if headers["ETag"] in re.findall(r'"[^"]*"', known_tags):
                return Response(status_code=304, headers=headers)

        content = route.read(source, query)
    except ValidationError as error:
        return problem(422, _invalid(error), "See /api/v1/openapi.json for the parameters.")
    except (UnknownStrategyError, UnknownIdError) as error:
        return problem(404, error.what, error.remedy)
    except UserError as error:
        return problem(422, error.what, error.remedy)
    except PositionSyncError as error:
        return problem(503, error.what, error.remedy)

    if route.answer is None:
        day = source.figures().at
        headers["Content-Disposition"] = f'attachment; filename="{day:%Y-%m-%d}-{name}"'
        return Response(content, headers=headers, media_type="text/csv")
    if isinstance(content, str):
        return Response(content, headers=headers, media_type="application/json")
    return JSONResponse(plain(content), headers=headers)


def _invalid(error: ValidationError) -> str:
    """Return what is wrong with a parameter."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or "the query"
    given = shown(str(first["input"]))
    return f"{name}={given}: {first['msg']}."


_TITLES = {
    404: "Not found",
    422: "A parameter is not usable",
    503: "The tables cannot be read",
}


def problem(status: int, detail: str, remedy: str) -> Response:
    """Return an error as RFC 9457 has it."""
    body = Problem(title=_TITLES[status], status=status, detail=detail, remedy=remedy)
    return JSONResponse(body.model_dump(), status, media_type="application/problem+json")


def etag_of(figures: Figures) -> str:
    """Return the entity tag: the version of the ledger, and what else changes without a row.

    That is the other tables that were read, the day, the state of each login and of each limit.
    """
    status = figures.status
    logins = []
    for login in status.each_login:
        logins.append((login.gateway_id, login.session_state, login.session_detail))
    limits = [(evaluated.limit, evaluated.outcome) for evaluated in figures.limits]

    day = (figures.at.date(), figures.day.since)
    counts = (len(status.attention), figures.current)
    content = repr((figures.versions, day, logins, counts, limits))
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f'"{figures.ledger_version or 0}-{digest}"'


@cache
def openapi() -> dict[str, Any]:
    """Return the description of all routes (OpenAPI 3.1)."""
    shapes: list[tuple[type[BaseModel], Literal["serialization"]]] = [(Problem, "serialization")]
    paths: dict[str, Any] = {}
    for name, route in ROUTES.items():
        paths[f"/api/v1/{name}"] = {"get": _operation(name)}
        if route.answer is not None:
            shapes.append((route.answer, "serialization"))

    _references, schemas = models_json_schema(
        shapes, by_alias=True, ref_template="#/components/schemas/{model}"
    )
    info = {"title": "Position Sync", "version": f"{VERSION}"}
    components = {"schemas": schemas["$defs"]}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(name: str) -> dict[str, Any]:
    """Return the description of a route."""
    route = ROUTES[name]
    content: Mapping[str, Any] = {"text/csv": {"schema": {"type": "string"}}}
    if route.answer is not None:
        content = {"application/json": {"schema": _reference(route.answer)}}

    responses: dict[str, Any] = {"200": {"description": route.summary, "content": content}}
    if route.is_tagged:
        unchanged = "Nothing has changed since the entity tag in If-None-Match."
        responses["304"] = {"description": unchanged}

    error = {"application/problem+json": {"schema": _reference(Problem)}}
    for status, title in _TITLES.items():
        if status == 503 or route.query.model_fields:
            responses[f"{status}"] = {"description": title, "content": error}

    operation_id = name.replace(".", "_").replace("-", "_")
    return {
        "operationId": operation_id,
        "summary": route.summary,
        "parameters": _parameters(route.query),
        "responses": responses,
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _parameters(query: type[ApiModel]) -> list[dict[str, Any]]:
    """Return the description of the parameters of a query; lists are separated by commas."""
    schema = query.model_json_schema(ref_template="#/components/schemas/{model}")
    parameters: list[dict[str, Any]] = []
    required = schema.get("required", ())
    for name, of_field in schema.get("properties", {}).items():
        type_of_field = dict(of_field)
        description = type_of_field.pop("description", "")
        parameter = {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": description,
            "style": "form",
            "explode": False,
            "schema": type_of_field,
        }
        parameters.append(parameter)
    return parameters
