"""When the login of the week ends: IB invalidates its tokens on Sunday, 01:00 in New York."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.gateway_session import weekly_login
from position_sync_dagster.domain.position_update import TradingMode

# 01:00 in New York, in winter.
SUNDAY = datetime(2026, 11, 22, 6, tzinfo=UTC)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("now", "ends_at", "asks"),
    [
        (SUNDAY, SUNDAY + 7 * DAY, False),
        (SUNDAY - timedelta(seconds=1), SUNDAY, True),
        (SUNDAY + 6 * DAY - HOUR, SUNDAY + 7 * DAY, False),
        (SUNDAY + 6 * DAY, SUNDAY + 7 * DAY, True),
        # The clocks of New York go forward and back.
        (datetime(2027, 3, 10, tzinfo=UTC), datetime(2027, 3, 14, 6, tzinfo=UTC), False),
        (datetime(2027, 3, 15, tzinfo=UTC), datetime(2027, 3, 21, 5, tzinfo=UTC), False),
        (datetime(2027, 11, 6, 12, tzinfo=UTC), datetime(2027, 11, 7, 5, tzinfo=UTC), True),
        (datetime(2027, 11, 8, tzinfo=UTC), datetime(2027, 11, 14, 6, tzinfo=UTC), False),
    ],
)
def test_a_week_ends_on_sunday_and_a_person_is_asked_a_day_before(now, ends_at, asks):
    week = weekly_login(now, TradingMode.LIVE, 24)
    assert week is not None
    assert week.ends_at == ends_at
    assert week.asks == asks
    assert f"{ends_at:%A %Y-%m-%d %H:%M} UTC" in week.text


@pytest.mark.parametrize(("mode", "notice_h"), [(TradingMode.PAPER, 24), (None, 24), ("LIVE", 0)])
def test_a_login_without_a_second_factor_has_no_week(mode, notice_h):
    assert weekly_login(SUNDAY, mode and TradingMode(mode), notice_h) is None
