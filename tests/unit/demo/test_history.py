"""The past sessions of the demo."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.demo.programs import past_sessions


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2026-11-20T14:00:00", date(2026, 11, 19)),
        ("2026-11-21T04:59:00", date(2026, 11, 19)),
        ("2026-11-21T05:00:00", date(2026, 11, 20)),
        ("2026-11-26T23:00:00", date(2026, 11, 25)),
    ],
)
def test_the_last_session_is_the_last_one_before_today_in_new_york(now: str, last: date) -> None:
    found = past_sessions("XNYS", datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert len(found) == 10
    assert found[-1] == last
    assert found == sorted(set(found))
