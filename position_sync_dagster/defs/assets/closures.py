"""The asset `closures`: why holdings closed, and its check."""

from collections import defaultdict
from collections.abc import Sequence

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import data_version, table_asset
from position_sync_dagster.defs.checks.check_results import WHAT_TO_DO
from position_sync_dagster.defs.libraries import closes as closes_report
from position_sync_dagster.defs.libraries import explain_closes, roll_legs
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import DERIVE_JOB
from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.lake.schema.tables import CLOSURES

EXPLAINED_CHECK = "closes_are_explained"

LAST = 50
"""Number of closes listed with an event."""

MOST_NAMED = 10
"""Maximum number of closes that the failing check names."""


@table_asset(
    CLOSURES,
    deps=["position_changes", "executions", "statement_events", "contracts"],
    job=DERIVE_JOB,
    check_specs=[
        dg.AssetCheckSpec(
            EXPLAINED_CHECK,
            asset=CLOSURES.name,
            description="Whether the cause of each close is known.",
        )
    ],
    description="""
Why each holding closed: traded, expired worthless, assigned, exercised, settled in cash, split,
transferred, or unexplained.

Written by the stream, seconds after a close, and by derive_positions, which also follows each
import of statements.

How to read it: a cause is PROVISIONAL until a statement of the broker says it (STATED). Both
rows are kept: of the rows of a change_id those with the greatest judged_at count, and their
quantities add up to what was closed. What no fact explains is UNEXPLAINED, and opens a break.
""",
)
def closures(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Judge the closes of the last weeks, list the last ones, and follow rolls."""
    lake = position_sync.lake
    found = explain_closes.CloseExplainer(lake).explain(run_id=context.run.run_id)
    rolls = roll_legs.RollFollower(lake, position_sync.settings.strategies_file).follow()
    known = closes_report.read_closes(lake)
    version = lake.closures.table.version()
    return dg.MaterializeResult(
        metadata={
            "added": found.rows,
            "dagster/row_count": lake.closures.table.count(),
            "dagster/uri": lake.closures.table.path,
            "delta_version": version,
            "unexplained": len(found.unexplained),
            **({"rolls_followed": "; ".join(map(str, rolls.due))} if rolls.due else {}),
            **({"rolls_refused": "; ".join(rolls.refused)} if rolls.refused else {}),
            "last_closes": dg.MetadataValue.table(
                [_record(one) for one in found.current[: -LAST - 1 : -1]], _CLOSES
            ),
            "profit_by_cause": dg.MetadataValue.table(_by_cause(found.current), _PROFITS),
            "profit_by_strategy": dg.MetadataValue.table(
                [
                    _profit(name, currency, one.closes, one.profit)
                    for name, account, currency in known.groups
                    if (one := known.realized(name, account, currency)) is not None
                ],
                _PROFITS,
            ),
        },
        check_results=[judge_causes(found.unexplained)],
        data_version=data_version(version),
    )


def judge_causes(unexplained: Sequence[Closure]) -> dg.AssetCheckResult:
    """Return the result of the check for the closes without a cause; pure."""
    if not unexplained:
        return dg.AssetCheckResult(
            passed=True,
            check_name=EXPLAINED_CHECK,
            description="The cause of each close is known.",
        )
    named = [
        f"{one.quantity:+g} {one.name} of {one.account} at {one.closed_at:%Y-%m-%d %H:%M} UTC: "
        f"{one.detail}"
        for one in unexplained[: -MOST_NAMED - 1 : -1]
    ]
    return dg.AssetCheckResult(
        passed=False,
        check_name=EXPLAINED_CHECK,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unexplained)} closes have no known cause. " + "; ".join(named),
        metadata={
            "unexplained": len(unexplained),
            WHAT_TO_DO: "Look these up in TWS (Trades, Corporate Actions) or the broker's message "
            "centre. The statement of the next night explains most; accept the others with "
            "`position-sync breaks accept`.",
        },
    )


_CLOSES = dg.TableSchema(
    columns=[
        dg.TableColumn("closed_at", "string", "In UTC."),
        dg.TableColumn("account", "string"),
        dg.TableColumn("contract", "string"),
        dg.TableColumn("quantity", "float", "What was closed, with the sign it had."),
        dg.TableColumn("price", "float"),
        dg.TableColumn("cause", "string"),
        dg.TableColumn("stage", "string"),
        dg.TableColumn("realized_pnl", "float"),
        dg.TableColumn("currency", "string"),
        dg.TableColumn("detail", "string"),
        dg.TableColumn("evidence", "string"),
    ]
)

_PROFITS = dg.TableSchema(
    columns=[
        dg.TableColumn("of", "string"),
        dg.TableColumn("currency", "string"),
        dg.TableColumn("closes", "int"),
        dg.TableColumn("realized_pnl", "float", "Empty where that of one close is not known."),
    ]
)


def _record(one: Closure) -> dg.TableRecord:
    evidence = (one.executions, one.events, one.statement, one.counter_conid)
    return dg.TableRecord(
        {
            "closed_at": f"{one.closed_at:%Y-%m-%d %H:%M:%S}",
            "account": one.account,
            "contract": one.name,
            "quantity": one.quantity,
            "price": one.price,
            "cause": one.cause.value,
            "stage": one.stage.value,
            "realized_pnl": None if one.realized_pnl is None else round(one.realized_pnl, 2),
            "currency": one.currency,
            "detail": one.detail,
            "evidence": " ".join(str(part) for part in evidence if part),
        }
    )


def _by_cause(current: Sequence[Closure]) -> list[dg.TableRecord]:
    groups: defaultdict[tuple[str, str], list[Closure]] = defaultdict(list)
    for one in current:
        groups[one.cause.value, one.currency].append(one)
    records = []
    for (cause, currency), ones in sorted(groups.items()):
        profits = [one.realized_pnl for one in ones if one.realized_pnl is not None]
        profit = sum(profits) if len(profits) == len(ones) else None
        records.append(_profit(cause, currency, len(ones), profit))
    return records


def _profit(of: str, currency: str, closes: int, profit: float | None) -> dg.TableRecord:
    rounded = None if profit is None else round(profit, 2)
    return dg.TableRecord(
        {"of": of, "currency": currency, "closes": closes, "realized_pnl": rounded}
    )
