"""Which closes are judged: those that are open, and those of which a statement says more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.execution import FROM_GATEWAY
from position_sync_dagster.money.past.closes import FLEX
from position_sync_dagster.money.past.explain_closes import due_closes

NOW = datetime(2026, 3, 20, 20, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TRADED = "TRADED"
EXPIRED = "EXPIRED_WORTHLESS"
UNKNOWN = "UNEXPLAINED"
P = "PROVISIONAL"
S = "STATED"
MOMENT = pl.Datetime("us", "UTC")
TIMES = {"since": MOMENT, "seen_at": MOMENT}
SAID = {
    "account": pl.String, "conid": pl.Int64, "time": MOMENT, "stated_at": MOMENT,
    "source": pl.String, "day": pl.Date, "first_day": pl.Date, "statement": pl.String,
}  # fmt: skip


def execution(ago: timedelta, stated_ago: timedelta, source: str = FLEX) -> dict[str, object]:
    at = NOW - ago
    return {
        "account": "A", "conid": 1, "time": at, "stated_at": NOW - stated_ago, "source": source,
        "day": at.date(),
    }  # fmt: skip


def period(ago: timedelta, stated_ago: timedelta) -> dict[str, object]:
    day = (NOW - ago).date()
    return {
        "account": "A", "stated_at": NOW - stated_ago, "source": FLEX, "day": day,
        "first_day": day,
    }  # fmt: skip


OF_GUESS = (UNKNOWN, P, None)
OF_TRADE = (TRADED, P, None)
OF_STATEMENT = (TRADED, S, "day.xml")
NOTHING: list[dict[str, object]] = []
SOLD = execution(10 * DAY, 9 * DAY)
CASES = {}
CASES["without a cause"] = (40 * DAY, None, NOTHING, True)
CASES["expired a quarter of an hour ago: shares may come"] = (
    15 * MINUTE,
    (EXPIRED, P, None),
    NOTHING,
    True,
)
CASES["unexplained today: the gateway may answer"] = (5 * HOUR, OF_GUESS, NOTHING, True)
CASES["unexplained ten days ago, and nothing is new"] = (
    10 * DAY,
    OF_GUESS,
    NOTHING,
    False,
)
CASES["unexplained, and a statement covers its day"] = (
    10 * DAY,
    OF_GUESS,
    [period(10 * DAY, 9 * DAY)],
    True,
)
CASES["traded, and its statement came"] = (DAY, OF_TRADE, [execution(DAY, HOUR)], True)
CASES["traded, and its statement was made before the cause was"] = (
    DAY,
    OF_TRADE,
    [execution(DAY, DAY + MINUTE)],
    True,
)
CASES["traded, and the statement, which has no codes, says no more"] = (
    DAY,
    (TRADED, P, "day.xml"),
    [execution(DAY, 2 * DAY)],
    False,
)
CASES["stated"] = (
    10 * DAY,
    OF_STATEMENT,
    [execution(10 * DAY, 10 * DAY + MINUTE)],
    False,
)
CASES["stated, and a newer statement corrects it"] = (
    10 * DAY,
    OF_STATEMENT,
    [execution(10 * DAY, HOUR)],
    True,
)
CASES["stated, and its own statement says no more"] = (
    DAY,
    OF_STATEMENT,
    [execution(DAY, DAY - SECOND) | {"statement": "day.xml"}],
    False,
)
LATE = execution(DAY, DAY - SECOND) | {"statement": "late.xml"}
CASES["stated, and one that was made before it was judged arrives afterwards"] = (
    DAY,
    OF_STATEMENT,
    [execution(DAY, DAY) | {"statement": "day.xml"}, LATE],
    True,
)
CASES["stated, and the contract was traded again"] = (
    10 * DAY,
    OF_STATEMENT,
    [execution(2 * HOUR, HOUR, FROM_GATEWAY)],
    False,
)


@pytest.mark.parametrize("name", CASES)
def test_a_close_is_judged_if_it_is_open_or_if_there_is_more_to_know(name: str) -> None:
    ago, counted, said, is_due = CASES[name]
    seen = NOW - ago
    columns = {"change_id": pl.String, "account": pl.String, "conid": pl.Int64} | TIMES
    row = ("c", "A", 1, seen - MINUTE, seen)
    closes = pl.DataFrame([row], columns, orient="row")

    names = ("change_id", "cause", "stage", "statement")
    columns = dict.fromkeys(names, pl.String) | {"judged_at": MOMENT}
    judged: list[Any] = [] if counted is None else [("c", *counted, seen + MINUTE)]
    known = pl.DataFrame(judged, columns, orient="row")
    due = due_closes(closes, known, pl.DataFrame(said, schema=SAID), NOW)
    assert (due == {"c"}) is is_due
