"""The lines of a recording: its header, messages, and the beginnings and ends of connections."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from ib_gateway_simulator.protocol.fields import Fields

FORMAT = "ibrec"
VERSION = 1

Side = Literal["client", "gateway"]
Ender = Literal["client", "gateway", "recorder"]
Quantities = Literal["replaced", "kept"]

# The names of the two messages of the handshake, which have no id.
OFFER = "versionOffer"
GREETING = "serverVersion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line: what the file is, when it began, and how amounts were written."""

    started_at: datetime
    quantities: Quantities

    def line(self) -> str:
        """Return the header as a line of JSON."""
        stamp = self.started_at.astimezone(UTC).isoformat(timespec="milliseconds")
        return _dumped(
            {
                "format": FORMAT,
                "version": VERSION,
                "started_at": stamp.replace("+00:00", "Z"),
                "quantities": self.quantities,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message; `fields` is None where its content was withheld.

    Attributes:
        at_s: Seconds since the recording began.
        connection: The number of its connection, from 1.
    """

    at_s: float
    connection: int
    sender: Side
    name: str
    fields: Fields | None

    def line(self) -> str:
        """Return the message as a line of JSON."""
        return _dumped(
            {
                "t": round(self.at_s, 3),
                "connection": self.connection,
                "from": self.sender,
                "name": self.name,
                "fields": None if self.fields is None else list(self.fields),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A client connected."""

    at_s: float
    connection: int

    def line(self) -> str:
        """Return the event as a line of JSON."""
        return _dumped({"t": round(self.at_s, 3), "connection": self.connection, "event": "opened"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A connection ended; `by` says who ended it."""

    at_s: float
    connection: int
    by: Ender

    def line(self) -> str:
        """Return the event as a line of JSON."""
        event = {"t": round(self.at_s, 3), "connection": self.connection, "event": "closed"}
        return _dumped(event | {"by": self.by})


Entry = Message | Opened | Closed


def header_of(record: Any) -> Header:
    """Read a header out of a decoded line.

    Raises:
        ValueError: It is no header, or one of another version.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("this is no recording: the first line has no format ibrec")
    if record.get("version") != VERSION:
        raise ValueError(
            f"the format has version {record.get('version')!r}; this program reads {VERSION}"
        )
    if record.get("quantities") not in get_args(Quantities):
        raise ValueError("quantities is not replaced or kept")
    try:
        started_at = datetime.fromisoformat(record["started_at"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("started_at is not a time") from None
    if started_at.tzinfo is None:
        raise ValueError("started_at has no time zone")
    return Header(started_at=started_at, quantities=record["quantities"])


def entry_of(record: Any) -> Entry:
    """Read an entry out of a decoded line.

    Raises:
        ValueError: It is no entry.
    """
    if not isinstance(record, dict):
        raise ValueError("the line is no JSON object")
    at_s = record.get("t")
    connection = record.get("connection")
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s < 1e9:
        raise ValueError("t is not a time in seconds")
    if isinstance(connection, bool) or not isinstance(connection, int) or connection < 1:
        raise ValueError("connection is not a number from 1")

    place: dict[str, Any] = {"at_s": float(at_s), "connection": connection}
    if "event" in record:
        if record["event"] == "opened":
            return Opened(**place)
        if record["event"] == "closed" and record.get("by") in get_args(Ender):
            return Closed(**place, by=record["by"])
        raise ValueError("event is not opened or closed")

    sender: Any = record.get("from")
    name = record.get("name")
    fields = record.get("fields")
    if sender not in get_args(Side) or not isinstance(name, str):
        raise ValueError("from is not client or gateway, or name is missing")
    if fields is not None and not (
        isinstance(fields, list) and fields and all(isinstance(field, str) for field in fields)
    ):
        raise ValueError("fields is not a list of texts")
    return Message(**place, sender=sender, name=name, fields=None if fields is None else (*fields,))


def _dumped(record: dict[str, object]) -> str:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True)
