"""The figures of the money page, over HTTP and for an assistant, over real tables."""

import asyncio
import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from jsonschema import Draft202012Validator
from starlette.datastructures import QueryParams
from starlette.responses import Response

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.profit.profit import PROFIT_PARTS
from position_sync_dagster.money.reports.book import COMMIT_TAKES
from position_sync_dagster.money.reports.changes import ChangeKind
from position_sync_dagster.money.reports.figures import BOOK_COLUMNS as REPORTED
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.risk.terms import NotPriced
from position_sync_dagster.money.tables import BOOKS, PROFIT_EXPLAINED
from position_sync_dagster.web import api, served_figures
from position_sync_dagster.web.api import ROUTES, openapi
from position_sync_dagster.web.served_figures import PageFigures
from tests.support import command_line
from tests.support.derived_rows import put_rows
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.sessions import own
from tests.support.waiting import eventually
from tests.unit.money.past.test_causes import change

MARKUP = "<img src=x onerror=alert(1)>"


def row(conid: int, **values: object) -> PositionUpdate:
    now = datetime.now(UTC)
    usual = dict(
        conid=conid, symbol="SPY", right=Right.PUT, position=-2.0, strike=575.0,
        market_price=1.5, market_value=-300.0, average_cost=100.0, unrealized_pnl=5.0,
        daily_pnl=-7.0, timestamp=now, account="U1", expiry=exchange_date(now),
        gateway_id="gate", update_id=f"row-{conid}",
    )  # fmt: skip
    return PositionUpdate(**usual | values)


def account_of(at: datetime, *open_profits: float) -> AccountSummary:
    """Return an account that lost 160.25 today, with the profits of what it holds."""
    account = AccountSummary(
        account="U1", currency="USD", daily_pnl=-160.25, net_liquidation=50_000.0, cash=1.0,
        excess_liquidity=20_000.0, initial_margin=31_000.0, maintenance_margin=30_000.0,
        timestamp=at, pnl_received_at=at, values_received_at=at, gateway_id="gate",
    )  # fmt: skip
    profits = [("USD", profit) for profit in open_profits]
    return account.with_open_profit(profits, len(profits))


def write(lake, *rows):
    lake.updates.sync.append(list(rows))


def activate(lake, *legs):
    lake.registry.sync.add_many(list(legs))


# Little of a sum, so that it has a star.
VALUELESS = {"market_value": None, "position": -0.1, "note": "none"}


def test_each_leg_is_a_part_of_its_strategies_and_what_is_unknown_is_counted(lake, settings):
    activate(lake, leg(1, "a", quantity=-1.0), leg(2, MARKUP))
    write(lake, row(1), row(2, delta=-0.5), row(3, **VALUELESS))
    rows, figures = PageFigures(settings).read(utc_now())
    parts = rows.to_dicts()
    named = {(part["strategy"], part["conid"]) for part in parts}
    assert named == {("a", 1), ("UNATTRIBUTED", 1), (MARKUP, 2), ("UNATTRIBUTED", 3)}

    [total] = figures["totals"]
    greekless = dict.fromkeys(("dollar_delta", "gamma_1pct", "theta", "vega"), 3)
    assert total["market_value"] == (-600.0)
    assert total["unknown"] == {"market_value": 1, **greekless}
    assert parts[0]["average_cost"] == 1.0, "of a share, as the price; a contract costs 100"

    [unknown] = [part for part in parts if part["conid"] == 3]
    assert unknown["market_value"] is None
    assert unknown["unvalued"] == 1
    assert unknown["delta"] is None
    [expiry] = figures["expiries"]
    assert expiry["days"] == 0
    assert expiry["legs_held"] == 3
    assert json.loads(json.dumps([parts, figures], allow_nan=False))


