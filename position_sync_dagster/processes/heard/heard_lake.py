"""The table `heard_messages`: how often a gateway said something on one day."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Unpack

from position_sync_dagster.lake.lake import Lake, LakeOptions
from position_sync_dagster.lake.records import RecordsTable
from position_sync_dagster.lake.schema import TableSpec, columns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardCount:
    """How often a gateway said something, in words without account data.

    Attributes:
        day: The day on which it was heard (UTC).
        gateway_id: The login, as in gateway_sessions.
        server_version: The version of the protocol that was negotiated; null before a log-in.
        kind: What is counted: message, length (the number of its fields), form (of one field),
            code, text (of a code), tick (its type), tag (of an account value), or order (what
            followed what).
        name: What was said; a number or a word that IB has not published is …
        count: How often since the row before.
        is_new: Whether neither recordings nor the simulator of this release know it.
        heard_at: When the row was made (UTC).
    """

    day: date
    gateway_id: str
    server_version: int | None
    kind: str
    name: str
    count: int
    is_new: bool
    heard_at: datetime


HEARD_MESSAGES = TableSpec(
    "heard_messages",
    columns_of(HeardCount),
    indexed=("heard_at", "day"),
    order="heard_at",
    key=("gateway_id", "heard_at", "kind", "name"),
    description="What each gateway said, by kind and day, without account data: what is new in it "
    "is worth a report.",
    changes="Rows are added each half hour, and as a stream ends; none changes.",
)


class HeardLake(Lake):
    """The lake of the core, and what gateways said in the same folder."""

    specs = (*Lake.specs, HEARD_MESSAGES)

    def __init__(self, path: str | Path = "data/lake", **options: Unpack[LakeOptions]) -> None:
        super().__init__(path, **options)
        self.heard_messages = RecordsTable(self.open_table(HEARD_MESSAGES), HeardCount)
