"""The schema of the tables of the lake: columns, versions, partitions, ids, and rows as values.

Columns are derived from a dataclass of the domain, or from a class here that names no values, with
the description that its docstring has. Rows become values, and values rows, in this module alone.

Ids sort by time. Bucket and part are the partitions of tables whose rows change. Rows lie in the
bucket `live` until they are finished, in the part `0`; the sessions of each login in a part of its
own. Finished rows lie in a bucket of their own kind, in a new part for each commit that finished
them.
"""

import ast
import datetime as dt
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cache, cached_property
from hashlib import blake2b, sha256
from inspect import cleandoc, getsource
from textwrap import dedent
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints
from uuid import UUID

import polars as pl
from deltalake import Field, Schema
from deltalake.schema import ArrayType, PrimitiveType
from polars import DataFrame, Expr, Int64, Series, col, lit

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.holding import GREEKS_COLUMNS, BrokerPosition, HoldingGreeks
from position_sync_dagster.domain.instrument import ContractDetails, Instrument
from position_sync_dagster.domain.leg import ActiveContract, Leg, UnresolvedLeg
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    trading_mode_of,
)
from position_sync_dagster.domain.queue_request import QueuedPosition
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.errors import InvalidRequestError
from position_sync_dagster.lake.given_leg import TEXTS