def test_betas_of_the_file_weigh_deltas_and_a_mistake_in_it_stops_no_page(lake, settings, tmp_path):
    file = tmp_path / "scenarios.yaml"
    file.write_text("betas: {SPY: 1.5}\n")
    write(lake, row(1, delta=-0.5, underlying_price=600.0))
    reader = PageFigures(settings)
    now = utc_now()
    (total,) = reader.read(now)[1]["totals"]
    assert total["dollar_delta"] == 60_000.0
    assert total["beta_delta"] == 90_000.0
    file.write_text("betas: [SPY]\n")
    (total,) = reader.read(now + timedelta(seconds=2))[1]["totals"]
    assert total["dollar_delta"] == 60_000.0
    assert total["beta_delta"] is None


def slow_figures(reader: PageFigures, now: datetime | None = None) -> dict[str, Any]:
    """Return the figures of a moment with curves and scenarios, which are computed beside reads."""
    moment = now or utc_now() + COMMIT_TAKES

    async def wait() -> dict[str, Any]:
        def computed() -> dict[str, Any] | None:
            _, figures = reader.read(moment)
            if figures["scenarios"]["at"] == moment.isoformat():
                return figures

            return None

        return await eventually(computed)

    return asyncio.run(wait())


def test_what_needs_a_decision_is_computed_after_each_change_and_not_at_the_next_minute(
    lake, settings, monkeypatch
):
    monkeypatch.setattr(served_figures, "SLOW_SHARE", 1e9)
    write(lake, row(1))
    reader = PageFigures(settings)
    now = utc_now() + COMMIT_TAKES
    slow_figures(reader, now)
    lake.position_changes.add([change(1, -2.0, -1.0, seen_at=now, since=now)])
    later = now + served_figures.BEGINNING / 2
    assert slow_figures(reader, later)["scenarios"]["at"] == later.isoformat()


def test_a_leg_that_was_never_held_counts_in_the_row_of_its_strategy(lake, settings):
    activate(lake, leg(1, "condor"), leg(99, "condor"), leg(98, "armed"))
    write(lake, row(1, currency="USD"))
    rows = PageFigures(settings).read(utc_now() + COMMIT_TAKES)[1]["strategies"]
    columns = ("strategy", "currency", "legs", "legs_held")
    counts = [tuple(sums[name] for name in columns) for sums in rows]
    assert counts == [("armed", None, 1, 0), ("condor", "USD", 2, 1)]


def scenarios(reader: PageFigures) -> dict[str, object]:
    return slow_figures(reader)["scenarios"]


def hold_shares_and_a_leg_without_volatility(lake):
    """Hold ten shares of a strategy, and an option of none."""
    terms = {"right": None, "strike": None, "expiry": None}
    shares = terms | {"sec_type": "STK", "position": 10.0, "multiplier": 1.0}
    activate(lake, leg(1, "a", **terms))
    write(
        lake,
        row(1, **shares, market_price=100.0, market_value=1000.0),
        row(2, implied_vol=None),
    )


def test_strategies_and_underlyings_have_a_strip_of_scenarios(lake, settings, tmp_path):
    file = tmp_path / "scenarios.yaml"
    file.write_text("scenarios: [{name: crash, spot: -30}]\n")
    hold_shares_and_a_leg_without_volatility(lake)
    rows = scenarios(PageFigures(settings))
    assert rows["names"] == ["-10 %", "-5 %", "+5 %", "+10 %", "crash"]

    profits = {(entry["level"], entry["name"]): entry for entry in rows["rows"]}  # type: ignore[attr-defined]
    assert profits["strategy", "a"]["profits"] == pytest.approx([-100, -50, 50, 100, -300])
    assert profits["underlying", "SPY"]["left_out"] == [1] * 5
    assert profits["strategy", "UNATTRIBUTED"]["profits"] == [None] * 5
    file.write_text("scenarios: 1\n")
    assert "scenarios.yaml" in str(scenarios(PageFigures(settings))["trouble"])


def write_profit(lake, at):
    profit = AccountSummary(account="U1", currency="USD", timestamp=at, daily_pnl=-7.0)
    lake.account_values.append([profit])


