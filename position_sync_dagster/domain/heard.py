"""How often a gateway said something on one day: a row of `heard_messages`."""

from dataclasses import dataclass
from datetime import date, datetime


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
