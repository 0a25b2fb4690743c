"""The history of a holding: each value with where it came from and what held then."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from position_sync_dagster.domain.instrument import parse_conid
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.errors import UnknownIdError
from position_sync_dagster.lake.breaks import Break
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import legs_of
from position_sync_dagster.lake.updates.provenance import LedgerProvenance

BREAKS_SEARCHED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PastValue:
    """One row of a holding.

    Attributes:
        row: The row, as in the table.
        strategies: The strategies of the leg at the time of the row.
        breaks: The breaks of the holding that were open then: id, type and state.
    """

    row: dict[str, object]
    strategies: tuple[str, ...]
    breaks: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The newest values of a holding, oldest first.

    Attributes:
        more: Whether there are older ones than `values`.
    """

    account: str
    conid: int
    values: tuple[PastValue, ...]
    more: bool


def history(
    lake: Lake, account: str, conid: int, *, day: date | None = None, limit: int
) -> History:
    """Read the newest values of a holding.

    Args:
        day: Only the values of this UTC date.
        limit: At most so many.

    Raises:
        UnknownIdError: The holding has no row, on that day if one is given.
        InvalidLegError: The conid is none.
    """
    parse_conid(conid)
    ledger = LedgerProvenance(lake.updates.table)
    rows, more = ledger.of_holding(account, conid, day=day, limit=limit)
    if rows.is_empty():
        when = "" if day is None else f" on {day.isoformat()}"
        raise UnknownIdError(
            f"No row is of the holding {account[:40]}:{conid}{when}.",
            remedy="`position-sync positions --closed` lists accounts and conids; days are in UTC.",
        )
    memberships = [
        leg
        for leg in legs_of(lake.registry.table.rows())
        if leg.conid == conid and leg.account in (None, account)
    ]
    breaks = [
        one
        for one in (
            *lake.breaks.sync.open_breaks(),
            *lake.breaks.sync.closed_breaks(BREAKS_SEARCHED),
        )
        if (one.account, one.conid) == (account, conid)
    ]
    values = tuple(
        PastValue(
            row=row,
            strategies=strategies_at(memberships, row["timestamp"]),
            breaks=breaks_at(breaks, row["timestamp"]),
        )
        for row in rows.iter_rows(named=True)
    )
    return History(account=account, conid=conid, values=values, more=more)


def strategies_at(memberships: Iterable[Leg], at: datetime) -> tuple[str, ...]:
    """Return the strategies to which a leg belonged at a time; pure."""
    return tuple(
        sorted(
            {
                leg.strategy_id
                for leg in memberships
                if (leg.added_at is None or leg.added_at <= at)
                and (leg.removed_at is None or at < leg.removed_at)
            }
        )
    )


def breaks_at(breaks: Iterable[Break], at: datetime) -> tuple[dict[str, str], ...]:
    """Return the breaks that were open at a time, with the state that they had then; pure."""
    return tuple(
        {"break_id": one.break_id, "type": one.type.value, "state": _state(one, at)}
        for one in breaks
        if one.opened_at <= at and (one.resolved_at is None or at < one.resolved_at)
    )


def _state(one: Break, at: datetime) -> str:
    if one.accepted_at is not None and one.accepted_at <= at:
        return "ACCEPTED"
    confirmed = one.confirmed_at is not None and one.confirmed_at <= at
    return "CONFIRMED" if confirmed else "OPENED"
