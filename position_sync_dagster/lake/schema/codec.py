"""Rows of the tables as values, and values as rows: the one place where a frame meets an object.

Also their ids, which sort by time, and the partitions of tables whose rows change. Rows of such a
table lie in the bucket `live` until they are finished, in the part `0`, sessions in one each.
Finished rows lie in a bucket of their own kind, in a new part for each commit that finished them.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256
from operator import attrgetter
from typing import Any, TypeVar

import polars as pl

from position_sync_dagster.domain.broker_position import (
    GREEKS_COLUMNS,
    BrokerPosition,
    HoldingGreeks,
)
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import ActiveContract, Leg, UnresolvedLeg
from position_sync_dagster.domain.update import (
    PositionUpdate,
    QueueRequest,
    QueueStatus,
    ValueOrigin,
    trading_mode_of,
)
from position_sync_dagster.errors import InvalidRequestError
from position_sync_dagster.lake.schema import tables
from position_sync_dagster.lake.schema.table_spec import TableSpec, columns_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTRUMENT = tuple(Instrument.__dataclass_fields__)
_BROKER = tuple(f for f in BrokerPosition.__dataclass_fields__ if f not in ("instrument", "greeks"))
_UPDATE = tuple(tables.UPDATE_COLUMNS)
_MICROSECOND = timedelta(microseconds=1)

# The bucket and the part of rows that still change.
LIVE, LIVE_PART = "live", "0"

# The two columns of live rows, for `frame.with_columns(*LIVE_COLUMNS, …)`.
LIVE_COLUMNS = (pl.lit(LIVE).alias("bucket"), pl.lit(LIVE_PART).alias("part"))

# Sorts after every character of an id.
LAST = "\N{TILDE}"

# Returns a number of new ids for a moment, in ascending order.
NewIds = Callable[[datetime, int], list[str]]


def storable(text: str) -> str:
    """Return the text with lone surrogates escaped, since UTF-8 cannot encode them.

    They come from bytes that could not be decoded, for example in an error message.
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def frame_of(spec: TableSpec, rows: Iterable[Any]) -> pl.DataFrame:
    """Return a frame with the table's schema; a column that a row lacks is null.

    Args:
        spec: The table.
        rows: Dataclasses, or mappings by the names of columns.

    Raises:
        InvalidRequestError: A text cannot be stored, since it has half a surrogate pair.
    """
    listed = [row if isinstance(row, Mapping) else fields_of(row) for row in rows]
    return _frame(spec, {name: [row.get(name) for row in listed] for name in spec.columns})


def moment(at: datetime | None) -> pl.Expr:
    """Return a time as an expression; `pl.lit` of a `datetime` takes forty times as long."""
    ticks = None if at is None else (at - _EPOCH) // _MICROSECOND
    return pl.lit(ticks, pl.Int64).cast(pl.Datetime("us", "UTC"))


def one_of(column: str, values: Iterable[object]) -> pl.Expr:
    """Return which rows have one of the values.

    A scan compares a plain list with the statistics of each file, one value after the other: 30 ms
    for 80 values.
    """
    return pl.col(column).is_in(pl.Series([*values]).implode())


