"""Ids that sort by time, and the names of the partitions of tables whose rows change.

Rows of such a table lie in the bucket `live` until they are finished, in the part `0` or in several
parts. Finished rows lie in a bucket of their own kind, in a new part for each commit that finished
them.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256

import polars as pl

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The bucket and the part of rows that still change.
LIVE, LIVE_PART = "live", "0"

# The two columns of live rows, for `frame.with_columns(*LIVE_COLUMNS, …)`.
LIVE_COLUMNS = (pl.lit(LIVE).alias("bucket"), pl.lit(LIVE_PART).alias("part"))

# Sorts after every character of an id.
LAST = "\N{TILDE}"

# Returns a number of new ids for a moment, in ascending order.
NewIds = Callable[[datetime, int], list[str]]


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
