"""How campaigns stood between two closes, by what the ledger says their contracts were worth."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import pairwise

import polars as pl

from position_sync_dagster.domain.attribution import OwnedPart
from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import QUANTITY_ROUNDING, Key
from position_sync_dagster.sync.reports.recorded_values import RecordedValues

_SPAN = {
    "number": pl.Int64(), "begin": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC"),
    "money": pl.Float64(), "legs": pl.Int64(), "account": pl.String(), "conid": pl.Int64(),
    "quantity": pl.Float64(),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExtremes:
    """How a campaign stood at the moments at which the ledger knows its value.

    Attributes:
        moments: How many these are.
    """

    worst: float
    best: float
    moments: int


def with_money(money: float | None, part: OwnedPart) -> float | None:
    """Return what a campaign got until a part, with it, less fees; None: not known."""
    cash, fee = part.cash, part.fee
    if money is None or part.unknown or cash is None or fee is None:
        return None
    return money + cash - fee


def ledger_extremes(
    parts_of_campaigns: Sequence[Sequence[OwnedPart]], recorded: RecordedValues
) -> dict[int, LedgerExtremes]:
    """Return how campaigns stood, by their place in the sequence; blocks.

    Args:
        parts_of_campaigns: The parts of one currency of each campaign, in order of time.
    """
    spans: list[tuple[object, ...]] = []
    conids_on: defaultdict[date, set[int]] = defaultdict(set)
    for number, parts in enumerate(parts_of_campaigns):
        for begin, end, money, held in _spans_of(parts):
            for (account, conid), quantity in held.items():
                spans.append((number, begin, end, money, len(held), account, conid, quantity))
                for day in _days_between(begin, end):
                    conids_on[day].add(conid)

    table = pl.DataFrame(spans, schema=_SPAN, orient="row")
    of_days: list[pl.DataFrame] = []
    for _day, units in recorded.units_of_days(conids_on):
        of_days.append(_stood_on_day(table, units))
    if not of_days:
        return {}

    worst_of_days = pl.col("worst").min()
    best_of_days = pl.col("best").max()
    by_campaign = pl.concat(of_days).group_by("number")
    rows = by_campaign.agg(worst_of_days, best_of_days, pl.col("moments").sum())

    extremes: dict[int, LedgerExtremes] = {}
    for number, worst, best, moments in rows.iter_rows():
        extremes[number] = LedgerExtremes(worst=worst, best=best, moments=moments)
    return extremes


def _stood_on_day(spans: pl.DataFrame, units: pl.DataFrame) -> pl.DataFrame:
    """Return the extremes of each campaign on one day, where all of its contracts have a value."""
    is_during = pl.col("timestamp").is_between("begin", "end", closed="left")
    during = spans.join(units, on=["account", "conid"]).filter(is_during)

    value = pl.col("quantity") * pl.col("unit")
    of_span = pl.col("legs", "money").first()
    by_moment = during.group_by("number", "begin", "slot")
    of_moments = by_moment.agg(of_span, value=value.sum(), known=pl.len())

    whole = of_moments.filter(pl.col("known") == pl.col("legs"))
    profit = pl.col("money") + pl.col("value")
    moments = pl.len().cast(pl.Int64)
    return whole.group_by("number").agg(worst=profit.min(), best=profit.max(), moments=moments)


# From when until when a campaign had the same, what it had got until then, and what it had.
_Span = tuple[datetime, datetime, float, dict[Key, float]]


def _spans_of(parts: Sequence[OwnedPart]) -> Iterable[_Span]:
    """Yield the spans between the trades of a campaign; those without known money are left out."""
    held: defaultdict[Key, float] = defaultdict(float)
    money: float | None = 0.0
    for part, following in pairwise(parts):
        held[part.key] += part.quantity
        money = with_money(money, part)
        begin = _begin_after(part)
        end = _end_before(following)
        open_quantities = {key: q for key, q in held.items() if abs(q) >= QUANTITY_ROUNDING}
        if money is not None and open_quantities and begin < end:
            yield begin, end, money, open_quantities


def _begin_after(part: OwnedPart) -> datetime:
    """Return from when it is certain that a part had happened."""
    if part.is_trade and part.movement.at is None:
        return datetime.combine(part.movement.day + A_DAY, time(), UTC)
    return part.at


def _end_before(part: OwnedPart) -> datetime:
    """Return until when it is certain that a part had not happened yet."""
    if part.is_trade and part.movement.at is None:
        return datetime.combine(part.movement.day, time(), UTC)
    return part.at


def _days_between(begin: datetime, end: datetime) -> Iterable[date]:
    day = begin.date()
    while day <= end.date():
        yield day
        day += A_DAY