def test_the_curves_are_read_again_after_the_clock_was_set_back(lake, settings):
    reader = PageFigures(settings)
    now = utc_now()
    assert slow_figures(reader, now)["curves"] == {}
    at = now - timedelta(hours=2)
    write_profit(lake, at)
    figures = slow_figures(reader, now - timedelta(hours=1))
    assert figures["curves"] == {"U1": [[at.isoformat(), -7.0]]}


def test_curves_that_could_not_be_read_once_are_read_again(lake, settings, monkeypatch):
    reader = PageFigures(settings)
    now = utc_now()
    unreadable = Mock(side_effect=LakeError("A table is being replaced.", remedy="Wait."))
    with monkeypatch.context() as patched:
        patched.setattr(served_figures, "curves_of_accounts", unreadable)
        with pytest.raises(LakeError, match="being replaced"):
            slow_figures(reader, now)
    write_profit(lake, now)
    figures = slow_figures(reader, now + timedelta(hours=1))
    assert [*figures["curves"]] == ["U1"]


def test_nothing_is_current_without_a_gateway_and_ages_begin_with_the_price(lake, settings):
    at = datetime.now(UTC) - timedelta(minutes=3)
    write(lake, row(1, timestamp=at, value_time=at))
    rows, figures = PageFigures(settings).read(utc_now())
    [part] = rows.to_dicts()
    assert part["current"] is False
    assert part["priced_at"] == int(at.timestamp() * 1000)
    assert figures["gateway"]["state"] is None
    assert figures["current"] == 0


def test_holdings_that_are_in_no_sum_yet_are_counted(lake, settings):
    write(lake, row(1, position=1.0))
    held = [make_holding(1, utc_now()), make_holding(2, utc_now()), make_holding(3, utc_now())]
    held[0] = replace(held[0], position=1.0, account="U1")
    lake.broker_positions.replace(settings.gateway_id, held)
    missing = "2 holdings are new or changed: the sums have the quantity from before, or nothing"
    assert PageFigures(settings).read(utc_now())[1]["missing"] == [missing]


TOP = {
    "version", "at", "ledger_version", "gateway", "accounts", "strategies", "underlyings",
    "expiries", "positions", "closed_today", "changes", "limits",
}  # fmt: skip


async def test_the_figures_have_their_shape_and_unknown_is_null(client, lake):
    activate(lake, leg(1, "a", quantity=-1.0), leg(1, "b", quantity=-1.0))
    write(lake, row(1), row(2, daily_pnl=None, market_price=None))
    answer = (await client.get("/api/v1/figures")).json()
    assert answer["version"] == 1

    shared, unknown = answer["positions"]
    assert [*shared] == [*REPORTED]
    assert shared["strategies"] == ["a", "b"]
    assert shared["shares"] == [0.5, 0.5]
    assert (unknown["today"], unknown["market_price"], unknown["greeks"]["delta"]) == (None,) * 3
    total = answer["totals"][0]
    counts = (total["unknown"]["today"], total["known"]["today"], total["of"]["today"])
    assert (total["today"], *counts) == (None, 1, 1, 2)
    today_of = {strategy["strategy"]: strategy["today"] for strategy in answer["strategies"]}
    assert today_of == {"a": -3.5, "b": -3.5, "UNATTRIBUTED": None}


async def test_an_entity_tag_says_that_nothing_changed_until_ledger_or_gateway_do(
    client, lake, settings
):
    """A gateway that stops writes no row of a holding, and an old answer would look fresh."""
    write(lake, row(1))
    first = await client.get("/api/v1/figures")
    assert first.headers["etag"].startswith(f'"{first.json()["ledger_version"]}-')
    known = {"If-None-Match": first.headers["etag"]}
    assert (await client.get("/api/v1/figures", headers=known)).status_code == 304
    write(lake, row(2))
    changed = await client.get("/api/v1/figures", headers=known)
    assert changed.status_code == 200
    known = {"If-None-Match": changed.headers["etag"]}
    assert (await client.get("/api/v1/figures", headers=known)).status_code == 304
    own(lake, settings.gateway_id)
    assert (await client.get("/api/v1/figures", headers=known)).status_code == 200


