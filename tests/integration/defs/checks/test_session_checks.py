"""The checks of the stream, its lines, holdings set aside and legs."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.checks import tables
from position_sync_dagster.domain.gateway_session import (
    SessionState,
    UnknownAccount,
    UnknownReason,
    UnusableHoldings,
    set_aside_of,
    weekly_login,
)
from position_sync_dagster.domain.position_update import Source, TradingMode
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.terminal.board import describe


@pytest.fixture
def live(world, lake):
    """Own the login with a detail and lines."""

    def renew(**values):
        session = lake.sessions.current("127.0.0.1:1") or world.own()
        return lake.sessions.renew(session, lease_s=60.0, state=SessionState.LIVE, **values)

    return renew


def test_holdings_set_aside_and_unknown_accounts_are_named_as_the_feed_says_it(world, live):
    emptied = UnknownAccount(account="DU2", reason=UnknownReason.EMPTIED, holdings=3)
    not_managed = UnknownAccount(account="DU3", reason=UnknownReason.NOT_MANAGED, holdings=4)
    set_aside = set_aside_of({("DU1", 7): "quantity 'nan; or, (so)'"})
    unusable = UnusableHoldings(unknown_accounts=(emptied, not_managed), set_aside=set_aside)

    live(detail="account DU4: its download did not end", **unusable.as_columns())
    result = world.fails(tables.holdings_are_usable)
    problems = [record.data["problem"] for record in result.metadata["rows"].records]
    assert problems == unusable.texts
    assert all(text in result.description for text in problems)
    assert "conid 7 of DU1 (quantity 'nan; or, (so)')" in result.description
    assert "DU2 has none of its holdings" in result.description
    assert "DU3 is not managed by this login now: its 4 holdings" in result.description

    live(detail="account DU2 has none of its holdings in the list of positions, says a person")
    assert world.check(tables.holdings_are_usable).passed, "the text alone is no fact"


def test_a_gateway_without_odd_holdings_passes(world, live):
    live(detail="data farm usopt is broken")
    assert world.check(tables.holdings_are_usable).passed


def test_without_an_owner_nothing_is_known_of_odd_holdings(world, lake):
    lake.sessions.end(world.own())
    evaluation = world.check(tables.holdings_are_usable)
    assert evaluation.passed is False
    assert evaluation.metadata["unknown"].value is True


def test_a_live_login_whose_week_ends_soon_is_said_by_check_and_status(world, live, lake, settings):
    live()
    now = datetime.now(UTC)
    ever = settings.model_copy(update={"login_notice_h": 7 * 24.0})
    assert world.check(tables.login_is_made).passed, "the trading mode of the lake is unknown"
    lake.sessions.claim_mode(TradingMode.LIVE)
    evaluation = world.check(tables.login_is_made)
    week = weekly_login(now, TradingMode.LIVE, settings.login_notice_h)
    assert evaluation.passed is not week.asks
    assert evaluation.metadata["week_ends_at"].value == week.ends_at.isoformat()
    status = read_status(lake, ever, now)
    assert [text for text in status.attention if "the week of the login ends on" in text]
    soon = settings.model_copy(update={"login_notice_h": 0.001})
    week = weekly_login(now, TradingMode.LIVE, 0.001)
    assert ("login", week.text) in describe(read_status(lake, soon, now))


def add_legs(lake, *conids: int) -> None:
    for conid in conids:
        lake.registry.sync.add_active(
            conid=conid, symbol="SPY", right="C", strike=500.0, expiry="20281215", strategy_id="s"
        )


def test_lines_near_the_limit_name_the_holdings_without_one(world, live, lake):
    session = live(lines_in_use=8, line_limit=10)
    world.hold(1, 2, 3, session=session)
    add_legs(lake, 1, 2)
    world.row(1, 1)
    world.row(2, 1, source=Source.QUEUE)
    assert world.check(tables.lines_suffice).passed

    # Underlyings keep their lines where legs need more.
    live(lines_in_use=9, line_limit=10, underlying_lines=2)
    evaluation = world.fails(tables.lines_suffice)
    assert [row["conid"] for row in world.shown(evaluation)] == [2]
    world.row(2, 0)
    evaluation = world.check(tables.lines_suffice)
    assert evaluation.passed is False
    assert world.shown(evaluation) == []
    assert "9 of 10 lines are in use, 2 of them for underlyings" in evaluation.description


def test_a_leg_without_its_contract_is_named_with_the_candidates(world, lake):
    now = datetime.now(UTC)
    terms = dict(symbol="SPX", right="P", strike=5000.0, expiry="20281215", strategy_id="hedge")
    leg = make_leg(**terms, added_at=now)
    lake.registry.sync.add_many([leg])
    assert world.check(tables.legs_are_resolved).passed, "it was not looked up yet"
    lake.registry.sync.settle([(lake.registry.sync.get_unresolved()[0], "SPX or SPXW")])
    evaluation = world.fails(tables.legs_are_resolved)
    (row,) = world.shown(evaluation)
    assert row["strategy_id"] == "hedge"
    assert row["problem"] == "SPX or SPXW"


def test_a_leg_that_nobody_looks_up_is_named_after_a_while(world, lake):
    old = datetime.now(UTC) - timedelta(hours=1)
    terms = dict(symbol="SPX", right="P", strike=5000.0, expiry="20281215", strategy_id="hedge")
    lake.registry.sync.add_many([make_leg(**terms, added_at=old)])
    assert not world.check(tables.legs_are_resolved).passed


def test_a_lake_without_a_stream_says_that_none_ran(world, lake):
    evaluation = world.fails(tables.a_stream_watches)
    assert "No stream has run yet" in (evaluation.description or "")


BLIND = "The stream has not seen the gateway since"


@pytest.mark.parametrize("state", [SessionState.LIVE, SessionState.BLIND, SessionState.STARTING])
def test_a_stream_without_connection_is_an_error_after_a_minute(world, state):
    text = BLIND
    if state is SessionState.LIVE:
        text = "A stream sees the gateway."

    world.own(state=state, lease_s=600.0)
    at_first = world.check(tables.a_stream_watches)
    assert at_first.passed or at_first.severity is dg.AssetCheckSeverity.WARN
    world.later(timedelta(minutes=2))
    result = world.check(tables.a_stream_watches)
    assert result.passed is (state is SessionState.LIVE)
    is_error = result.severity is dg.AssetCheckSeverity.ERROR
    assert is_error is (state is SessionState.BLIND), "a stream that starts has not failed yet"
    assert (result.description or "").startswith(text)


def test_blind_since_does_not_move_when_the_next_session_is_blind_too(world, lake, settings):
    """A restart and a rotation change nothing about a gateway that is not there."""
    world.own(state=SessionState.LIVE)
    blind = own_again(lake, settings, SessionState.BLIND)
    since = f"{blind.state_since:%H:%M:%S}"
    for state in (SessionState.STARTING, SessionState.BLIND):
        lake.sessions.end(lake.sessions.current(settings.gateway_id))
        later = world.own(state=state)
        assert later.state_since == blind.state_since
        status = read_status(lake, settings, datetime.now(UTC) + timedelta(seconds=1))
        assert status.blind_since == blind.state_since
        assert status.session_since == blind.state_since
        assert since in (world.check(tables.a_stream_watches).description or "")


def own_again(lake, settings, state):
    """Renew the session that owns the login."""
    session = lake.sessions.current(settings.gateway_id)
    return lake.sessions.renew(session, lease_s=60.0, state=state)


def test_a_lease_that_ran_out_counts_from_the_last_heartbeat(world):
    world.own(lease_s=0.001)
    world.later(timedelta(minutes=5))
    result = world.check(tables.a_stream_watches)
    assert 299 < result.metadata["blind_for_s"].value < 330
    assert (result.description or "").startswith("No stream has seen the gateway since")
