"""The week of Christmas: each figure of the program is that of the simulated broker, each day.

A half day, a holiday, options that end on a Thursday, and a wrong statement that is corrected; in
the second tier a session before them, whose statement comes late. The program runs on the
simulator, a stream over a socket, real tables, and the schedules and sensors of Dagster at their
times; `make year` plays a quarter of a year.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.year.play import Plan, play

# With this seed the statement of its first day comes late, and that of the 24th is wrong at first.
WEEK = Plan(
    seed=40_959, first=date(2026, 12, 22), until=date(2026, 12, 28), strategies=6,
    with_gaps=False, with_closes=False, with_maintenance=False, with_growth=False,
)  # fmt: skip


FIRST_DAYS = [date(2026, 12, 22), date(2026, 12, 23)]


# Dagster's daemon reads properties of Dagster that Dagster calls deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("first", FIRST_DAYS, ids=str)
def test_a_week_of_sessions_is_told_and_explained_to_the_cent(first: date, tmp_path: Path) -> None:
    lines: list[str] = []
    played = play(replace(WEEK, first=first), tmp_path / "home", say=lines.append)

    assert not played.deviations, "\n".join(lines)
    assert played.sessions == (4 if first == WEEK.first else 3)
