"""When the login of the week is due: IB invalidates its tokens on Sunday, 01:00 in New York."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.gateway_session import GatewayRun, SessionState, WeekState
from position_sync_dagster.domain.position_update import TradingMode
from tests.support.holdings import make_session

# 01:00 in New York, in winter.
SUNDAY = datetime(2026, 11, 22, 6, tzinfo=UTC)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def judged(run: GatewayRun, now: datetime, blind_since: datetime | None = None):
    state = SessionState.BLIND if blind_since else SessionState.LIVE
    seen = {"gateway_running_since": run.running_since, "gateway_started_at": run.started_at}
    session = make_session(now, state=state, state_since=blind_since or now, **seen)
    return session.login_week(now, TradingMode.LIVE, 24)


def test_a_gateway_that_was_started_this_week_is_logged_in_until_the_next_sunday():
    week = judged(GatewayRun(started_at=SUNDAY + HOUR), SUNDAY + 2 * DAY)
    assert (week.state, week.ends_at, week.asks) == (WeekState.MADE, SUNDAY + 7 * DAY, False)


def test_the_end_of_the_week_is_said_before_it_whether_or_not_the_login_was_seen():
    made = GatewayRun(started_at=SUNDAY + HOUR)
    for run in (made, GatewayRun()):
        assert not judged(run, SUNDAY + 6 * DAY - HOUR).asks
        found = judged(run, SUNDAY + 6 * DAY)
        assert found.asks
        assert "Sunday 2026-11-29 06:00 UTC" in found.text


def test_a_gateway_that_runs_on_past_sunday_is_due_from_that_minute_on():
    run = GatewayRun(running_since=SUNDAY - DAY, started_at=SUNDAY - DAY)
    assert judged(run, SUNDAY - timedelta(seconds=1)).state is WeekState.MADE
    week = judged(run, SUNDAY)
    assert (week.state, week.asks) == (WeekState.DUE, True)
    assert "Sunday 2026-11-22 06:00 UTC" in week.text


def test_a_gateway_that_stays_away_longer_than_a_restart_may_wait_for_the_login():
    run = GatewayRun(running_since=SUNDAY - DAY)
    down_at = SUNDAY + HOUR
    assert judged(run, down_at + timedelta(minutes=9), down_at).state is WeekState.DUE
    week = judged(run, down_at + timedelta(minutes=11), down_at)
    assert (week.state, week.asks) == (WeekState.WAITING, True)


def test_an_outage_of_a_gateway_that_was_logged_in_this_week_is_no_login():
    run = GatewayRun(started_at=SUNDAY + HOUR)
    assert judged(run, SUNDAY + 2 * DAY, SUNDAY + DAY).state is WeekState.MADE


def test_what_nobody_saw_stays_unknown():
    """First seen on Monday: it may have been started before Sunday, or after it."""
    week = judged(GatewayRun(running_since=SUNDAY + DAY), SUNDAY + 2 * DAY)
    assert (week.state, week.asks) == (WeekState.UNKNOWN, False)
    assert "not known" in week.text


@pytest.mark.parametrize(
    ("now", "began", "ends"),
    [
        ("2026-07-08", "2026-07-05T05:00", "2026-07-12T05:00"),
        ("2026-10-30", "2026-10-25T05:00", "2026-11-01T05:00"),
        ("2026-11-01T05:00", "2026-11-01T05:00", "2026-11-08T06:00"),
        ("2027-03-13", "2027-03-07T06:00", "2027-03-14T06:00"),
        ("2027-03-15", "2027-03-14T06:00", "2027-03-21T05:00"),
    ],
)
def test_a_week_begins_at_one_in_new_york_in_summer_and_winter(now, began, ends):
    at, *week = (datetime.fromisoformat(one).replace(tzinfo=UTC) for one in (now, began, ends))
    found = judged(GatewayRun(), at)
    assert [found.began_at, found.ends_at] == week


def test_only_a_refusal_between_two_connections_shows_a_restart():
    seconds = timedelta(seconds=1)
    first = GatewayRun().after_refusal().after_connection(SUNDAY, SUNDAY)
    assert first == GatewayRun(running_since=SUNDAY), "the port may have been wrong before"
    kept = first.after_connection(SUNDAY + HOUR, SUNDAY + HOUR - 5 * seconds)
    assert kept == first, "a dropped socket is no restart"
    back = SUNDAY + 2 * HOUR
    gap = kept.after_connection(back, back - 20 * seconds)
    assert gap == GatewayRun(running_since=back), "a restart may have gone unseen"
    restarted = kept.after_refusal().after_connection(back, back - 20 * seconds)
    assert restarted == GatewayRun(running_since=back, started_at=back)
