"""Predicates over partitions and ids, and values as SQL literals.

The rows of a lifecycle table change at first and are finished later: live rows lie in the bucket
`live`, in the part `0` or in several parts. Finished rows lie in a bucket of their own kind, in a
new part for each commit that finished them. Live and finished rows therefore never share a file,
and the predicate of a change names only partitions.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256

import polars as pl

from position_sync_dagster.errors import InvalidRequestError
from position_sync_dagster.lake.schema.ids import is_id

# The bucket of rows that still change.
LIVE = "live"

# The part of live rows; finished rows carry the part of the commit that finished them.
LIVE_PART = "0"

# The two columns of live rows, for `frame.with_columns(*LIVE_COLUMNS, …)`.
LIVE_COLUMNS = (pl.lit(LIVE).alias("bucket"), pl.lit(LIVE_PART).alias("part"))

# Maximum number of ids or parts in one predicate; for more, the predicate is a range.
MOST_TERMS = 50

# The predicate of live rows.
IS_LIVE = f"bucket = '{LIVE}'"


def is_finished(predicate: str = "true") -> str:
    """Return the predicate of finished rows that also match another predicate."""
    return f"bucket <> '{LIVE}' AND ({predicate})"


def in_bucket(bucket: str) -> str:
    """Return the predicate of the rows of one bucket."""
    return f"bucket = '{bucket}'"


def among(column: str, literals: Sequence[str]) -> str:
    """Return the predicate of rows with one of some values, or of all rows in the range of many.

    A predicate of very many terms crashes the process (Delta's engine evaluates it recursively).

    Args:
        column: The column.
        literals: The values as SQL literals, in the order of the column.
    """
    if not literals:
        return "false"
    if len(literals) > MOST_TERMS:
        return f"{column} >= {literals[0]} AND {column} <= {literals[-1]}"
    return f"{column} IN ({', '.join(literals)})"


def around_parts(bucket: str, parts: Iterable[str]) -> str:
    """Return the predicate of some parts of one bucket, in parentheses.

    If they are many, those between the first and the last are included.
    """
    names = [f"'{part}'" for part in sorted(set(parts))]
    return f"({in_bucket(bucket)} AND {among('part', names)})"


def in_parts(bucket: str, parts: Iterable[str]) -> str:
    """Return the predicate of the rows of some parts of one bucket, in parentheses."""
    names = ",".join(f"'{part}'" for part in parts)
    return f"({in_bucket(bucket)} AND part IN ({names}))"


def part_named(text: str) -> str:
    """Return the name of the part for a text, such as a gateway id: its hash in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def id_literals(ids: Iterable[str]) -> str:
    """Return ids as the inside of an SQL `IN (…)`.

    Raises:
        InvalidRequestError: A text is not an id: it has other characters than letters, digits
            and `_.:-`.
    """
    checked = list(ids)
    for text in checked:
        if not is_id(text):
            raise InvalidRequestError(
                f"{text[:80]!r} is no id of a request.",
                remedy="Give ids as `insert` returned them.",
            )
    return ",".join(f"'{text}'" for text in checked)


def ids_beginning_with(column: str, prefix: str) -> str:
    """Return the predicate of the rows whose id begins with a prefix.

    Raises:
        InvalidRequestError: The prefix is no id; see `is_id`.
    """
    end = prefix + "\N{TILDE}"  # sorts after every character of an id
    return f"{column} >= {id_literals([prefix])} AND {column} <= '{end}'"


def text_literal(text: str) -> str:
    """Return any text as an SQL literal; the quote is the only special character there.

    >>> text_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def literal(value: object) -> str:
    """Return a value of a partition or of a file's statistics as an SQL literal.

    >>> from datetime import UTC
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