async def test_the_csv_has_the_strategies_and_no_cell_that_a_spreadsheet_runs(client, lake):
    activate(lake, leg(1, '=HYPERLINK("http://x")'))
    write(lake, row(1, symbol="@SUM\nforged", market_value=-300.126789, market_price=1.234567))
    answer = await client.get("/api/v1/positions.csv")
    assert f"{utc_now():%Y}" in answer.headers["content-disposition"]
    (entry,) = csv.DictReader(io.StringIO(answer.text))
    assert entry["strategies"].startswith("'=HYPERLINK")
    assert entry["symbol"] == "'@SUM\\nforged"
    assert entry["market_value"] == "-300.13"
    assert entry["market_price"] == "1.234567"
    assert entry["delta"] == ""
    assert entry["position"] == "-2"


async def test_the_description_names_every_route_and_every_column(client):
    description = (await client.get("/api/v1/openapi.json")).json()
    assert [*description["paths"]] == [f"/api/v1/{name}" for name in ROUTES]
    schemas = description["components"]["schemas"]
    assert [*schemas["Position"]["properties"]] == [*REPORTED]
    assert {"today", "unrealized", "unknown"} <= set(schemas["StrategySum"]["required"])
    assert set(schemas["FiguresAnswer"]["required"]) >= TOP


def parts_of(value):
    """Yield each object of a description."""
    if isinstance(value, dict):
        yield value
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in below:
        yield from parts_of(part)


def test_answers_are_open_for_fields_and_values_of_later_versions_and_questions_are_closed():
    description = openapi()
    answers = [*parts_of(description["components"]["schemas"])]
    assert not [part for part in answers if "enum" in part]
    assert not [part for part in answers if part.get("additionalProperties") is False]
    kinds = description["components"]["schemas"]["ChangeKind"]
    assert kinds["x-values"] == [*ChangeKind]
    assert all(kind in kinds["description"] for kind in ChangeKind)

    schemas: dict[Any, Any] = {}
    for path, methods in description["paths"].items():
        parameters = methods["get"]["parameters"]
        assert "$ref" not in str(parameters)
        schemas |= {(path, parameter["name"]): parameter["schema"] for parameter in parameters}
    assert schemas["/api/v1/what-if", "level"]["enum"] == [*Breakdown]


def test_each_default_of_the_description_is_a_value_of_its_field():
    described = [part for part in parts_of(openapi()) if "default" in part]
    assert len(described) > 50
    for field in described:
        with_references = openapi() | field
        Draft202012Validator(with_references).validate(field["default"])


@pytest.mark.parametrize(
    ("question", "name"), [("leg", "account"), ("leg?account=U1", "conid"), ("campaign", "id")]
)
async def test_a_parameter_that_is_missing_is_named(client, question, name):
    refused = await client.get(f"/api/v1/{question}")
    assert refused.status_code == 422
    assert refused.json()["detail"] == f"The parameter {name} is missing."


async def test_a_total_says_which_of_its_sums_leave_something_out(lake, settings):
    stock = dict(right=None, strike=None, expiry=None, sec_type="STK", multiplier=1.0)
    future = stock | {"sec_type": "FUT", "multiplier": 50.0, "market_price": 6.0}
    put = row(1, delta=-0.5, underlying_price=600.0, theta=-0.1, daily_pnl=None)
    shares = row(2, **stock, position=100.0, market_value=None)
    write(lake, put, shares, row(3, **future))
    _rows, figures = PageFigures(settings).read(utc_now())
    (total,) = figures["totals"]
    starred = {"today", "gamma_1pct", "vega", "market_value", "dollar_delta"}
    assert set(total["unknown"]) == starred


TAKEN = "Another session took your lines: 2 legs now by the queue, since 15:10 UTC (IB 10197)"


