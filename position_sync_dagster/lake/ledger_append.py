"""The idempotent append: a row whose id the ledger holds is not written again.

A repeated update or batch has the same id. Updates that other code made are checked first: other
spellings are converted, and values that cannot be stored are refused. The checks follow the
columns of `position_updates` (see `PositionUpdate`). They are plain functions and not a pydantic
model: such a model needs a Python function for nearly every field (IB's spellings, local times,
DBL_MAX) and a second list of the fields, and it copies updates in which nothing has to change.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import index
from typing import Any

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.instrument import Right, parse_expiry, parse_right
from position_sync_dagster.domain.update import (
    OwnUpdates,
    PositionUpdate,
    Source,
    TradingMode,
    trading_mode_of,
)
from position_sync_dagster.errors import InvalidLegError, InvalidRequestError, NewerRowError
from position_sync_dagster.lake.ledger_rows import (
    HOLDING,
    added_after,
    added_by,
    last_added,
    stored_ids,
)
from position_sync_dagster.lake.schema.codec import moment, update_rows
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.lake.schema.table_spec import Kind, StoredColumn
from position_sync_dagster.lake.schema.tables import UPDATE_COLUMNS
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.maintenance import compact_if_needed
from position_sync_dagster.lake.storage.table import Table

# Greater numbers count as unknown: IB writes DBL_MAX for a number that it does not know.
UNSET = 1e300


def coerce_update(update: PositionUpdate) -> PositionUpdate:
    """Return the update in the form in which it is stored; the same object if nothing changes.

    A time without a zone is local time, as `datetime.now()` returns it. A right or an expiry may
    be text as IB writes it, "" for none. A number that is not finite, or IB's DBL_MAX, becomes
    None (unknown).

    Raises:
        InvalidRequestError: A field holds a value that cannot be stored, or a field that each row
            needs, such as the position, is unknown.
    """
    changes: dict[str, Any] = {}
    for name, column, coerce in _CHECKS:
        value = getattr(update, name)
        try:
            found = None if value is None or _is_blank(value, column) else coerce(value)
        except (ValueError, TypeError, OverflowError, OSError, InvalidLegError):
            raise _refused(name, value, column) from None
        if found is None and not column.nullable:
            raise _refused(name, value, column)
        if found is not value:
            changes[name] = found
    return replace(update, **changes) if changes else update


def _is_blank(value: object, column: StoredColumn) -> bool:
    may_be_blank = column.choices is not None or column.kind is Kind.DAY
    return may_be_blank and isinstance(value, str) and not value.strip()


def _refused(name: str, value: object, column: StoredColumn) -> InvalidRequestError:
    wanted = f"one of {', '.join(column.choices)}" if column.choices else _WANTED[column.kind]
    return InvalidRequestError(
        f"The update's {name} {value!r:.80} cannot be stored: it is not {wanted}.",
        remedy=f"Pass {name} as {wanted}.",
    )


_WANTED = {
    Kind.NUMBER: "a finite number",
    Kind.TEXT: "a str",
    Kind.COUNT: "a whole number",
    Kind.MOMENT: "a datetime, such as datetime.now(UTC)",
    Kind.DAY: "a date, or text such as 20260220",
}


def _number(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes):
        raise TypeError
    number = float(value)
    return number if -UNSET < number < UNSET else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    count = index(value)
    if isinstance(value, bool) or not -(2**63) <= count < 2**63:
        raise TypeError
    return count


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError
    return value if value.tzinfo is not None else value.astimezone(UTC)


_BY_KIND: dict[Kind, Callable[[Any], object]] = {
    Kind.NUMBER: _number,
    Kind.TEXT: _text,
    Kind.COUNT: _count,
    Kind.MOMENT: _moment,
    Kind.DAY: parse_expiry,
}


def _check_of(column: StoredColumn) -> Callable[[Any], object]:
    if column.choices is Right:
        return parse_right
    return column.choices or _BY_KIND[column.kind]


_CHECKS = [(name, column, _check_of(column)) for name, column in UPDATE_COLUMNS.items()]

_NUMBERS = [name for name, column in UPDATE_COLUMNS.items() if column.kind is Kind.NUMBER]


def identified(
    updates: Iterable[PositionUpdate], batch_id: str = "", run_id: str | None = None
) -> pl.DataFrame:
    """Return updates as rows of the table, with the empty ids and the trading mode filled in.

    The update of a request takes the id of the request. Any other update takes the UUID of its
    content, and a batch that of its rows. The trading mode is that of the account. If several
    updates have one id, the first counts. For `OwnUpdates` only the numbers are checked, a column
    at a time.

    Raises:
        InvalidRequestError: A field of an update cannot be stored; see `coerce_update`.
    """
    own = isinstance(updates, OwnUpdates)
    listed = list(updates) if own else [coerce_update(update) for update in updates]
    if not listed:
        return update_rows([])
    ids = [update.update_id or _update_id(update) for update in listed]
    batch = batch_id or content_id(max(update.timestamp for update in listed), *sorted(ids))
    found: dict[str, list[Any]] = {
        "update_id": ids,
        "batch_id": [batch_id or update.batch_id or batch for update in listed],
        "run_id": [update.run_id or run_id for update in listed],
        "trading_mode": [update.trading_mode or _trading_mode(update) for update in listed],
    }
    rows = update_rows(listed, found)
    if own and not all(rows.select(pl.col(_NUMBERS).is_finite().all()).row(0)):
        return identified(listed, batch_id, run_id)
    if len(set(ids)) == len(ids):
        return rows
    return rows.unique("update_id", keep="first", maintain_order=True)


def _trading_mode(update: PositionUpdate) -> TradingMode | None:
    return trading_mode_of(update.account) if update.account else None


def _update_id(update: PositionUpdate) -> str:
    if update.source is Source.QUEUE and update.request_id:
        return update.request_id
    content = (
        update.gateway_id,
        update.account,
        update.conid,
        update.timestamp.astimezone(UTC).isoformat(),
        update.source.value,
        update.position,
        update.market_price,
        update.market_value,
        update.average_cost,
        update.unrealized_pnl,
    )
    return content_id(update.timestamp, *content)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """The outcome of an append.

    Attributes:
        version: The table's version that holds the rows.
        rows: Rows written; 0 when the table held all of them already.
        batch_id: The batch of the rows; empty without any.
    """

    version: int
    rows: int
    batch_id: str = ""


def append_rows(
    table: Table,
    frame: pl.DataFrame,
    *,
    clock: Clock,
    guard: Callable[[], None] | None = None,
    through: int | None = None,
) -> AppendResult:
    """Write the rows that the table does not hold, in one commit; see `SyncUpdates.append`.

    The application transaction of each append is named like the table. Concurrent appends with
    equal ids conflict, so that each one checks its ids against all earlier rows.

    Args:
        table: `position_updates`, or another table whose rows have an id, a `ledger_version` and
            the owner that wrote them.
        frame: Its rows, as `identified` returned them.
    """
    if frame.is_empty():
        return AppendResult(version=table.version(), rows=0)
    first = frame.row(0, named=True)
    batch_id = first.get("batch_id", "")
    known = {"batch_id": batch_id, "run_id": first.get("run_id")}
    commit_info = {name: text for name, text in known.items() if text}
    checked = through
    tried: tuple[AppendResult, datetime] | None = None
    written_by = set(frame.select("gateway_id", "fencing_token").iter_rows())
    owners = {(gateway_id, token) for gateway_id, token in written_by if token is not None}
    modes = [TradingMode(mode) for mode in set(frame.get_column("trading_mode")) if mode]

    def step(handle: DeltaTable) -> AppendResult:
        nonlocal checked, tried
        for gateway_id, token in owners:
            storage.refuse_stale_owner(token, storage.newest_token(handle, gateway_id), gateway_id)
        storage.check_mode(handle, modes, table.path)
        present = storage.data_files(handle)
        new = _without_stored(table, present, frame)
        if new.is_empty():
            if tried is not None and _is_committed(table, present, *tried):
                return tried[0]  # the answer to that commit was lost
            return AppendResult(version=handle.version(), rows=0)
        if checked is not None:
            _refuse_newer(table, present, checked, new)
            # After a conflict only the rows that the winner added are checked. Otherwise each
            # commit of others would make the next attempt longer, and beside several streams no
            # attempt would win.
            checked = max(checked, last_added(present))
        if guard is not None:
            guard()
        version = handle.version() + 1
        # Rows that were copied from another table may have greater versions.
        added = max(version, last_added(present) + 1)
        at = clock()
        new = new.with_columns(ledger_version=pl.lit(added, pl.Int64), committed_at=moment(at))
        tried = (AppendResult(version=added, rows=new.height, batch_id=batch_id), at)
        storage.append(handle, new, commit_info, [Transaction(table.spec.name, version)])
        return AppendResult(version=handle.version(), rows=new.height, batch_id=batch_id)

    result = table.transact(step)
    compact_if_needed(table)
    return result


def _is_committed(table: Table, present: pl.DataFrame, tried: AppendResult, at: datetime) -> bool:
    """Return whether the table has the rows of this try, not the same rows of another writer."""
    rows = added_by(table, present, tried.version).select("committed_at").collect()
    return not rows.filter(pl.col("committed_at") == moment(at)).is_empty()


def _without_stored(table: Table, present: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose batch and id the table does not hold, whatever the clocks say."""
    batch = [name for name in table.spec.indexed if name == "batch_id"]
    for column in (*batch, *table.spec.key):
        stored = stored_ids(table, present, column, rows.get_column(column))
        if stored:
            rows = rows.filter(~pl.col(column).is_in(stored))
    return rows


def _refuse_newer(table: Table, present: pl.DataFrame, through: int, rows: pl.DataFrame) -> None:
    """Raise an error if a row of one of the holdings was added after that version."""
    added = added_after(table, present, through).select(HOLDING)
    newer = added.join(rows.lazy().select(HOLDING), on=HOLDING, how="semi").collect()
    if not newer.is_empty():
        account, conid = newer.row(0)
        raise NewerRowError(
            f"Another row of the conid {conid} in {account} was written meanwhile.",
            remedy="Read the newest rows again and decide anew.",
        )
