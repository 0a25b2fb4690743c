"""A gap in the curve of a day is a gap."""

from datetime import UTC, datetime, timedelta

from position_sync_dagster.money.reports.book import with_gaps

NOON = datetime(2026, 3, 9, 16, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_a_time_of_which_nothing_is_known_has_no_line_and_both_its_ends_are_kept() -> None:
    points = [(NOON + n * MINUTE, 10.0) for n in range(10)]
    points += [(NOON + n * MINUTE, 3410.0) for n in range(40, 50)]
    curve = with_gaps(points, every=4)
    minutes = [(at - NOON) // MINUTE for at, _ in curve]
    assert minutes == [0, 4, 8, 9, 14, 40, 42, 46, 49]
    assert [profit for at, profit in curve if NOON + 9 * MINUTE < at < NOON + 40 * MINUTE] == [None]


def test_points_that_follow_each_other_have_no_gap() -> None:
    points = [(NOON + n * MINUTE, float(n)) for n in range(6)]
    assert with_gaps(points) == points
