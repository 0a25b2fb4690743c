"""The page of `reconciliation_breaks`: what differs now, and whether somebody decided about it."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import observe_table
from position_sync_dagster.defs.checks.check_results import SHOWN, rows_result, table_check
from position_sync_dagster.defs.libraries import pl, tables
from position_sync_dagster.domain.reconciliation import BreakState
from position_sync_dagster.lake.schema.tables import RECONCILIATION_BREAKS
from position_sync_dagster.settings import Settings

if TYPE_CHECKING:
    from position_sync_dagster.lake.breaks import Break

UNDECIDED_AFTER = timedelta(hours=1)
"""How long a difference may stay before somebody has to decide about it; most end with the next
refresh of the account."""

WHAT_TO_DO = (
    "Compare the holding with TWS. If the difference is right as it is, accept it: `position-sync "
    "breaks accept ID --reason TEXT`; otherwise correct the strategies, or run `position-sync "
    "doctor`."
)


def _rows(breaks: "Sequence[Break]") -> "pl.DataFrame":
    """Return breaks as the rows of a page."""
    names = ("break_id", "state", "type", "account", "conid", "symbol")
    return pl.DataFrame(
        [
            {name: getattr(one, name) for name in names}
            | {
                "broker": one.expected,
                "tables": one.actual,
                "opened_at": f"{one.opened_at:%Y-%m-%d %H:%M}",
                "detail": one.detail,
                "accepted_by": one.accepted_by,
                "note": one.note,
            }
            for one in breaks
        ],
        schema={
            **dict.fromkeys(names, pl.String),
            "conid": pl.Int64,
            **dict.fromkeys(("broker", "tables"), pl.Float64),
            **dict.fromkeys(("opened_at", "detail", "accepted_by", "note"), pl.String),
        },
    )


def observe_breaks(lake: "tables.Lake") -> dg.AssetObservation:
    """Return an observation of the table: how many breaks are open in each state, and which."""
    found = lake.breaks.open_breaks()
    counts = Counter(one.state for one in found)
    metadata: dict[str, dg.RawMetadataValue] = {
        f"open/{state.lower()}": counts[state]
        for state in (BreakState.OPENED, BreakState.CONFIRMED, BreakState.ACCEPTED)
    }
    if found:
        rows = _rows(found[:SHOWN]).to_dicts()
        shown = [{k: "" if v is None else v for k, v in row.items()} for row in rows]
        metadata["open_breaks"] = dg.MetadataValue.table([dg.TableRecord(row) for row in shown])
    observed = observe_table(lake, RECONCILIATION_BREAKS)
    return dg.AssetObservation(
        RECONCILIATION_BREAKS.name, metadata={**observed.metadata, **metadata}
    )


def judge_breaks(breaks: "Sequence[Break]", now: datetime) -> dg.AssetCheckResult:
    """Return the result of the check for the open breaks; pure."""
    accepted = sum(one.state is BreakState.ACCEPTED for one in breaks)
    waiting = [
        one
        for one in breaks
        if one.state is not BreakState.ACCEPTED and now - one.opened_at > UNDECIDED_AFTER
    ]
    return rows_result(
        _rows(waiting),
        passed=f"{len(breaks)} differences are open, {accepted} of them accepted; none of the "
        "others is older than an hour.",
        failed="differences have been open for more than an hour, and nobody accepted them",
        what_to_do=WHAT_TO_DO,
        open=len(breaks),
        accepted=accepted,
    )


def evaluate_breaks_are_decided(lake: "tables.Lake", _settings: Settings) -> dg.AssetCheckResult:
    """Return the check's result now."""
    return judge_breaks(lake.breaks.open_breaks(), datetime.now(UTC))


breaks_are_decided = table_check(
    RECONCILIATION_BREAKS.name,
    "breaks_are_decided",
    evaluate_breaks_are_decided,
    description="Whether each difference between broker and tables ends, or is accepted by a "
    "person, within an hour.",
)
