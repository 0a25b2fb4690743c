"""Values to rows and back: the one place that knows how a dataclass lies in a table."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import polars as pl

from position_sync_dagster.domain.broker import BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.request import QueuedPosition, QueueStatus, Reason
from position_sync_dagster.domain.session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.update import (
    PositionUpdate,
    PriceKind,
    Source,
    TradingMode,
    ValueOrigin,
    trading_mode_of,
)
from position_sync_dagster.errors import InvalidRequestError
from position_sync_dagster.lake.schemas import (
    ACTIVE_STRATEGIES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    LIVE,
    LIVE_PART,
    POSITION_QUEUE,
    POSITION_UPDATES,
    TableSpec,
)

_INSTRUMENT = tuple(Instrument.__dataclass_fields__)
_BROKER = tuple(f for f in BrokerPosition.__dataclass_fields__ if f != "instrument")
_SPLIT = {"bucket": LIVE, "part": LIVE_PART}


def frame_of(spec: TableSpec, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Give a frame of the table's schema; a column that a row lacks is null.

    Raises:
        InvalidRequestError: A text cannot be stored, since it holds half a surrogate pair.
    """
    listed = list(rows)
    columns = {name: [row.get(name) for row in listed] for name in spec.columns}
    try:
        return pl.DataFrame(columns, schema=spec.polars)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"A text for {spec.name} is no Unicode: {error.object[:40]!r}.",
            remedy="Take out the lone surrogate at position " + str(error.start) + ".",
        ) from None


def request_rows(requests: Iterable[QueuedPosition]) -> pl.DataFrame:
    """Give the live rows of requests."""
    return frame_of(POSITION_QUEUE, (_fields(request) | _SPLIT for request in requests))


def requests_of(frame: pl.DataFrame) -> list[QueuedPosition]:
    """Read requests."""
    plain = frame.drop("bucket", "part", strict=False)
    return [
        QueuedPosition(
            **row | {"status": QueueStatus(row["status"]), "reason": Reason(row["reason"])}
        )
        for row in plain.iter_rows(named=True)
    ]


def leg_rows(legs: Iterable[ActiveContract]) -> pl.DataFrame:
    """Give the live rows of legs."""
    return frame_of(ACTIVE_STRATEGIES, (_fields(leg) | _SPLIT for leg in legs))


def legs_of(frame: pl.DataFrame) -> list[ActiveContract]:
    """Read legs."""
    plain = frame.drop("bucket", "part", strict=False)
    return [
        ActiveContract(**row | {"right": Right(row["right"])})
        for row in plain.iter_rows(named=True)
    ]


def update_rows(updates: Sequence[PositionUpdate]) -> pl.DataFrame:
    """Give the rows of updates; `date` is the UTC date of their timestamp."""
    frame = frame_of(POSITION_UPDATES, (_fields(update) for update in updates))
    return frame.with_columns(date=pl.col("timestamp").dt.date())


def updates_of(frame: pl.DataFrame) -> list[PositionUpdate]:
    """Read updates; a text that is not known is None, so that one row never hides the others."""
    return [
        PositionUpdate(
            **row
            | {
                "right": _known(Right, row["right"]),
                "price_kind": _known(PriceKind, row["price_kind"]),
                "source": Source(row["source"]),
                "value_source": _known(ValueOrigin, row["value_source"]) or ValueOrigin.NONE,
                "trading_mode": _known(TradingMode, row["trading_mode"]),
            }
        )
        for row in frame.drop("date", strict=False).iter_rows(named=True)
    ]


def broker_rows(
    positions: Iterable[BrokerPosition], session: GatewaySession | None
) -> pl.DataFrame:
    """Give the rows of broker positions, with the session that wrote them."""
    owner = {
        "session_id": session.session_id if session else None,
        "fencing_token": session.fencing_token if session else None,
    }
    return frame_of(
        BROKER_POSITIONS,
        (
            {name: getattr(p, name) for name in _BROKER}
            | _fields(p.instrument)
            | {"trading_mode": trading_mode_of(p.account)}
            | owner
            for p in positions
        ),
    )


def broker_positions_of(frame: pl.DataFrame) -> list[BrokerPosition]:
    """Read broker positions."""
    return [
        BrokerPosition(
            instrument=Instrument(
                **{name: row[name] for name in _INSTRUMENT} | {"right": _maybe(Right, row["right"])}
            ),
            **{name: row[name] for name in _BROKER}
            | {
                "completeness": Completeness(row["completeness"]),
                "value_source": ValueOrigin(row["value_source"]),
            },
        )
        for row in frame.iter_rows(named=True)
    ]


def contract_rows(details: Iterable[ContractDetails]) -> pl.DataFrame:
    """Give the rows of contract details."""
    return frame_of(CONTRACTS, (_fields(one) for one in details))


def contracts_of(frame: pl.DataFrame) -> list[ContractDetails]:
    """Read contract details."""
    return [
        ContractDetails(**row | {"right": _maybe(Right, row["right"])})
        for row in frame.iter_rows(named=True)
    ]


def session_rows(sessions: Iterable[GatewaySession]) -> pl.DataFrame:
    """Give the live rows of sessions."""
    return frame_of(GATEWAY_SESSIONS, (_fields(session) | _SPLIT for session in sessions))


def sessions_of(frame: pl.DataFrame) -> list[GatewaySession]:
    """Read sessions."""
    plain = frame.drop("bucket", "part", strict=False)
    return [
        GatewaySession(**row | {"owner": Owner(row["owner"]), "state": SessionState(row["state"])})
        for row in plain.iter_rows(named=True)
    ]


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _known(kind: type[StrEnum], text: str | None) -> Any:
    return kind(text) if text is not None and text in kind.__members__ else None


def _maybe(kind: type[Any], text: str | None) -> Any:
    return None if text is None else kind(text)
