"""The accounts that the tables know."""

import polars as pl

from position_sync_dagster.lake.lake import Lake


def known_accounts(lake: Lake) -> set[str]:
    """Return the accounts of the broker's holdings, of the ledger and of the gateway's values."""
    held = lake.broker_positions.table.rows(columns=["account"])
    own = lake.updates.sync.latest().select("account")
    valued = lake.account_values.sync.latest().select("account")
    return set(pl.concat([held, own, valued]).get_column("account").unique()) - {""}
