"""Ids that sort by time, and literals that are safe in a predicate."""

import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from position_sync_dagster.errors import InvalidRequestError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS = (1 << 60) - 1
"""48 bits of milliseconds, and 12 of a sequence."""
_VARIANT = {f"{digit:x}": f"{digit & 3 | 8:x}" for digit in range(16)}
_SAFE = re.compile(r"[A-Za-z0-9_.:\-]{1,128}\Z")

NewIds = Callable[[datetime, int], list[str]]
"""Returns a number of new ids for a moment, in ascending order."""


def new_ids(now: datetime, count: int) -> list[str]:
    """Return `count` ascending UUIDs of version 7 (RFC 9562).

    They sort by time, so the ids of one file span a short range and a look-up by id reads few
    files.
    """
    first = _milliseconds(now) << 12
    ticks = [f"{first + step & _TICKS:015x}" for step in range(count)]
    noise = os.urandom(8 * count).hex()
    random = [noise[start : start + 16] for start in range(0, 16 * count, 16)]
    return [
        f"{t[:8]}-{t[8:12]}-7{t[12:]}-{_VARIANT[r[0]]}{r[1:4]}-{r[4:]}"
        for t, r in zip(ticks, random, strict=True)
    ]


def id_prefix(at: datetime) -> str:
    """Return a text that sorts before the ids of this moment and later, and after earlier ones.

    >>> id_prefix(datetime(2026, 1, 2, tzinfo=UTC))
    '019b7c01-0400'
    """
    return _uuid(_milliseconds(at) << 12, 0, 7)[:13]


def new_part(now: datetime) -> str:
    """Return the name of a new part: unique, sorted by time, hexadecimal digits and dashes."""
    return new_ids(now, 1)[0]


def content_id(at: datetime, *content: object) -> str:
    """Return the UUID (version 8) of a content at a moment; equal for equal content."""
    digest = int.from_bytes(blake2b(repr(content).encode(), digest_size=16).digest())
    ticks = (_milliseconds(at) << 12) | (digest >> 64 & 0xFFF)
    return _uuid(ticks, digest, 8)


def id_literals(ids: Iterable[str]) -> str:
    """Return ids as the inside of an SQL `IN (…)`.

    Raises:
        InvalidRequestError: A text is not an id: it has other characters than letters, digits
            and `_.:-`.
    """
    checked = list(ids)
    for text in checked:
        if not _SAFE.match(text):
            raise InvalidRequestError(
                f"{text[:80]!r} is no id of a request.",
                remedy="Give ids as `insert` returned them.",
            )
    return ",".join(f"'{text}'" for text in checked)


def is_id(text: str) -> bool:
    """Return whether a text may be an id."""
    return bool(_SAFE.match(text))


def text_literal(text: str) -> str:
    """Return any text as an SQL literal; the quote is the only special character there.

    >>> text_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def literal(value: object) -> str:
    """Return a value of a partition or of a file's statistics as an SQL literal.

    >>> literal(datetime(2026, 1, 2, tzinfo=UTC))
    "'2026-01-02T00:00:00.000000+00:00'"
    >>> literal(7)
    '7'
    """
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return text_literal(value.isoformat(timespec="microseconds"))
    return text_literal(str(value))


def _milliseconds(at: datetime) -> int:
    return max(0, (at - _EPOCH) // timedelta(milliseconds=1))


def _uuid(ticks: int, random: int, version: int) -> str:
    # 48 bits of milliseconds, version, 12 bits of sequence, variant, 62 random bits.
    high = (ticks >> 12 & (1 << 48) - 1) << 16 | version << 12 | (ticks & 0xFFF)
    digits = f"{high << 64 | 0b10 << 62 | random & (1 << 62) - 1:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
