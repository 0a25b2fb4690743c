"""Whether the stored data of the broker is current."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import Completeness, ValueOrigin
from position_sync_dagster.sync.drain import unavailable_reason, unconfirmed
from tests.support.holdings import make_holding
from tests.support.settings import make_settings

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
SETTINGS = make_settings(refresh_interval_s=180)


def holding(conid):
    return make_holding(
        conid, NOW, market_price=2.0, market_value=200.0, completeness=Completeness.PARTIAL
    )


def confirmed_row(conid, *, confirmed_s=None, received_s=0, by=ValueOrigin.NONE):
    confirmed = None if confirmed_s is None else NOW - timedelta(seconds=confirmed_s)
    received = NOW - timedelta(seconds=received_s)
    return replace(
        holding(conid), confirmed_at=confirmed, received_at=received, value_source=by,
    )  # fmt: skip


HOUR_S = 3600


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        (confirmed_row(1, confirmed_s=379), True),
        (confirmed_row(1, confirmed_s=381), False),
        (confirmed_row(1), False),
        (confirmed_row(1, confirmed_s=-60), True),
        (confirmed_row(1, confirmed_s=-HOUR_S), False),
        (confirmed_row(1, by=ValueOrigin.PNL_SINGLE), True),
        (confirmed_row(1, confirmed_s=HOUR_S, received_s=5, by=ValueOrigin.PNL_SINGLE), True),
        (confirmed_row(1, confirmed_s=HOUR_S, received_s=381, by=ValueOrigin.PNL_SINGLE), False),
        (confirmed_row(1, received_s=-HOUR_S, by=ValueOrigin.PNL_SINGLE), False),
    ],
)
def test_a_holding_is_confirmed_by_a_download_or_by_a_value_of_its_own(row, counts):
    silent = confirmed_row(2, confirmed_s=HOUR_S)
    found = unconfirmed([row, silent], SETTINGS, NOW)
    assert found == ({silent.key} if counts else {silent.key, row.key})


def test_nothing_of_an_account_that_is_unknown_counts_as_confirmed():
    known = confirmed_row(1, confirmed_s=7)
    doubted = replace(known, completeness=Completeness.UNKNOWN)
    other = confirmed_row(2, confirmed_s=7)
    assert unconfirmed([doubted, other], SETTINGS, NOW) == {doubted.key}
    assert unconfirmed([known, other], SETTINGS, NOW) == frozenset()


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
