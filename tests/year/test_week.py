"""The week of Christmas: each figure of the program is that of the simulated broker, each day.

A half day, a holiday, options that end on a Thursday, a statement that comes late, and a wrong one
that is corrected. The program runs on the simulator, a stream over a socket, real tables, and the
schedules and sensors of Dagster at their times; `make year` plays a quarter of a year.
"""

from datetime import date
from pathlib import Path

import pytest

from tests.year.play import Plan, play

# With this seed a statement of the week comes late, and one is wrong at first.
WEEK = Plan(
    seed=40_959, first=date(2026, 12, 22), until=date(2026, 12, 28), strategies=6,
    with_gaps=False, with_closes=False, with_maintenance=False, with_growth=False,
)  # fmt: skip


# Dagster's daemon reads properties of Dagster that Dagster calls deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_week_of_sessions_is_told_and_explained_to_the_cent(tmp_path: Path) -> None:
    lines: list[str] = []
    played = play(WEEK, tmp_path / "home", say=lines.append)

    assert not played.deviations, "\n".join(lines)
    assert played.sessions == 4
