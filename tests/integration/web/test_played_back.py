"""A played-back day is what figures showed then: recorded moment by moment, compared afterwards."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import NOT_KEPT, read_figures
from position_sync_dagster.settings import Settings
from position_sync_dagster.web import api
from position_sync_dagster.web.api_answers import FeedQuery
from position_sync_dagster.web.money_page import Feed
from position_sync_dagster.web.served_figures import PageFigures
from tests.support.empty_lakes import put_tables
from tests.support.extent import examples
from tests.support.holdings import make_row
from tests.support.sessions import own
from tests.unit.money.past.test_causes import change, details

MORNING = datetime(2026, 3, 9, 14, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ACCOUNT = "DUSIM0001"


class LiveDay:
    """A lake that lives through a day, with what figures showed at some moments of it."""

    def __init__(self, path: str, settings: Any) -> None:
        self.now = MORNING
        self.lake = MoneyLake(path, fsync=False, clock=lambda: self.now)
        self.settings = settings
        self.recorded: dict[datetime, Any] = {}

    def live(self) -> None:
        legs = [make_leg(conid=1, symbol="SPY", strategy_id="a", added_at=MORNING)]
        self.lake.registry.sync.replace_all(legs)
        own(self.lake, self.settings.gateway_id, state=SessionState.ENDED)
        for minute, (value, worth) in enumerate([(100.0, 9e3), (140.0, 9.1e3), (90.0, 8.8e3)]):
            self.now = MORNING + minute * 10 * MINUTE
            rows = [self._row(1, value), self._row(2, 7.0)] if minute < 2 else [self._row(1, value)]
            self.lake.updates.sync.append(rows)
            self.lake.account_values.append([self._account(worth, value)])
            self.record(self.now + MINUTE)

        # A leg is closed, a strategy ends, and the cause comes later than the close.
        self.now = MORNING + 40 * MINUTE
        closed = replace(self._row(2, 0.0), position=0.0)
        self.lake.updates.sync.append([closed])
        closing = change(2, -2.0, 0.0, seen_at=self.now, since=self.now - MINUTE)
        self.lake.position_changes.add([closing])
        self.lake.contracts.put([details(2)])  # live figures read the closes again with others
        self.record(self.now + MINUTE)
        self.now += MINUTE
        self.lake.registry.sync.replace_all([])
        self.record(self.now + 30 * MINUTE)

    def _row(self, conid: int, value: float) -> Any:
        greeks = dict(delta=0.4, gamma=0.01, vega=0.2, theta=-0.1)
        priced = {"market_value": value, "daily_pnl": value - 100, "underlying_price": 600.0}
        return make_row(
            conid, self.now, currency="USD", value_time=self.now, greeks_time=self.now,
            **priced, **greeks,
        )  # fmt: skip

    def _account(self, worth: float, profit: float) -> AccountSummary:
        return AccountSummary(
            account=ACCOUNT, currency="USD", net_liquidation=worth, daily_pnl=profit,
            timestamp=self.now, values_received_at=self.now, pnl_received_at=self.now,
        )  # fmt: skip

    def record(self, at: datetime) -> None:
        self.now = at
        self.recorded[at] = json.loads(read_figures(self.lake, self.settings, at).to_json())

    def played_back(self, at: datetime) -> Any:
        source = PageFigures(self.settings)
        return json.loads(api.ask(source, "figures", self.now, at=at.isoformat()))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    lake = tmp_path_factory.mktemp("played-back") / "lake"
    put_tables(lake)
    return Settings(lake=str(lake), gateway_id="gate")


@pytest.fixture(scope="module")
def day(settings: Settings) -> LiveDay:
    """Return a day that all tests look at."""
    day = LiveDay(settings.lake, settings)
    day.live()
    day.now += timedelta(days=1)
    return day


def test_each_moment_is_what_it_was(day):
    values = []
    changes = []
    for at, recorded in day.recorded.items():
        shown = day.played_back(at)
        assert shown["not_kept"] == [*NOT_KEPT]
        kept = recorded.keys() - {*NOT_KEPT, "not_kept"}
        for position in (*recorded["positions"], *shown["positions"]):
            del position["current"]  # a connection that is not kept
        assert {name: shown[name] for name in kept} == {name: recorded[name] for name in kept}
        assert shown["held"] == len(shown["positions"])
        values.append(shown["strategies"][0]["market_value"])
        changes.append([change["kind"] for change in shown["changes"]])

    assert values == [100.0, 140.0, 90.0, 90.0, 90.0]
    of_gateway = ["GATEWAY", "GATEWAY"]  # begun and ended
    closed = ["CLOSE", *of_gateway]
    assert changes == [*[of_gateway] * 3, closed, closed], "what came later was not known"
    assert [row["strategy"] for row in shown["strategies"]] == ["UNATTRIBUTED"]


@pytest.mark.parametrize("asked_s", [-0.2, 0.4])
def test_a_commit_under_way_is_of_neither_the_look_nor_its_moment(tmp_path, asked_s):
    put_tables(tmp_path / "lake")
    day = LiveDay(str(tmp_path / "lake"), Settings(lake=str(tmp_path / "lake"), gateway_id="gate"))
    day.lake.updates.sync.append([day._row(1, 100.0)])
    day.lake.account_values.append([day._account(9e3, 100.0)])

    look = read_figures(day.lake, day.settings, MORNING + timedelta(seconds=asked_s))
    recorded = json.loads(look.to_json())
    assert look.at == MORNING

    day.now = MORNING + timedelta(seconds=0.3)
    day.lake.updates.sync.append([day._row(1, 140.0)])
    day.lake.account_values.append([day._account(9.1e3, 140.0)])
    day.now = MORNING + timedelta(days=1)
    shown = day.played_back(look.at)
    names = ("at", "ledger_version", "accounts", "strategies", "totals")
    assert [shown[name] for name in names] == [recorded[name] for name in names]
    assert [row["market_value"] for row in shown["positions"]] == [100.0]


def test_positions_reasons_and_what_if_are_of_the_moment_too(day, settings):
    at = (MORNING + 11 * MINUTE).isoformat()
    source = PageFigures(settings)
    positions = api.ask(source, "positions", day.now, at=at, underlying="SPY")["positions"]
    assert [row["market_value"] for row in positions] == [140.0, 7.0]
    assert {row["age_s"] for row in positions} == {60.0}
    explained = api.ask(source, "why", day.now, at=at)
    assert explained["at"] == MORNING + 11 * MINUTE
    assert {row.strategy for row in explained["rows"]} == {"a", "UNATTRIBUTED"}
    moved = api.ask(source, "what-if", day.now, at=at, spot="0,-5")
    assert moved["at"] == MORNING + 11 * MINUTE

    assert told(settings, "figures", at=at)["strategies"][0]["market_value"] == 140.0
    rows = told(settings, "positions", at=at)["positions"]
    assert [row["market_value"] for row in rows] == [140.0, 7.0]


async def test_http_refuses_a_moment_that_is_none(day, client):
    first = MORNING + MINUTE
    answer = await client.get("/api/v1/figures", params={"at": first.isoformat()})
    assert answer.json()["at"].startswith("2026-03-09T14:01:00")
    for refused in ("soon", "2026-03-09T14:01:00", "2090-01-01T00:00Z", "2020-01-01T00:00Z"):
        answer = await client.get("/api/v1/figures", params={"at": refused})
        assert answer.status_code in (422, 503), refused


OF_MOMENTS = [name for name, route in api.ROUTES.items() if "at" in route.query.model_fields]

# Zones move the first and the last day out of the years that there are.
ODD_MOMENTS = """
    9999-12-31T23:59:59-23:59  0001-01-01T00:00:00+23:59  0001-01-01T00:00Z
    -62135596801  1e300  NaN  253402300800  2026-03-09T24:00Z