async def test_the_header_names_active_legs_that_have_lost_their_lines(client, lake, settings):
    """Another session of the login has taken the lines: the values stay current by the queue."""
    before = (await client.get("/api/v1/header")).json()
    assert [gateway["state"] for gateway in before["gateways"]] == [None]
    assert (before["current"], before["held"], before["mode"]) == (0, 0, None)

    activate(lake, leg(1, "a"), leg(2, "a"))
    held = [make_holding(1, utc_now()), make_holding(2, utc_now())]
    lake.broker_positions.replace(settings.gateway_id, held)
    lines = {"lines_in_use": 0, "line_limit": 100, "underlying_lines": 0}
    live = {"state": SessionState.LIVE, "detail": f"{TAKEN}; of SPY"}
    own(lake, settings.gateway_id, **live, **lines)
    answer = (await client.get("/api/v1/header")).json()
    assert answer["without_line"] == TAKEN


# Each number that is an amount of money, with more than two digits behind the point.
FRACTION_OF_A_CENT = re.compile(
    r'"(?:market_value|today|unrealized|realised_today|profit|value|amount)": ?-?'
    r"(?:\d+\.\d{3,}|[\d.]+e)"
)


async def test_sums_of_money_leave_us_in_cents_and_prices_and_greeks_with_their_digits(
    client, lake
):
    odd = {"market_value": -136.04000000004643, "unrealized_pnl": -1.8e-05, "daily_pnl": 0.1 + 0.2}
    greeks = {"delta": -0.123456, "underlying_price": 600.0, "implied_vol": 0.2}
    write(lake, row(1, market_price=1.234567, **odd, **greeks))
    for name in ("figures", "strategies", "positions", "what-if", "scenarios", "curve"):
        text = (await client.get(f"/api/v1/{name}")).text
        assert not FRACTION_OF_A_CENT.search(text), name

    figures = (await client.get("/api/v1/figures")).json()
    [position] = figures["positions"]
    amounts = [position[name] for name in ("market_value", "unrealized", "today")]
    assert amounts == [-136.04, 0.0, 0.3]
    assert position["market_price"] == 1.234567
    assert position["greeks"]["delta"] == (-0.123456)


async def test_accounts_strategies_and_positions_have_answers_of_their_own(client, lake):
    activate(lake, leg(1, "a"), leg(3, "b"))
    write(lake, row(1), row(2, symbol="QQQ"), row(3, daily_pnl=None))
    reply = (await client.get("/api/v1/strategies")).json()
    assert [strategy["strategy"] for strategy in reply["strategies"]] == ["a", "b", "UNATTRIBUTED"]
    assert reply["totals"][0]["unknown"]["today"] == 1
    assert (await client.get("/api/v1/accounts")).json()["accounts"] == []

    async def conids(**parameters: str) -> list[int]:
        answer = await client.get("/api/v1/positions", params=parameters)
        return [position["conid"] for position in answer.json()["positions"]]

    assert await conids() == [2, 1, 3]
    assert await conids(strategy="a") == [1]
    assert await conids(underlying="qqq") == [2]


