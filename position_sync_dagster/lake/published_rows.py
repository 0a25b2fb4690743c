"""The rows of `broker_positions`: of a holding with several, the one that was added last counts."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.lake.schema.codec import broker_positions_of, broker_rows, moment
from position_sync_dagster.lake.schema.tables import BROKER_POSITIONS

FOLD_FILES = 24
"""So many commits of changes are folded into one file: reading costs some time for each."""

_KEY = ["account", "conid"]
_ORDER = "published_version"

DECIDING = (*_KEY, _ORDER, "completeness", "confirmed_at", "account_confirmed_at")
"""The columns that decide which row of a holding counts, and what is known of its account."""


def rows_to_publish(
    gateway_id: str,
    positions: list[BrokerPosition],
    session: GatewaySession | None,
    captured_at: datetime | None,
    accounts_confirmed_at: Mapping[str, datetime | None],
) -> pl.DataFrame:
    """Return holdings as rows of a gateway, with what is known of their accounts.

    Args:
        gateway_id: The gateway.
        positions: Its holdings; of several with one account and conid, the last.
        session: The lease of the writer.
        captured_at: When the holdings were taken from the account feed.
        accounts_confirmed_at: Until when the broker has confirmed each account.
    """
    rows = broker_rows(positions, session).with_columns(
        gateway_id=pl.lit(gateway_id),
        captured_at=moment(captured_at),
        account_confirmed_at=pl.col("account").replace_strict(
            accounts_confirmed_at,
            default=None,
            return_dtype=BROKER_POSITIONS.polars["account_confirmed_at"],
        ),
    )
    return rows.unique(["account", "conid"], keep="last", maintain_order=True)


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the row of each holding that was added last.

    Args:
        rows: Rows of one gateway.
    """
    return rows.sort(_ORDER, maintain_order=True).unique(_KEY, keep="last", maintain_order=True)


def with_account_facts(rows: pl.DataFrame) -> pl.DataFrame:
    """Bring what the newest row of each account says of all its holdings into the older rows.

    A message that confirms an account changes none of its holdings: it is stored once.

    Args:
        rows: The newest row of each holding of one gateway.
    """
    newest_of_account = rows.sort(_ORDER).unique("account", keep="last")
    facts = newest_of_account.select(
        "account",
        _said_in=_ORDER,
        _completeness="completeness",
        _confirmed_at="account_confirmed_at",
    )
    said_in, order = pl.col("_said_in"), pl.col(_ORDER).fill_null(-1)
    confirmed_at = pl.max_horizontal("confirmed_at", "_confirmed_at")
    return rows.join(facts, on="account", how="left", maintain_order="left").select(
        pl.when(said_in > order).then("_completeness").otherwise("completeness").alias(name)
        if name == "completeness"
        else pl.when(said_in >= order).then(confirmed_at).otherwise("confirmed_at").alias(name)
        if name == "confirmed_at"
        else name
        for name in rows.columns
    )


def is_fragmented(files: pl.DataFrame, added: int) -> bool:
    """Return whether changes should be folded into one file with all other rows.

    So a reader never reads more than twice the rows that count.

    Args:
        files: The data files of one gateway.
        added: The number of rows that come now.
    """
    rows = files.get_column("num_records")
    largest = int(str(rows.max() or 0))
    changes = int(rows.sum()) - largest + added
    return files.height >= FOLD_FILES or changes > max(largest, FOLD_FILES)


def last_time(times: pl.Series, now: datetime) -> datetime | None:
    """Return the last of the times; those in the future count only where there are no others."""
    known = times.drop_nulls()
    past = known.filter(known <= now + SKEW)
    found = past.max() if len(past) else known.max()
    return found if isinstance(found, datetime) else None


class CachedRows(NamedTuple):
    """What was read of a gateway's rows, to read only what is added later.

    Attributes:
        files: The paths of the data files that were read.
        frame: The newest row of each holding, as it is stored.
        stated: The same, with what is known of their accounts, in the order of account and conid.
    """

    files: frozenset[str]
    frame: pl.DataFrame
    stated: pl.DataFrame

    @property
    def through(self) -> int | None:
        """The greatest `published_version` of the rows."""
        greatest = self.frame.get_column(_ORDER).max()
        return None if greatest is None else int(str(greatest))

    def covers(self, files: frozenset[str]) -> bool:
        """Return whether these files hold what was read, and perhaps more."""
        return self.files <= files and self.through is not None


class CachedValues(NamedTuple):
    """The rows as values, to make only those anew that changed.

    Attributes:
        rows: The values, by account and conid.
        versions: The `published_version` of each of them.
    """

    rows: Mapping[Key, BrokerPosition]
    versions: Mapping[Key, int | None]


def read_rows(files: frozenset[str], found: pl.DataFrame, before: CachedRows | None) -> CachedRows:
    """Return the rows of a gateway.

    Args:
        files: The data files of the gateway.
        found: The rows of the files that `before` has not read; of all files without it.
        before: What was read before, if these files hold it still.
    """
    frame = found if before is None else pl.concat([before.frame, found])
    frame = newest(frame).sort(_KEY)
    return CachedRows(files, frame, with_account_facts(frame))


def values_of(stated: pl.DataFrame, before: CachedValues | None) -> CachedValues:
    """Return rows as values, and make only those that changed since `before`, of the same table."""
    keys = list(zip(stated["account"], stated["conid"], strict=True))
    versions = dict(zip(keys, stated[_ORDER], strict=True))
    if before is None:
        return CachedValues(dict(zip(keys, broker_positions_of(stated), strict=True)), versions)
    facts = zip(stated["confirmed_at"], stated["completeness"], strict=True)
    changed = [
        (held := before.rows.get(key)) is None
        or version is None
        or before.versions[key] != version
        or held.confirmed_at != confirmed_at
        or held.completeness != completeness
        for (key, version), (confirmed_at, completeness) in zip(
            versions.items(), facts, strict=True
        )
    ]
    made = broker_positions_of(stated.filter(pl.Series(changed, dtype=pl.Boolean)))
    known = dict(before.rows) | {row.key: row for row in made}
    return CachedValues({key: known[key] for key in keys}, versions)
