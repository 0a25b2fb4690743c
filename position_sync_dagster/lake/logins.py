"""What the broker last said of the holdings of the logins."""

from collections.abc import Sequence

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings


def broker_rows(lake: Lake, login: Settings, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the rows of `broker_positions` of one login, of the accounts that it has now.

    An account that another login has by now stays in its rows until it connects again.

    Args:
        columns: The columns to read, `account` among them; all by default.
    """
    rows = lake.broker_positions.sync.rows(login.gateway_id, columns)
    return rows if login.accounts is None else rows.filter(pl.col("account").is_in(login.accounts))


def all_broker_rows(
    lake: Lake, settings: Settings, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the rows of all logins, in the order of the logins, accounts and conids.

    Args:
        columns: As of `broker_rows`.
    """
    return pl.concat([broker_rows(lake, login, columns) for login in settings.logins])


def rows_of_logins(rows: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return the rows of the accounts that a login has now.

    What a login held that the gateways file no longer names is history, and in no sum of today.
    """
    if settings.gateways_file is None:
        return rows
    accounts = [account for login in settings.logins for account in login.accounts or ()]
    return rows.filter(pl.col("account").is_in(accounts))


def all_broker_holdings(lake: Lake, settings: Settings) -> list[BrokerPosition]:
    """Return the rows of all logins as values; those that did not change are the same objects."""
    return [
        holding
        for login in settings.logins
        for holding in lake.broker_positions.sync.read(login.gateway_id)
        if login.accounts is None or holding.account in login.accounts
    ]