async def test_positions_are_read_in_pages_and_only_the_fields_that_are_asked_for(client, lake):
    write(lake, *[row(conid) for conid in range(1, 8)])
    pages = []
    cursor = ""
    while cursor is not None:
        query = {"limit": 3, "fields": "conid,today"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/v1/positions", params=query)).json()
        pages.append(page["positions"])
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert pages[0][0] == {"conid": 1, "today": -7.0}
    assert [entry["conid"] for page in pages for entry in page] == [*range(1, 8)]

    whole = await client.get("/api/v1/positions")
    assert len(whole.json()["positions"]) == 7
    assert whole.json()["next_cursor"] is None
    known = {"If-None-Match": whole.headers["etag"]}
    assert (await client.get("/api/v1/positions", headers=known)).status_code == 304


async def test_what_if_and_payoff_answer_as_the_commands_do(client, lake):
    hold_shares_and_a_leg_without_volatility(lake)
    answer = (await client.get("/api/v1/what-if", params={"spot": "-10,10"})).json()
    unattributed, of_a = answer["rows"][:2], answer["rows"][2:]
    assert [row["name"] for row in answer["rows"]] == ["UNATTRIBUTED"] * 2 + ["a"] * 2
    assert [row["spot"] for row in answer["rows"]] == [-10.0, 10.0] * 2
    assert [row["profit"] for row in unattributed] == [None, None]
    assert [row["profit"] for row in of_a] == pytest.approx([-100.0, 100.0])
    assert [row["left_out"] for row in answer["rows"]] == [1, 1, 0, 0]
    assert [entry["legs"] for entry in answer["left_out"]] == [1]

    of_legs = (await client.get("/api/v1/what-if", params={"level": "leg", "spot": "0"})).json()
    assert [entry["conid"] for entry in of_legs["rows"]] == [2, 1]
    chosen = dict(spot="-10", strategy="a", underlying="spy", account="U1")
    rows = (await client.get("/api/v1/what-if", params=chosen)).json()["rows"]
    assert [row["name"] for row in rows] == ["a"]
    [payoff] = (await client.get("/api/v1/payoff", params={"strategy": "a"})).json()["payoffs"]
    assert (payoff["underlying"], payoff["greatest_profit"]) == ("SPY", None)


@pytest.mark.parametrize("risk_fresh", [timedelta(hours=1)])
async def test_curve_and_expiry_answer_as_the_commands_do_and_requests_share_a_priced_book(
    client, lake, monkeypatch
):
    soon = exchange_date(datetime.now(UTC)) + timedelta(days=20)
    activate(lake, leg(1, "a", expiry=soon))
    option = {"underlying_price": 600.0, "implied_vol": 0.2, "average_cost": 160.0}
    write(lake, row(1, expiry=soon, **option), row(2, implied_vol=None))
    priced = Mock(side_effect=served_figures.price_legs)
    monkeypatch.setattr(served_figures, "price_legs", priced)

    (curve,) = (await client.get("/api/v1/curve?strategy=a&days=5&vol=3")).json()["curves"]
    assert len(curve["at_expiry"]) == len(curve["chosen"]) == len(curve["prices"])
    whole = (await client.get("/api/v1/curve")).json()["curves"][0]
    assert [left["reason"] for left in whole["left_out"]] == [NotPriced.NO_VOLATILITY]

    reply = (await client.get("/api/v1/expiry?days=30")).json()
    said = json.loads(command_line.run("expiry", "--days", "30", "--json"))
    assert [row["leg"] for row in reply["expiries"]] == [row["leg"] for row in said["expiries"]]
    assert [row["conid"] for row in reply["expiries"]] == [2, 1]
    assert (await client.get("/api/v1/curve?strategy=b")).status_code == 404
    commands = 1
    assert priced.call_count == 1 + commands, "priced once for all of these requests"


async def test_the_closed_day_names_its_day_and_what_is_not_known(client, lake):
    empty = (await client.get("/api/v1/closed-day")).json()
    assert empty["explained_day"] is None
    assert empty["explained"] == []
    assert empty["books_day"] is None
    assert empty["books_being_made"] is False

    day = date(2026, 11, 25)
    usual = {"session_date": day, "account": "A", "currency": "USD"}
    thirds = {"delta": 13.334, "gamma": 13.333, "vega": 13.333}
    known = {"strategy_id": "condor", "profit": 40.0} | dict.fromkeys(PROFIT_PARTS, 0.0) | thirds
    unknown = {"strategy_id": "roll", "profit": None} | dict.fromkeys(PROFIT_PARTS)
    session = {"since": utc_now(), "closed_at": utc_now(), "legs_unknown": 0}
    rows = [usual | session | known, usual | session | unknown]
    explained = frame_of(PROFIT_EXPLAINED, rows)
    before = explained.with_columns(session_date=day - timedelta(days=1))
    days = {day: explained, day - timedelta(days=1): before}
    put_rows(lake.derived_table(PROFIT_EXPLAINED), days)

    booked = usual | {"change": 70.0, "why_unknown": "a rate"}
    booked |= {"net_liquidation_before": 30.0, "net_liquidation": 100.0, "statement": "U1.xml"}
    put_rows(lake.derived_table(BOOKS), {day: frame_of(BOOKS, [booked])})

    answer = (await client.get("/api/v1/closed-day")).json()
    assert answer["explained_day"] == f"{day}"
    assert answer["books_day"] == f"{day}"
    assert answer["books_being_made"], "no statement says what they say"
    names = ("strategy_id", "profit", "delta", "vega", "unexplained")
    rows = [tuple(each[name] for name in names) for each in answer["explained"]]
    assert sorted(rows, key=str) == [("condor", 40.0, 13.33, 13.33, 0.01), ("roll", *[None] * 4)]
    assert [(book["change"], book["rates"]) for book in answer["books"]] == [(70.0, None)]


async def test_the_recorded_scenarios_are_those_of_single_what_ifs_of_each_level(client, lake):
    later = exchange_date(datetime.now(UTC)) + timedelta(days=60)
    activate(lake, leg(1, "a", expiry=later))
    known = {"underlying_price": 600.0, "implied_vol": 0.2, "expiry": later}
    write(lake, row(1, **known), row(2, implied_vol=None))

    answer = (await client.get("/api/v1/scenarios")).json()
    place = answer["names"].index("-10 %, volatility +10")
    for level in ("account", "strategy", "underlying"):
        query = {"spot": "-10", "vol": "10", "level": level}
        single = (await client.get("/api/v1/what-if", params=query)).json()["rows"]
        rows = [entry for entry in answer["rows"] if entry["level"] == level]
        for entry, asked in zip(rows, single, strict=True):
            assert entry["profits"][place] == asked["profit"]
            assert entry["left_out"][place] == asked["left_out"]

    assert [entry["account"] for entry in answer["rows"]] == ["U1"] * 4
    assert [entry["legs"] for entry in answer["left_out"]] == [1]


# What is asked, the status of the answer, and what its detail names.
LINES = """
    what-if?spot=much | 422 | spot.0='much'
    what-if?spot=20000 | 422 | less than or equal to 10000
    what-if?level=moon | 422 | level='moon'
    positions?stragety=b | 422 | no parameter 'stragety'
    positions?limit=0 | 422 | limit=
    positions?fields=strik | 422 | 'strik'
    positions?cursor=U1:9 | 422 | 'U1:9'
    strategies?nope=1 | 422 | no parameter 'nope'
    what-if?scenario=crsh | 422 | no scenario 'crsh'
    positions?strategy=b | 404 | no active strategy 'b'
    positions?underlying=QQQ | 404 | no underlying 'QQQ'
    positions?strategy=a&strategy=b | 404 | no active strategy 'a,b'
    what-if?trade=nonsense&trade=1+SPY | 422 | 'nonsense' is no trade
    payoff?strategy=b | 404 | no active strategy 'b'
    expiry?strategy=b | 404 | no active strategy 'b'
    curve?account=U9 | 404 | no account 'U9'
    what-if?underlying=QQQ | 404 | no underlying 'QQQ'
    what-if?account=U9&trade=1+SPY | 404 | no account 'U9'
    what-if?strategy=b&trade=1+SPY | 404 | no active strategy 'b'
    what-if?close=b | 404 | no active strategy 'b'
    what-if?roll=b:20290119 | 404 | no active strategy 'b'
    what-if?close=a&roll=a:20290119 | 422 | 'a' is closed or rolled 2 times
    campaigns?strategy=b | 404 | no strategy 'b'
    why?strategy=b | 404 | no strategy 'b'
    leg?account=U9&conid=1 | 404 | no account 'U9'
    nothing | 404 | There is nothing at /api/v1/'nothing'.
"""
PROBLEMS = [line.strip().split(" | ") for line in LINES.strip().splitlines()]
THIRTY = ",".join("1" * 30)
PROBLEMS += [[f"what-if?days={THIRTY}&vol={THIRTY}", "422", "scenarios"]]


async def test_what_cannot_be_answered_is_a_problem_that_says_what_to_do(client, lake):
    write(lake, row(1))

    for path, status, says in PROBLEMS:
        answer = await client.get(f"/api/v1/{path}")
        assert answer.status_code == int(status), path
        assert answer.headers["content-type"] == "application/problem+json", path
        assert answer.json()["status"] == int(status), path
        assert says in answer.json()["detail"], path
        assert answer.json()["remedy"], path


async def test_legs_at_too_many_scenarios_are_refused_before_anything_is_computed(
    client, lake, monkeypatch
):
    write(lake, *[row(conid) for conid in range(1, 202)])
    monkeypatch.setattr(api, "scenario_rows", Mock(side_effect=AssertionError))
    moves = ",".join(map(str, range(20)))
    days = ",".join(map(str, range(25)))
    answer = await client.get(f"/api/v1/what-if?level=leg&spot={moves}&days={days}")
    assert answer.status_code == 422
    refused = "These are 100,500 prices of legs, and at most 100,000 are"
    assert answer.json()["detail"].startswith(refused)
    few = days.removesuffix(",20,21,22,23,24")
    after_trade = await client.get(f"/api/v1/what-if?level=leg&spot={moves}&days={few}&trade=1+SPY")
    assert after_trade.json()["detail"].startswith("These are 321,600 prices of legs")


def test_a_question_about_few_legs_does_not_wait_for_a_large_one(lake, settings):
    activate(lake, leg(1, "condor"))
    write(lake, *[row(conid) for conid in range(1, api.MANY_LEGS + 1)])
    for name, asked in product(("what-if", "payoff", "curve"), ("", "strategy=condor")):
        answer = api.answer(name, QueryParams(asked), "", PageFigures(settings), utc_now())
        if not asked:
            assert isinstance(answer, api.Question), name
            answer = answer.response("")
        assert isinstance(answer, Response), name
        assert answer.status_code == 200


async def test_tables_that_cannot_be_read_are_a_problem(client, settings):
    (Path(settings.lake) / "position_updates" / "_delta_log" / f"{0:020}.json").write_text("{")
    answer = await client.get("/api/v1/figures")
    assert answer.status_code == 503
    assert answer.json()["title"] == "The tables cannot be read"


async def test_a_trade_that_is_thought_of_is_answered_over_http_and_for_an_assistant(
    client, lake, settings
):
    later = exchange_date(datetime.now(UTC)) + timedelta(days=60)
    write(lake, row(1, underlying_price=600.0, implied_vol=0.2, expiry=later))
    trade = f"-1 SPY {later:%Y%m%d} P 575 @1.60"
    answer = (await client.get("/api/v1/what-if", params={"trade": trade, "spot": "0,5"})).json()
    assert [row["spot"] for row in answer["rows"]] == [0, 5]

    still = answer["rows"][0]
    assert still["after"]["value"] == still["before"]["value"] * 1.5
    assert answer["notes"][0].startswith("-1 SPY 575P")
    assert ": 10 USD against the mark, " in answer["notes"][0]
    assert "the price that was given" in answer["notes"][0]
    before = (await client.get("/api/v1/curve", params={"underlying": "SPY"})).json()
    after = (await client.get("/api/v1/curve", params={"underlying": "SPY", "trade": trade})).json()
    legs_before, legs_after = (answer["curves"][0]["legs"] for answer in (before, after))
    assert [leg[:6] for leg in legs_before] == ["-2 SPY"]
    assert [leg[:6] for leg in legs_after] == ["-2 SPY", "-1 SPY"]
    assert "the price that was given" in after["notes"][0]

    of_assistant = told(settings, "what_if", trade=[trade], spot=[0.0, 5.0])["what_if"]
    profits = [row["after"]["profit"] for row in answer["rows"]]
    assert [row["after"]["profit"] for row in of_assistant] == pytest.approx(profits, rel=0.01)
    assert of_assistant[0]["after"]["against_mark"] == pytest.approx(10.0)
