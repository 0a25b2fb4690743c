"""Why today's profit is what it is: the command, HTTP and an assistant say the same."""

import json
from datetime import timedelta

import polars as pl
import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.schema import DAILY_POSITIONS, frame_of
from position_sync_dagster.money.profit.profit import PROFIT_PARTS
from position_sync_dagster.money.profit.todays_profit import day_and_close_before
from position_sync_dagster.web import served_figures
from position_sync_dagster.web.served_figures import PageFigures
from tests.support import command_line
from tests.support.derived_rows import put_rows
from tests.support.legs import leg
from tests.support.money_rows import row

ACCOUNT = "DUSIM0001"
FAR = (utc_now() + timedelta(days=90)).date()


@pytest.fixture
def lake(lake, settings):
    """A put of condor that was held over night and lost 1,200, and another without a close."""
    now = utc_now()
    _today, session, closed_at = day_and_close_before(settings.calendar, now)
    at_close = dict(
        session_date=session, closed_at=closed_at, account=ACCOUNT, conid=1,
        symbol="SPY", right="PUT", strike=600.0, expiry=FAR, multiplier=100.0,
        currency="USD", sec_type="OPT", position=-2.0, market_price=12.0,
        market_value=-2400.0, delta=-0.5, gamma=0.0, vega=0.0, theta=0.0,
        implied_vol=0.2, underlying_price=600.0, source="STREAM", timestamp=closed_at,
    )  # fmt: skip
    rows = frame_of(DAILY_POSITIONS, [at_close])
    put_rows(lake.derived_table(DAILY_POSITIONS), {session: rows})

    usual = dict(timestamp=now, value_time=now, strike=600.0, expiry=FAR)
    usual |= {"sec_type": "OPT", "implied_vol": 0.2, "underlying_price": 588.0}
    lost = row(1, **usual, market_price=18.0, market_value=-3600.0, daily_pnl=-1200.0)
    new = row(2, **usual, market_price=3.0, market_value=-600.0, daily_pnl=7.5)
    terms = {"strike": 600.0, "expiry": FAR}
    lake.registry.sync.add_many([leg(1, "condor", **terms), leg(2, "new", **terms)])
    lake.updates.sync.append([lost, new])
    return lake


def without_times(rows: list[dict]) -> list[dict]:
    return [
        {name: value for name, value in row.items() if name not in ("at", "since")} for row in rows
    ]


async def test_an_assistant_answers_why_i_am_down_with_the_numbers_of_command_and_http(
    client, lake, settings
):
    [condor] = told(settings, "why", strategy="condor")["why"]
    assert condor["profit"] == -1200.0
    assert condor["largest"]["delta"][0]["leg"].startswith("SPY 600P")
    # 12 points down at a delta of -0.5 are 1,200 of the two short puts.
    assert (condor["delta"], condor["unexplained"]) == pytest.approx((-1200.0, 0.0))

    listed = json.loads(command_line.run("why", "--json"))
    assert without_times(listed)[0] == without_times([condor])[0]
    shown = json.loads(command_line.run("figures", "--json"))["strategies"]
    assert [row["profit"] for row in listed] == [row["today"] for row in shown]
    unknown = listed[1]
    assert {unknown[name] for name in PROFIT_PARTS} == {None}
    assert "what moved -2.0" in unknown["why_unknown"]

    served = (await client.get("/api/v1/why")).json()
    assert without_times(served["rows"]) == without_times(listed)


def test_a_person_reads_which_legs_lost_most(lake):
    printed = command_line.run("why", "--strategy", "condor")
    assert "condor: delta -1,200" in printed
    assert "SPY 600P" in printed
    assert "SPY 600P" in command_line.run("why", "--strategy", "new")


def test_all_viewers_of_a_look_share_an_answer_and_of_a_large_book_those_of_a_minute(
    lake, settings, monkeypatch
):
    figures = PageFigures(settings)
    now = utc_now()
    first = figures.explained(now)
    assert figures.explained(now + timedelta(seconds=0.5)) is first
    assert figures.explained(now + timedelta(seconds=1)) is not first

    monkeypatch.setattr(served_figures, "SMALL_BOOK", 1)
    large = figures.explained(now + timedelta(seconds=2))
    assert figures.explained(now + timedelta(seconds=58)) is large
    assert figures.explained(now + timedelta(seconds=63)) is not large


def test_greeks_that_this_package_computed_of_the_close_split_the_profit(lake, settings):
    """`daily_positions` has values of the broker alone; the ledger has the row with its greeks."""
    now = utc_now()
    _today, session, closed_at = day_and_close_before(settings.calendar, now)
    table = lake.derived_table(DAILY_POSITIONS)
    modelled = dict(delta=-0.4, gamma=0.0, vega=0.0, theta=0.0, implied_vol=0.2)
    at = closed_at - timedelta(minutes=1)
    written = row(
        1, **modelled, timestamp=at, value_time=at, update_id="close", strike=600.0, expiry=FAR,
        underlying_price=600.0, greeks_source="MODEL", market_price=12.0, market_value=-2400.0,
    )  # fmt: skip
    lake.updates.sync.append([written])

    unknown = [pl.lit(None).alias(name) for name in (*modelled, "underlying_price")]
    rows = table.rows().with_columns(*unknown, update_id=pl.lit("close"))
    put_rows(table, {session: rows})
    (condor,) = json.loads(command_line.run("why", "--strategy", "condor", "--json"))
    assert (condor["delta"], condor["repricing"]) == pytest.approx((-960.0, -240.0))