# How a value of each type is stored: its type in Delta, and in a frame.
_TYPES: Mapping[type, tuple[PrimitiveType | ArrayType, pl.DataType]] = {
    str: (PrimitiveType("string"), pl.String()),
    int: (PrimitiveType("long"), Int64()),
    float: (PrimitiveType("double"), pl.Float64()),
    datetime: (PrimitiveType("timestamp"), pl.Datetime("us", "UTC")),
    date: (PrimitiveType("date"), pl.Date()),
    bool: (PrimitiveType("boolean"), pl.Boolean()),
    list[str]: (ArrayType(PrimitiveType("string"), contains_null=True), pl.List(pl.String())),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredColumn:
    """One column of a table.

    Attributes:
        description: For people who read the table; with the unit, where there is one.
        nullable: Whether a row may leave it out.
        choices: The members of this enum are the only values; None for any value.
    """

    kind: type
    description: str = ""
    nullable: bool = True
    choices: type[StrEnum] | None = None


def columns_of(
    record: type, besides: Collection[str] = (), texts: Mapping[str, str] | None = None
) -> dict[str, StoredColumn]:
    """Return the columns that a class names: one per annotated field, in the order of fields.

    Args:
        record: The class.
        besides: Fields that have no column.
        texts: Descriptions of columns, by name, in place of what the docstring of the class says
            under "Attributes".

    Raises:
        TypeError: A field has a type for which there is no column type.
    """
    texts = descriptions_of(record) | dict(texts or {})
    return {
        name: _column(name, hint, texts.get(name, ""))
        for name, hint in get_type_hints(record).items()
        if name not in besides
    }


def descriptions_of(record: type) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of each attribute.

    A class comes after its bases, so that its own text counts.
    """
    texts = {}
    for base in reversed(record.__mro__):
        _summary, _heading, attributes = _docstring_of(base).partition("\nAttributes:\n")
        # Each entry begins after four blanks; its other lines have more.
        entries = re.split(r"\n {4}(?! )", f"\n{attributes}")
        for entry in entries[1:]:
            name, _colon, text = entry.partition(":")
            texts[name] = " ".join(text.split())
    return texts


def _docstring_of(record: type) -> str:
    """Return the docstring of a class; under `python -OO` only its source has it.

    `object`, the base of each, has no source in Python, and no attributes.
    """
    if sys.flags.optimize < 2 or record is object:
        return cleandoc(record.__doc__ or "")

    [definition] = ast.parse(dedent(getsource(record))).body
    return ast.get_docstring(cast(ast.ClassDef, definition)) or ""


def _column(name: str, hint: Any, description: str) -> StoredColumn:
    """Return the column for the type of a field; a field that may be None is nullable."""
    alternatives = set(get_args(hint) or (hint,))
    nullable = NoneType in alternatives
    [stored_type] = alternatives - {NoneType}
    column = StoredColumn(kind=stored_type, description=description, nullable=nullable)
    if stored_type in _TYPES:
        return column
    if issubclass(stored_type, StrEnum):
        return replace(column, kind=str, choices=stored_type)
    raise TypeError(f"the field {name} has no column type: {stored_type!r}")


NAME_PROPERTY = "positionSync.table"
VERSION_PROPERTY = "positionSync.schemaVersion"
KEY_PROPERTY = "positionSync.key"
CHANGES_PROPERTY = "positionSync.changes"
STATISTICS_PROPERTY = "delta.dataSkippingStatsColumns"
MODE_PROPERTY = "positionSync.tradingMode"

# A checkpoint every ten versions, here for other writers than ours, lets a table open quickly.
# Deleted files are kept for half an hour, longer than any reader uses a snapshot. Log entries are
# kept for ten minutes only (600 entries at one commit a second), since each commit lists their
# folder.
RETENTION: Mapping[str, str] = {
    "delta.checkpointInterval": "10",
    "delta.logRetentionDuration": "interval 10 minutes",
    "delta.deletedFileRetentionDuration": "interval 30 minutes",
}
DURATIONS = ("delta.logRetentionDuration", "delta.deletedFileRetentionDuration")


# Tables that change a few times an hour keep their versions for a week, for time travel.
A_WEEK = "interval 7 days"


@dataclass(frozen=True)
class TableSpec:
    """The name, columns and partitions of a table, and the columns with file statistics.

    Attributes:
        described: The columns; a table of an older release may have them in another order.
        version: Grows by one with each added column; older tables are migrated forward.
        indexed: Columns with minimum and maximum per file in the log. There are few,
            since each costs bytes in every commit and checkpoint.
        order: The indexed column that grows, at least roughly, as rows are added. Files are merged
            in its order. Empty for tables that are only replaced.
        key: Columns that no two rows share, if there are such. Without them a change of a
            `LifecycleTable` writes all its live rows, as in the registry.
        required: Columns of which a row needs a value, one of the choices where there are any. A
            row without, which only another program writes, is left out of what is read (see
            `readable`), but kept.
        description: What the table holds, for people who read it.
        kept: How long old versions of it can be read, where it is longer than in RETENTION. A table
            that exists keeps what it was made with.
        changes: When rows are added, changed or replaced, for programs that read it again.
        is_copy: Whether it has rows of other tables as they are, whoever wrote them.
        carried: For a migration: by the name of a column, the SQL of its value from the columns of
            an older release.
    """

    name: str
    described: Mapping[str, StoredColumn]
    version: int = 1
    partition_by: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()
    order: str = ""
    key: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    description: str = ""
    kept: str | None = None
    changes: str = ""
    is_copy: bool = False
    carried: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Return the type of each column, as Delta names it."""
        return {name: _TYPES[column.kind][0].type for name, column in self.described.items()}

    @cached_property
    def polars(self) -> pl.Schema:
        """Return the schema of a frame of this table."""
        return pl.Schema({name: _TYPES[column.kind][1] for name, column in self.described.items()})

    @cached_property
    def empty(self) -> DataFrame:
        """Return a frame of this table without rows."""
        return DataFrame(schema=self.polars)

    @cached_property
    def readable(self) -> Expr:
        """Return which rows are read: those with a value, or a choice, in each of `required`."""
        needed = []
        for name in self.required:
            column = col(name)
            # Of the members themselves Polars 1 makes an enum, and an error of another value.
            choices = [choice.value for choice in self.described[name].choices or ()]
            needed.append(column.is_in(choices) if choices else column.is_not_null())
        return pl.all_horizontal(lit(value=True), *needed).fill_null(value=False)

    @cached_property
    def stored(self) -> pl.Schema:
        """Return the schema of a data file: without the partition columns."""
        kinds = self.polars.items()
        return pl.Schema({name: kind for name, kind in kinds if name not in self.partition_by})

    @cached_property
    def delta(self) -> Schema:
        """Return the schema in the form that Delta Lake takes.

        Delta refuses null in the key, in tables that this release creates: an older one stays as it
        is. Tables that write rows of other programs again, as those with rows of a life cycle and
        copies do, allow it: else Delta would refuse the whole commit.
        """
        may_lack_its_key = self.is_copy or "bucket" in self.partition_by
        checked = () if may_lack_its_key else self.key
        return Schema(
            [
                Field(
                    name,
                    _TYPES[column.kind][0],
                    nullable=column.nullable or name not in checked,
                    metadata={"comment": column.description},
                )
                for name, column in self.described.items()
            ]
        )

    @property
    def configuration(self) -> dict[str, str]:
        """Return the table properties of a new table."""
        properties = {
            **RETENTION,
            NAME_PROPERTY: self.name,
            VERSION_PROPERTY: str(self.version),
            STATISTICS_PROPERTY: ",".join(self.indexed),
            KEY_PROPERTY: ",".join(self.key),
            CHANGES_PROPERTY: self.changes,
        }
        if self.kept is not None:
            properties |= dict.fromkeys(DURATIONS, self.kept)
        return properties


class _Partition:
    """The partition columns of every `LifecycleTable`; see the docstring of this module.

    Attributes:
        bucket: Partition: `live`, or the kind of finished rows.
        part: Partition: the commit that finished the row; `0` for live rows.
    """

    bucket: str
    part: str


_PARTITION = columns_of(_Partition)
# The `partition_by` of every `LifecycleTable`; see the docstring of this module.
PARTITION_COLUMNS = tuple(_PARTITION)

ACTIVE_STRATEGIES = TableSpec(
    "active_strategies",
    columns_of(ActiveContract, texts=TEXTS) | columns_of(UnresolvedLeg, texts=TEXTS) | _PARTITION,
    version=4,
    partition_by=PARTITION_COLUMNS,
    indexed=("added_at", "removed_at"),
    order="removed_at",
    required=("strategy_id", "symbol", "added_at", "priority"),
    description="The legs of active strategies, and those that left them: a row for each stay "
    "of a leg in a strategy.",
    changes="A row changes while its leg is active, and no more once it has left.",
)

POSITION_QUEUE = TableSpec(
    "position_queue",
    columns_of(QueuedPosition) | _PARTITION,
    version=5,
    partition_by=PARTITION_COLUMNS,
    indexed=("request_id", "created_at", "updated_at"),
    order="updated_at",
    key=("request_id",),
    required=(
        *("request_id", "conid", "symbol", "priority", "status", "created_at", "updated_at"),
        *("attempts", "reason"),
    ),
    description="Requests to value a position: live ones in the bucket live, finished ones in "
    "SUCCESS and FAILED.",
    changes="A live row changes with each claim and mark; a finished one no more.",
)

# The columns of `position_updates` that callers fill, in the order of the dataclass.
UPDATE_COLUMNS = columns_of(PositionUpdate)


class _Commit:
    """The columns that each commit fills in `position_updates` and `account_values`.

    Attributes:
        ledger_version: Version of the ledger that added the row. It grows with each commit: the
            order in which rows came, whatever the clocks said. Null for rows of older releases.
        committed_at: When the row was added, by the clock of its writer (UTC); null for rows of
            older releases.
        date: Partition: the UTC date of timestamp.
    """

    ledger_version: int | None
    committed_at: dt.datetime | None
    date: dt.date


_COMMIT = columns_of(_Commit)


class _Ledger:
    """The column that each commit fills in `position_updates` alone.

    Attributes:
        clock_resets: How often, until this commit, a writer's clock was behind a time that the
            ledger had already. Of two rows of a holding the one with more resets is the newer one,
            whatever their times say. Null for rows of older releases, as 0.
    """

    clock_resets: int | None


POSITION_UPDATES = TableSpec(
    "position_updates",
    UPDATE_COLUMNS | _COMMIT | columns_of(_Ledger),
    version=6,
    partition_by=("date",),
    indexed=("update_id", "timestamp", "batch_id", "ledger_version", "clock_resets"),
    order="ledger_version",
    key=("update_id",),
    required=("account", "conid", "symbol", "position", "multiplier", "timestamp"),
    description="The ledger: every value of every holding, each row written once and kept for "
    "good.",
    changes="Rows are added once a second, and with each drain; none changes.",
)


class _Published:
    """The columns of `broker_positions` that its owner adds to a holding.

    Attributes:
        exchange: Listing exchange; empty where the broker leaves it out.
        session_id: The session of gateway_sessions that wrote the row.
        captured_at: When that session took its rows from the account feed.
        published_version: Version of broker_positions that added the row. Of several rows of a
            holding the one with the greatest counts. Null for rows of older releases.
        account_confirmed_at: Until when the broker is known to have confirmed the holdings of the
            account, apart from rows that have a value and no confirmed_at. With completeness, it
            holds for older rows of the account as well. Null until a connection has confirmed it.
        account_followed_until: Until when such messages have confirmed every followed holding of
            the account. It holds for older rows of the account as well.
    """

    exchange: str
    session_id: str
    captured_at: dt.datetime
    published_version: int | None
    account_confirmed_at: dt.datetime | None
    account_followed_until: dt.datetime | None


_OF_HOLDINGS = columns_of(BrokerPosition, besides={"instrument", "greeks"})
_DESCRIBED = {name: column for name, column in _OF_HOLDINGS.items() if column.description}
_BROKER_COLUMNS = _OF_HOLDINGS | UPDATE_COLUMNS | _DESCRIBED | columns_of(_Published)

_INSTRUMENT = tuple(Instrument.__dataclass_fields__)
_WRITER = ("trading_mode", "fencing_token", *columns_of(_Published))

BROKER_POSITIONS = TableSpec(
    "broker_positions",
    {
        name: _BROKER_COLUMNS[name]
        for name in (*_OF_HOLDINGS, *_INSTRUMENT, *_WRITER, *GREEKS_COLUMNS)
    },
    version=6,
    partition_by=("gateway_id",),
    indexed=("confirmed_at", "fencing_token", "published_version"),
    order="published_version",
    key=("gateway_id", "account", "conid", "published_version"),
    description="What the broker last said of each holding; of several rows of a holding the "
    "one added last counts.",
    changes="Rows are added as holdings change; older rows of a holding go away.",
)


CONTRACTS = TableSpec(
    "contracts",
    columns_of(ContractDetails),
    indexed=("conid",),
    order="conid",
    key=("conid",),
    version=5,
    description="The newest details of each contract: multiplier, trading hours, last trading day.",
    changes="A row is replaced when its details are asked for again.",
)

GATEWAY_SESSIONS = TableSpec(
    "gateway_sessions",
    columns_of(GatewaySession) | _PARTITION,
    version=6,
    partition_by=PARTITION_COLUMNS,
    indexed=("started_at",),
    order="started_at",
    key=("session_id",),
    description="Who owned a login, from when to when: the leases of streams and of programs.",
    changes="A live row changes every 4 s; a finished one no more.",
)

RECONCILIATION_BREAKS = TableSpec(
    "reconciliation_breaks",
    columns_of(Break) | _PARTITION,
    partition_by=PARTITION_COLUMNS,
    indexed=("opened_at",),
    order="opened_at",
    key=("break_id",),
    description="Differences between the strategies and the broker, from their opening to "
    "their decision.",
    changes="A row changes until it is decided.",
)

POSITION_CHANGES = TableSpec(
    "position_changes",
    columns_of(PositionChange),
    version=2,
    indexed=("change_id", "seen_at", "account"),
    order="seen_at",
    key=("change_id",),
    description="Each change of a quantity, as the stream saw it.",
    changes="Rows are added as quantities change; none changes.",
)

ACCOUNT_VALUES = TableSpec(
    "account_values",
    columns_of(AccountSummary) | _COMMIT,
    version=5,
    partition_by=("date",),
    indexed=("row_id", "timestamp", "ledger_version"),
    order="ledger_version",
    key=("row_id",),
    required=("account", "timestamp"),
    description="What each account was worth: a row for each change of a value.",
    changes="Rows are added as values change; none changes.",
)

# The tables that hold what happened. Those below are derived from them.
TABLES = (
    ACTIVE_STRATEGIES,
    POSITION_QUEUE,
    POSITION_UPDATES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    RECONCILIATION_BREAKS,
    POSITION_CHANGES,
    ACCOUNT_VALUES,
)


_VALUES = {name: column for name, column in POSITION_UPDATES.described.items() if name != "date"}


class _Priced:
    """The column of `latest_positions` beside the newest row.

    Attributes:
        confirmed_at: From when the age of the price counts (`priced_at` of the program): when it
            arrived, or when the broker last confirmed the value, whichever is later. Null where
            neither is known.
    """

    confirmed_at: dt.datetime | None


LATEST_POSITIONS = TableSpec(
    "latest_positions",
    _VALUES | columns_of(_Priced),
    version=6,
    indexed=("account", "conid"),
    key=("account", "conid"),
    description="The newest row of each holding, and from when the age of its price counts.",
    changes="Replaced by each tick in which a row differs.",
    is_copy=True,
)


class _SessionDay:
    """The columns of `daily_positions` about the day.

    Attributes:
        session_date: Partition: the exchange's trading day.
        closed_at: When the exchange closed on that day.
        age_s: Age of the value at the close: since its source last confirmed it before the close,
            as far as that is known; null for delayed data without a time. Unit: seconds.
    """

    session_date: dt.date
    closed_at: dt.datetime
    age_s: float | None


class _SourcesOfDay:
    """The sources of a row of `daily_positions`.

    Attributes:
        source: Which path wrote the row: STREAM, QUEUE, or FLEX (the broker's statement of the
            day).
        value_source: Where the value came from: TICK (market data), PORTFOLIO (the broker's
            portfolio row), PNL_SINGLE (a profit and loss subscription) or NONE. Of a statement:
            FLEX.
    """

    source: str
    value_source: str


DAILY_POSITIONS = TableSpec(
    "daily_positions",
    columns_of(_SessionDay) | _VALUES | columns_of(_SourcesOfDay),
    version=5,
    partition_by=("session_date",),
    indexed=("account", "conid"),
    key=("session_date", "account", "conid"),
    description="The holdings at the close of each trading day, from own rows and statements. "
    "Computed greeks are left out.",
    changes="A day is replaced when it is recorded again and differs.",
    kept=A_WEEK,
    is_copy=True,
)


DERIVED = (LATEST_POSITIONS, DAILY_POSITIONS)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOMENT = pl.Datetime("us", "UTC")

# The bucket and the part of rows that still change.
LIVE = "live"
LIVE_PART = "0"

# Sorts after every character of an id.
LAST = "\N{TILDE}"

# Returns a number of new ids for a moment, in ascending order.
NewIds = Callable[[datetime, int], list[str]]


def storable(text: str) -> str:
    """Return the text with lone surrogates escaped, since UTF-8 cannot encode them.

    They come from bytes that could not be decoded, for example in an error message.
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def frame_of(spec: TableSpec, rows: Iterable[Any], **given: Sequence[Any]) -> DataFrame:
    """Return a frame with the table's schema; a column that a row lacks is null.

    Args:
        spec: The table.
        rows: Dataclasses, or mappings by the names of columns.
        given: Columns in place of those of the rows.

    Raises:
        InvalidRequestError: A text cannot be stored, since it has half a surrogate pair.
    """
    listed = list(rows)
    if not listed:
        return spec.empty

    are_mappings = isinstance(listed[0], Mapping)
    series = []
    try:
        for name, kind in spec.polars.items():
            if name in given:
                values = given[name]
            elif are_mappings:
                values = [row.get(name) for row in listed]
            else:
                values = [getattr(row, name, None) for row in listed]

            is_time = kind == pl.Datetime
            series.append(moments(values, name) if is_time else Series(name, values, kind))
    except UnicodeEncodeError as error:
        text = error.object[:40]
        raise InvalidRequestError(
            f"A text for {spec.name} is not valid Unicode: {text!r}.",
            remedy=f"Remove the lone surrogate at position {error.start}.",
        ) from None
    return DataFrame(series)


def moment(at: datetime | None) -> Expr:
    """Return a time as an expression.

    `lit` of a `datetime` takes forty times as long, and starts the threads of Polars: a process
    that imported it then could not fork any more.
    """
    ticks = None if at is None else (at - _EPOCH) // _MICROSECOND
    return lit(ticks, Int64).cast(_MOMENT)


def is_ahead(column: str, now: datetime) -> Expr:
    """Return which stored times only a wrong clock can have written; see `domain/clock.py`."""
    return (col(column) > moment(now + SKEW)).fill_null(value=False)


def one_of(column: str, values: Iterable[object]) -> Expr:
    """Return which rows have one of the values.

    A scan compares a plain list with the statistics of each file, one value after the other: 30 ms
    for 80 values.
    """
    return col(column).is_in(Series([*values]).implode())


def moments(times: Iterable[datetime | None], name: str = "") -> Series:
    """Return times as a column; Polars converts a `datetime` ten times as slowly as a number."""
    # As in `moment`, written out: a call for each time takes longer than the rest.
    ticks = [None if at is None else (at - _EPOCH) // _MICROSECOND for at in times]
    return Series(name, ticks, Int64).cast(_MOMENT)


def legs_of(frame: DataFrame) -> list[Leg]:
    """Return the legs in a frame; one without a conid is unresolved."""
    is_described = col.conid.is_null()
    contracts = records_of(ActiveContract, frame.filter(~is_described))
    return [*contracts, *records_of(UnresolvedLeg, frame.filter(is_described))]


def update_rows(
    updates: Sequence[PositionUpdate], ids: Mapping[str, list[Any]] | None = None
) -> DataFrame:
    """Return the rows of updates; `date` is the UTC date of the timestamp.

    Args:
        updates: The updates.
        ids: Columns that replace those of the updates. Copying each update with its new ids instead
            would double the time.
    """
    rows = frame_of(POSITION_UPDATES, updates, **(ids or {}))
    return rows.with_columns(date=col.timestamp.dt.date())


def updates_of(frame: DataFrame) -> list[PositionUpdate]:
    """Return the updates in a frame."""
    return records_of(PositionUpdate, frame)


def rows_of_positions(
    positions: Iterable[BrokerPosition], session: GatewaySession | None
) -> DataFrame:
    """Return the rows of broker positions.

    Args:
        positions: The holdings.
        session: The lease of their writer; None: they are compared, and not written.
    """
    listed = list(positions)
    modes = [trading_mode_of(position.account) for position in listed]
    given = {
        **{name: [getattr(row.instrument, name) for row in listed] for name in _INSTRUMENT},
        **{name: [getattr(row.greeks, name, None) for row in listed] for name in GREEKS_COLUMNS},
        "trading_mode": modes,
    }

    if session is not None:
        given["session_id"] = [session.session_id] * len(listed)
        given["fencing_token"] = [session.fencing_token] * len(listed)
    return frame_of(BROKER_POSITIONS, listed, **given)


def broker_positions_of(frame: DataFrame) -> list[BrokerPosition]:
    """Return the broker positions in a frame."""
    # A row has all computed greeks or none.
    greeks = [
        None if values.delta is None else values for values in records_of(HoldingGreeks, frame)
    ]

    is_followed = col.followed.fill_null(value=False)
    return records_of(
        BrokerPosition,
        frame.with_columns(is_followed),
        instrument=records_of(Instrument, frame),
        greeks=greeks,
    )


Record = TypeVar("Record")

# The hints and docstrings of a class are read once: that takes a millisecond.
_columns_of_record: Callable[..., Mapping[str, StoredColumn]] = cache(columns_of)


def records_of(kind: type[Record], frame: DataFrame, **parts: list[Any]) -> list[Record]:
    """Return the rows of a frame as records of a dataclass, in their order.

    A choice that a later release added, which this one does not know, stays a text.

    Args:
        parts: The values of fields that are no columns, one for each row, by the name of the field.
    """
    columns = _columns_of_record(kind, frozenset(parts))
    values = {name: frame[name].to_list() for name in columns}
    for name, column in columns.items():
        if column.choices:
            members = {member.value: member for member in column.choices}
            values[name] = [members.get(text, text) for text in values[name]]

    values |= parts
    rows = zip(*values.values(), strict=True)
    if getattr(kind, "__match_args__", ()) == tuple(values):  # by position takes half the time
        return [kind(*row) for row in rows]

    return [kind(**dict(zip(values, row, strict=True))) for row in rows]


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, as a row."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def new_ids(now: datetime, count: int) -> list[str]:
    """Return `count` ascending UUIDs of version 7 (RFC 9562).

    They sort by time, so the ids of one file span a short range and a look-up by id reads few
    files.
    """
    # Ticks of `_uuid`: after 4,096 ids they go on in the next millisecond.
    first = _milliseconds(now) << 12
    return [
        _uuid(first + number, int.from_bytes(os.urandom(8)), version=7) for number in range(count)
    ]


def id_prefix(at: datetime) -> str:
    """Return a text that sorts before the ids of this moment and later, and after earlier ones.

    >>> id_prefix(datetime(2026, 1, 2, tzinfo=UTC))
    '019b7c01-0400'
    """
    return _uuid(_milliseconds(at) << 12, 0, version=7)[:13]


def content_id(at: datetime, *content: object) -> str:
    """Return the UUID (version 8) of a content at a moment; equal for equal content.

    Whoever writes the same row again, after a kill or a lost answer, gives it the same id.
    """
    digest = int.from_bytes(blake2b(repr(content).encode(), digest_size=16).digest())
    sequence = digest >> 64 & 0xFFF
    return _uuid(_milliseconds(at) << 12 | sequence, digest, version=8)


def part_named(text: str) -> str:
    """Return the name of the part for a text, such as a gateway id: its hash in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _milliseconds(at: datetime) -> int:
    return max(0, (at - _EPOCH) // timedelta(milliseconds=1))


def _uuid(ticks: int, random: int, *, version: int) -> str:
    """Return a UUID that sorts by its ticks: a time in milliseconds, and a sequence within one.

    Args:
        ticks: The milliseconds since 1970, shifted by the 12 bits of the sequence.
        random: Of it the last 62 bits are taken.
        version: 7 for a random id, 8 for one of a content (RFC 9562).
    """
    # 48 bits of milliseconds, version, 12 bits of sequence, variant, 62 random bits.
    milliseconds = ticks >> 12 & (1 << 48) - 1
    sequence = ticks & 0xFFF
    high = milliseconds << 16 | version << 12 | sequence
    low = 0b10 << 62 | random & (1 << 62) - 1
    return str(UUID(int=high << 64 | low))