def moments(times: Iterable[datetime | None], name: str = "") -> pl.Series:
    """Return times as a column; Polars converts a `datetime` ten times as slowly as a number."""
    ticks = [None if at is None else (at - _EPOCH) // _MICROSECOND for at in times]
    return pl.Series(name, ticks, pl.Int64).cast(pl.Datetime("us", "UTC"))


def new_request_rows(
    ids: Sequence[str], requests: Sequence[QueueRequest], now: datetime
) -> pl.DataFrame:
    """Return the live rows of new requests."""
    asked = _columns(tuple(QueueRequest.__dataclass_fields__), requests)
    return _frame(tables.POSITION_QUEUE, {"request_id": ids, **asked}).with_columns(
        *LIVE_COLUMNS,
        status=pl.lit(QueueStatus.PENDING.value),
        attempts=pl.lit(0, pl.Int64),
        created_at=moment(now),
        updated_at=moment(now),
    )


def leg_rows(legs: Iterable[Leg]) -> pl.DataFrame:
    """Return the live rows of legs."""
    return frame_of(tables.ACTIVE_STRATEGIES, legs).with_columns(*LIVE_COLUMNS)


def legs_of(frame: pl.DataFrame) -> list[Leg]:
    """Return the legs in a frame; one without a conid is unresolved."""
    described = pl.col("conid").is_null()
    return [
        *records_of(ActiveContract, frame.filter(~described)),
        *records_of(UnresolvedLeg, frame.filter(described)),
    ]


def update_rows(
    updates: Sequence[PositionUpdate], ids: Mapping[str, list[Any]] | None = None
) -> pl.DataFrame:
    """Return the rows of updates; `date` is the UTC date of the timestamp.

    Args:
        updates: The updates.
        ids: Columns that replace those of the updates. Copying each update with its new ids instead
            would double the time.
    """
    columns = _columns(_UPDATE, updates) | dict(ids or {})
    rows = _frame(tables.POSITION_UPDATES, columns)
    return rows.with_columns(date=pl.col("timestamp").dt.date())


def _columns(names: Sequence[str], values: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the attributes of objects as columns."""
    return {name: list(map(attrgetter(name), values)) for name in names}


def updates_of(frame: pl.DataFrame) -> list[PositionUpdate]:
    """Return the updates in a frame; a source that a later release added counts as NONE."""
    known = pl.col("value_source").is_in([one.value for one in ValueOrigin])
    source = pl.when(known).then("value_source").otherwise(pl.lit(ValueOrigin.NONE.value))
    return records_of(PositionUpdate, frame.with_columns(value_source=source))


def broker_rows(
    positions: Iterable[BrokerPosition], session: GatewaySession | None
) -> pl.DataFrame:
    """Return the rows of broker positions, with the session that writes them."""
    listed = list(positions)
    modes = {account: trading_mode_of(account) for account in {p.account for p in listed}}
    columns = {
        **_columns(_BROKER, listed),
        **_columns(_INSTRUMENT, [position.instrument for position in listed]),
        "trading_mode": [modes[position.account] for position in listed],
    }
    greeks = [position.greeks for position in listed]
    if any(greeks):
        columns |= {name: [getattr(one, name, None) for one in greeks] for name in GREEKS_COLUMNS}
    if session is not None:
        columns["session_id"] = [session.session_id] * len(listed)
        columns["fencing_token"] = [session.fencing_token] * len(listed)
    return _frame(tables.BROKER_POSITIONS, columns)


def broker_positions_of(frame: pl.DataFrame) -> list[BrokerPosition]:
    """Return the broker positions in a frame."""
    greeks = records_of(HoldingGreeks, frame)
    return records_of(
        BrokerPosition,
        frame.with_columns(pl.col("followed").fill_null(value=False)),
        instrument=records_of(Instrument, frame),
        greeks=[None if one.implied_vol is None else one for one in greeks],
    )


def session_rows(sessions: Iterable[GatewaySession]) -> pl.DataFrame:
    """Return the live rows of sessions, each login in a part of its own."""
    return frame_of(
        tables.GATEWAY_SESSIONS,
        (fields_of(s) | {"bucket": LIVE, "part": part_named(s.gateway_id)} for s in sessions),
    )


Record = TypeVar("Record")


def records_of(kind: type[Record], frame: pl.DataFrame, **parts: list[Any]) -> list[Record]:
    """Return the rows of a frame as records of a dataclass, in their order.

    A choice that a later release added stays a text.

    Args:
        parts: The values of fields that are no columns, by the name of the field.
    """
    columns = columns_of(kind, besides=parts)
    values = frame.select(list(columns)).to_dict(as_series=False)
    for name, column in columns.items():
        if column.choices:
            members = {one.value: one for one in column.choices}
            values[name] = [members.get(text, text) for text in values[name]]
    values |= parts
    rows = zip(*values.values(), strict=True)
    if getattr(kind, "__match_args__", ()) == tuple(values):  # by position takes half the time
        return [kind(*row) for row in rows]
    return [kind(**dict(zip(values, row, strict=True))) for row in rows]


def _frame(spec: TableSpec, columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Return a frame with the table's schema; columns that are not given are null."""
    kinds = spec.polars
    try:
        given = pl.DataFrame(
            [
                moments(values, name)
                if kinds[name] == pl.Datetime
                else pl.Series(name, values, kinds[name])
                for name, values in columns.items()
            ]
        )
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"A text for {spec.name} is not valid Unicode: {error.object[:40]!r}.",
            remedy="Remove the lone surrogate at position " + str(error.start) + ".",
        ) from None
    return given.select(
        name if name in columns else pl.lit(None, kind).alias(name) for name, kind in kinds.items()
    )


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, as a row."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def new_ids(now: datetime, count: int) -> list[str]:
    """Return `count` ascending UUIDs of version 7 (RFC 9562).

    They sort by time, so the ids of one file span a short range and a look-up by id reads few
    files.
    """
    first = _milliseconds(now) << 12
    random = os.urandom(8 * count)
    return [
        _uuid(first + n, int.from_bytes(random[8 * n : 8 * n + 8]), version=7) for n in range(count)
    ]


def id_prefix(at: datetime) -> str:
    """Return a text that sorts before the ids of this moment and later, and after earlier ones.

    >>> id_prefix(datetime(2026, 1, 2, tzinfo=UTC))
    '019b7c01-0400'
    """
    return _uuid(_milliseconds(at) << 12, 0, version=7)[:13]


def new_part(now: datetime) -> str:
    """Return the name of a new part: unique, sorted by time, hexadecimal digits and dashes."""
    return new_ids(now, 1)[0]


def content_id(at: datetime, *content: object) -> str:
    """Return the UUID (version 8) of a content at a moment; equal for equal content."""
    digest = int.from_bytes(blake2b(repr(content).encode(), digest_size=16).digest())
    ticks = (_milliseconds(at) << 12) | (digest >> 64 & 0xFFF)
    return _uuid(ticks, digest, version=8)


def part_named(text: str) -> str:
    """Return the name of the part for a text, such as a gateway id: its hash in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _milliseconds(at: datetime) -> int:
    return max(0, (at - _EPOCH) // timedelta(milliseconds=1))


def _uuid(ticks: int, random: int, *, version: int) -> str:
    # 48 bits of milliseconds, version, 12 bits of sequence, variant, 62 random bits.
    high = (ticks >> 12 & (1 << 48) - 1) << 16 | version << 12 | (ticks & 0xFFF)
    digits = f"{high << 64 | 0b10 << 62 | random & (1 << 62) - 1:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
