"""The asset `closures`: why holdings closed, and its check."""

from collections.abc import Mapping, Sequence

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.check_results import Derived, failed, passed, table_check
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema.tables import CLOSURES
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import explain_closes, leg_followers
from position_sync_dagster.sync.reports import closes as closes_report

EXPLAINED_CHECK = "closes_are_explained"
CAUSES = dg.AssetCheckKey(dg.AssetKey(CLOSURES.name), EXPLAINED_CHECK)

# Number of closes listed with an event.
LAST = 50

# Maximum number of closes that the failing check names.
MOST_NAMED = 10


@table_asset.table_asset(
    CLOSURES,
    deps=["position_changes", "executions", "statement_events", "contracts"],
)
def closures(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Why each holding closed: its cause, with the evidence.

    The causes are traded, expired worthless, assigned, exercised, settled in cash, split,
    transferred, and unexplained.

    Written by the stream, seconds after a close, and by the sensor drain_queue after each import of
    statements.

    How to read it: a cause is PROVISIONAL until a statement of the broker says it (STATED). Both
    rows are kept: of the rows of a change_id those with the greatest judged_at count, and their
    quantities add up to what was closed. What no fact explains is UNEXPLAINED, and opens a break.
    """
    lake, settings = position_sync.lake, position_sync.settings
    return explain(lake, settings, run_id=context.run.run_id).result(context)


def explain(lake: tables.Lake, settings: Settings, *, run_id: str | None = None) -> Derived:
    """Judge the closes that are not explained, or that statements say more of; follow rolls."""
    found = explain_closes.CloseExplainer(lake, run_id=run_id).explain()
    rolls = leg_followers.RollFollower(lake, settings.strategies_file).follow()
    known = closes_report.read_closes(lake)
    version = lake.closures.table.version()
    return Derived(
        metadata={
            "added": found.rows,
            "dagster/row_count": lake.closures.table.count(),
            "dagster/uri": lake.closures.table.path,
            "delta_version": str(version),
            "unexplained": len(found.unexplained),
            **({"rolls_followed": "; ".join(map(str, rolls.due))} if rolls.due else {}),
            **({"rolls_refused": "; ".join(rolls.refused)} if rolls.refused else {}),
            "last_closes": table_asset.event_table(
                [_close(one) for one, _strategies in known.chosen(limit=LAST)]
            ),
            "profit_by_cause": _profits(known.by_cause),
            "profit_by_strategy": _profits(known.by_strategy),
        },
        checks={CAUSES: judge_causes(found.unexplained)},
    )


@table_check(CLOSURES.name, EXPLAINED_CHECK)
def closes_are_explained(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the cause of each close is known."""
    return explain(lake, settings).checks[CAUSES]


def judge_causes(unexplained: Sequence[Closure]) -> dg.AssetCheckResult:
    """Return the result of the check for the closes without a cause; pure."""
    if not unexplained:
        return passed("The cause of each close is known.")
    named = [
        f"{one.quantity:+g} {one.name} of {one.account} at {one.closed_at:%Y-%m-%d %H:%M} UTC: "
        f"{one.detail}"
        for one in unexplained[: -MOST_NAMED - 1 : -1]
    ]
    return failed(
        f"{len(unexplained)} closes have no known cause. " + "; ".join(named),
        what_to_do="Look these up in TWS (Trades, Corporate Actions) or the broker's message "
        "centre. The statement of the next night explains most; accept the others with "
        "`position-sync breaks accept`.",
        unexplained=len(unexplained),
    )


def _close(one: Closure) -> dict[str, table_asset.Cell]:
    evidence = (one.executions, one.events, one.statement, one.counter_conid)
    return {
        "closed_at": f"{one.closed_at:%Y-%m-%d %H:%M:%S}",
        "account": one.account,
        "contract": one.name,
        "quantity": one.quantity,
        "price": one.price,
        "cause": one.cause.value,
        "stage": one.stage.value,
        "realized_pnl": _cents(one.realized_pnl),
        "currency": one.currency,
        "detail": one.detail,
        "evidence": " ".join(str(part) for part in evidence if part),
    }


def _profits(
    profits: Mapping[tuple[str, str], closes_report.ClosedProfit],
) -> dg.TableMetadataValue:
    """Return the profits of causes or strategies, each in its currencies, as a table."""
    return table_asset.event_table(
        [
            {"of": of, "currency": unit, "closes": one.closes, "realized_pnl": _cents(one.profit)}
            for (of, unit), one in profits.items()
        ]
    )


def _cents(profit: float | None) -> float | None:
    return None if profit is None else round(profit, 2)
