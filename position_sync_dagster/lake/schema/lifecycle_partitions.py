"""The partitions of a table whose rows change at first and are finished later.

Live rows lie in the bucket `live`, in the part `0` or in several parts. Finished rows lie in a
bucket of their own kind, in a new part for each commit that finished them. Live and
finished rows therefore never share a file, and the predicate of a change names only partitions.
Everything that depends on these two columns is in this module.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

import polars as pl

LIVE = "live"
"""The bucket of rows that still change."""

LIVE_PART = "0"
"""The part of live rows; finished rows carry the part of the commit that finished them."""

LIVE_PARTITION: MappingProxyType[str, str] = MappingProxyType({"bucket": LIVE, "part": LIVE_PART})
"""The two columns of a live row, for rows that are built as dictionaries."""

LIVE_COLUMNS = (pl.lit(LIVE).alias("bucket"), pl.lit(LIVE_PART).alias("part"))
"""The two columns of live rows, for `frame.with_columns(*LIVE_COLUMNS, …)`."""

MOST_TERMS = 50
"""Maximum number of ids or parts in one predicate; for more, the predicate is a range."""

IS_LIVE = f"bucket = '{LIVE}'"
"""The predicate of live rows."""


def is_finished(predicate: str = "true") -> str:
    """Return the predicate of finished rows that also match another predicate."""
    return f"bucket <> '{LIVE}' AND ({predicate})"


def in_bucket(bucket: str) -> str:
    """Return the predicate of the rows of one bucket."""
    return f"bucket = '{bucket}'"


@dataclass(frozen=True, slots=True, order=True)
class PartRange:
    """All parts of a bucket from the first to the last name, both included."""

    bucket: str
    first: str
    last: str

    @property
    def predicate(self) -> str:
        """The predicate of the rows of these parts, in parentheses."""
        within = f"part >= '{self.first}' AND part <= '{self.last}'"
        return f"({in_bucket(self.bucket)} AND {within})"


def ranges_of(bucket: str, parts: Iterable[str]) -> tuple[PartRange, ...]:
    """Return ranges that hold these parts: one range for each, or a single range if they are many.

    A predicate of very many terms crashes the process (Delta's engine evaluates it recursively).
    """
    names = sorted(set(parts))
    if len(names) > MOST_TERMS:
        return (PartRange(bucket, names[0], names[-1]),)
    return tuple(PartRange(bucket, name, name) for name in names)


def in_parts(bucket: str, parts: Iterable[str]) -> str:
    """Return the predicate of the rows of some parts of one bucket."""
    names = ",".join(f"'{part}'" for part in parts)
    return f"{in_bucket(bucket)} AND part IN ({names})"


def in_part(bucket: str, part: str) -> str:
    """Return the predicate of the rows of one part, in parentheses."""
    return f"({in_bucket(bucket)} AND part = '{part}')"


def bucket_column(bucket: str) -> pl.Expr:
    """Return the column `bucket` of rows that are finished; the commit sets their part."""
    return pl.lit(bucket).alias("bucket")


def part_named(text: str) -> str:
    """Return the name of the part for a text, such as a gateway id: its hash in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
