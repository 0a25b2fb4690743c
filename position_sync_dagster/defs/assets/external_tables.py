"""What the assets are made from and no run materializes: the gateway, and the tables of its owner.

The stream observes them, and a refresh while no stream lives.
"""

import inspect
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import (
    OWNERS,
    POSITIONS,
    TAGS,
    code_reference,
    table_metadata,
)
from position_sync_dagster.defs.run_history import DERIVE_JOB, STREAM_JOB
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.schema.tables import (
    ACCOUNT_VALUES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    RECONCILIATION_BREAKS,
)

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake

GATEWAY = "gateway"


def external_table(
    spec: TableSpec, *, deps: list[str], description: str, job: str = STREAM_JOB
) -> dg.AssetSpec:
    """Return the asset of a table that no run materializes."""
    frame = inspect.currentframe()
    line = frame.f_back.f_lineno if frame and frame.f_back else 1
    return dg.AssetSpec(
        spec.name,
        deps=deps,
        group_name=POSITIONS,
        owners=OWNERS,
        kinds={"deltalake"},
        tags=TAGS,
        description=description,
        metadata={
            **table_metadata(spec, job=job),
            **code_reference(__file__, line),
        },
    )


@dg.definitions
def external_assets() -> dg.Definitions:
    """Define the gateway and the tables that its owner writes."""
    gateway = dg.AssetSpec(
        GATEWAY,
        group_name=POSITIONS,
        owners=OWNERS,
        kinds={"source"},
        tags=TAGS,
        metadata={
            "written_by": "Interactive Brokers",
            **code_reference(__file__, 1),
        },
        description="""
TWS or IB Gateway, or the simulator: where all positions and prices come from.

- **Written by** Interactive Brokers; this project only reads.
- **How to read it:** an observation says whether the stream sees the gateway, and since when. The
  check `a_stream_watches` of `position_updates` turns yellow while it does not.
""",
    )
    broker_positions = external_table(
        BROKER_POSITIONS,
        deps=[GATEWAY],
        description="""
Every holding as the broker last reported it, with the broker's own value.

- **Written by** the owner of the login: the stream when the account feed changed, or a refresh by
  `position_queue` while no stream lives.
- **How to read it:** one row per gateway, account and contract. The later of `confirmed_at` and the
  newest `account_confirmed_at` of its account says until when the broker confirmed the values,
  `completeness` how much of the account the last download covered.
""",
    )
    contracts = external_table(
        CONTRACTS,
        deps=[GATEWAY],
        description="""
Contract details, stored when a contract is first seen.

- **Written by** the stream.
- **How to read it:** one row per contract id: exchange, multiplier, price magnifier, trading hours
  and expiry, as the broker names them.
""",
    )
    sessions = external_table(
        GATEWAY_SESSIONS,
        deps=[GATEWAY],
        description="""
The lease of each owner of a login: which process may write, and until when.

- **Written by** the stream with each heartbeat, and by a refresh.
- **How to read it:** one row per session, from STARTING over LIVE or BLIND to ENDED or LOST. The
  `fencing_token` is on each row of `position_updates` that the session wrote.
""",
    )
    account_values = external_table(
        ACCOUNT_VALUES,
        deps=[GATEWAY, "flex_statements"],
        description="""
Net liquidation, cash, available funds, margin and profit of each account, one row per change.

- **Written by** the stream (source GATEWAY), and by `flex_statements` for past days (source FLEX).
- **How to read it:** rows are only appended; the newest row of an account and source is its value.
  What the broker did not say is null.
""",
    )
    breaks = external_table(
        RECONCILIATION_BREAKS,
        deps=["broker_positions", "position_updates", "active_strategies"],
        job=DERIVE_JOB,
        description="""
Differences between the broker and the tables, each with its life.

- **Written by** the check `agrees_with_the_broker`.
- **How to read it:** one row per difference: OPENED when it is seen once, CONFIRMED when it is seen
  again, RESOLVED when it is gone, ACCEPTED by a person. `position-sync status` lists open ones.
""",
    )
    tables = [broker_positions, contracts, sessions, account_values, breaks]
    return dg.Definitions(assets=[gateway, *tables])


def observe_table(lake: "Lake", spec: TableSpec) -> dg.AssetObservation:
    """Return an observation of a table as it is now.

    It has no data version: the ledger follows these tables all the time, so that a new version of
    them does not make it old.
    """
    table = next(found for found in lake.tables if found.spec.name == spec.name)
    return dg.AssetObservation(
        spec.name,
        metadata={
            "dagster/row_count": table.count(),
            "delta_version": table.version(),
        },
    )


def gateway_seen(gateway_id: str) -> dg.AssetObservation:
    """Return an observation of the gateway by a refresh, which connects for a moment."""
    return dg.AssetObservation(
        GATEWAY,
        description="A refresh saw the gateway",
        metadata={"state": "LIVE", "gateway": gateway_id},
    )