"""
AT_THE_ENDS = st.builds(
    "{:04}-{}T{}{}{:02}:59".format,
    *map(st.sampled_from, ([1, 1970, 9999], ["01-01", "12-31"], ["00:00:00", "23:59:59"], "+-")),
    st.integers(0, 23),
)
HOSTILE = st.one_of(
    st.datetimes().map(datetime.isoformat),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.sampled_from([*ODD_MOMENTS.split(), ""]),
    AT_THE_ENDS,
    st.text(max_size=30),
)


@pytest.mark.parametrize("name", [*OF_MOMENTS, "feed"])
def test_no_moment_is_more_than_refused(day, settings, name):
    source = PageFigures(settings)

    @hypothesis.settings(max_examples=examples(60), deadline=None)
    @hypothesis.given(at=HOSTILE)
    def asked(at: str) -> None:
        if name == "feed":
            with suppress(PositionSyncError, ValidationError):
                query = api.query_of(FeedQuery, {"at": at})
                Feed(lambda: source, {}).played_back(query.at or day.now, curves=True)
            return

        answer = api.answer(name, QueryParams({"at": at}), "", source, day.now)
        if isinstance(answer, api.Question):
            answer = answer.response("")
        assert answer.status_code in (200, 422)

    asked()


def test_a_moment_is_read_once_and_few_are_remembered(day, settings, monkeypatch):
    source = PageFigures(settings)
    moments = [MORNING + second * timedelta(seconds=1) for second in range(60, 70)]
    for at in moments:
        source.played_back(at, day.now).figures(day.now)
    assert len(source._moments) == 4
    last = source.played_back(moments[-1], day.now)
    assert last.figures(day.now) is last.figures(day.now + timedelta(hours=1))
