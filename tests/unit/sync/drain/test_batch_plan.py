"""The plan of a claimed batch, and whether the broker's data is current."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.request import QueuedPosition, QueueStatus
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.decisions.availability import (
    confirmed_at,
    unavailable_reason,
    unconfirmed,
)
from position_sync_dagster.sync.drain.batch_plan import Outcome, match_holdings, plan_batch
from position_sync_dagster.sync.drain.broker_view import BrokerView

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
SETTINGS = Settings(_env_file=None, refresh_interval_s=180, drain_time_limit_s=30)


def holding(account, conid, position=1.0):
    return BrokerPosition(
        gateway_id="g", account=account, position=position, received_at=NOW, position_time=NOW,
        snapshot_id="s", market_price=2.0, market_value=200.0,
        instrument=Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD"),
    )  # fmt: skip


def request(conid, account=None, request_id=None):
    return QueuedPosition(
        request_id or f"r{conid}", conid, "SPY", 2, QueueStatus.PROCESSING, NOW, NOW,
        account=account,
    )  # fmt: skip


HOLDINGS = [holding("A", 1), holding("B", 1), holding("A", 2, 0.0)]
COMPLETE = BrokerView(holdings={h.key: h for h in HOLDINGS}, complete=True)
PARTIAL = replace(COMPLETE, complete=False)


def test_a_request_without_an_account_is_answered_by_each_account_that_holds():
    assert [h.account for h in match_holdings(request(1), COMPLETE).holdings] == ["A", "B"]
    assert [h.account for h in match_holdings(request(1, "B"), COMPLETE).holdings] == ["B"]


def test_an_absent_holding_is_not_held_only_if_the_view_is_complete():
    assert match_holdings(request(9), COMPLETE).outcome is Outcome.NOT_HELD
    assert match_holdings(request(9), PARTIAL).outcome is Outcome.NOT_COVERED
    assert match_holdings(request(1, "C"), PARTIAL).outcome is Outcome.NOT_COVERED


def plan(batch, view=COMPLETE, batch_id="b"):
    return plan_batch(batch, view, batch_id=batch_id, now=NOW, provenance=Provenance(run_id="run"))


def test_a_batch_becomes_rows_and_marks():
    done = plan([request(1), request(2), request(9)])
    assert (done.valued, done.not_held, done.not_covered) == (("r1", "r2"), ("r9",), ())
    assert [(r.account, r.conid, r.request_id) for r in done.rows] == [
        ("A", 1, "r1"), ("B", 1, "r1"), ("A", 2, "r2"),
    ]  # fmt: skip
    assert {(r.batch_id, r.run_id, r.source) for r in done.rows} == {("b", "run", "QUEUE")}
    assert done.rows[2].market_value == 0.0


def test_a_batch_written_again_has_the_same_update_ids_and_no_two_are_alike():
    first, again = plan([request(1), request(2)]), plan([request(1), request(2)], batch_id="c")
    assert [r.update_id for r in first.rows] == [r.update_id for r in again.rows]
    assert len({r.update_id for r in first.rows}) == 3
    assert plan([request(1, request_id="other")]).rows[0].update_id != first.rows[0].update_id


def test_rows_written_later_have_later_ids():
    earlier = plan([replace(request(1), created_at=NOW - timedelta(seconds=1))])
    assert earlier.rows[0].update_id < plan([request(1)]).rows[0].update_id


def confirmed_row(conid, *, confirmed_s=None, received_s=0, by=ValueOrigin.NONE):
    confirmed = None if confirmed_s is None else NOW - timedelta(seconds=confirmed_s)
    received = NOW - timedelta(seconds=received_s)
    row = holding("A", conid)
    return replace(row, confirmed_at=confirmed, received_at=received, value_source=by)


HOUR_S = 3600


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        (confirmed_row(1, confirmed_s=389), True),
        (confirmed_row(1, confirmed_s=391), False),
        (confirmed_row(1), False),
        (confirmed_row(1, confirmed_s=-60), True),
        (confirmed_row(1, confirmed_s=-HOUR_S), False),
        (confirmed_row(1, by=ValueOrigin.PNL_SINGLE), True),
        (confirmed_row(1, confirmed_s=HOUR_S, received_s=5, by=ValueOrigin.PNL_SINGLE), True),
        (confirmed_row(1, confirmed_s=HOUR_S, received_s=391, by=ValueOrigin.PNL_SINGLE), False),
        (confirmed_row(1, received_s=-HOUR_S, by=ValueOrigin.PNL_SINGLE), False),
    ],
)
def test_a_holding_is_confirmed_by_a_download_or_by_a_value_of_its_own(row, counts):
    silent = confirmed_row(2, confirmed_s=HOUR_S)
    rows = {r.key: r for r in (row, silent)}
    view = BrokerView(
        holdings=rows, complete=False, unconfirmed=unconfirmed(rows.values(), SETTINGS, NOW)
    )
    expected = Outcome.VALUED if counts else Outcome.NOT_COVERED
    assert match_holdings(request(1, "A"), view).outcome is expected
    assert match_holdings(request(2, "A"), view).outcome is Outcome.NOT_COVERED


def test_a_confirmation_from_before_the_clock_was_set_back_does_not_hide_a_later_one():
    rows = [confirmed_row(1, confirmed_s=-HOUR_S), confirmed_row(2, confirmed_s=7)]
    assert confirmed_at(rows, NOW) == NOW - timedelta(seconds=7)
    assert confirmed_at(rows[:1], NOW) == NOW + timedelta(seconds=HOUR_S)
    assert confirmed_at([], NOW) is None


def session(state, *, alive=True):
    return GatewaySession(
        gateway_id="g", owner=Owner.STREAM, session_id="s", run_id=None, host="h", pid=1,
        fencing_token=1, started_at=NOW, heartbeat_at=NOW, state=state, state_since=NOW,
        expires_at=NOW + timedelta(seconds=15 if alive else -1), detail="why",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "confirmed_s", "unavailable"),
    [
        (session(SessionState.LIVE), 9999, None),
        (session(SessionState.BLIND), 1, "BLIND since 15:30:00 UTC: why"),
        (session(SessionState.STARTING), 1, "STARTING"),
        (session(SessionState.LIVE, alive=False), 100, None),
        (session(SessionState.LIVE, alive=False), 211, "last downloaded"),
        (session(SessionState.ENDED), None, "have not been downloaded"),
        (None, -60, None),
        (None, -3600, "last downloaded"),
        (None, 100, None),
        (None, None, "have not been downloaded"),
    ],
)
def test_the_brokers_data_is_current_while_the_owner_is_live_or_for_one_interval(
    owner, confirmed_s, unavailable
):
    confirmed = None if confirmed_s is None else NOW - timedelta(seconds=confirmed_s)
    why = unavailable_reason(owner, confirmed, SETTINGS, NOW)
    assert (why is None) if unavailable is None else (unavailable in why)
