"""What money adds to the core: its tables, parts of the stream and of ticks, stated positions.

A tick of `drain_queue` calls the parts after the drain and `latest_positions`.
"""

from position_sync_dagster.defs import drain, resources, stream
from position_sync_dagster.defs.assets import past_days
from position_sync_dagster.defs.drain import DERIVED_EVERY, STREAMED_EVERY, Work
from position_sync_dagster.money.defs import exposure, risk, statements  # noqa: F401 - derive them
from position_sync_dagster.money.defs.statements import FOLDER
from position_sync_dagster.money.defs.strategy_checks import watched_limits
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.money.tables import CLOSURES, RISK_SCENARIOS, STRATEGY_EXPOSURE


def add_to_core() -> None:
    """Fill the ports of the core, before its definitions are loaded."""
    resources.LAKES[:] = [MoneyLake]
    stream.COMPLETE[:] = [with_money]
    past_days.STATED[:] = [StatementDays]
    past_days.STATED_BY[:] = [FOLDER]
    drain.PARTS[:] = [derive_exposure, explain_closes, record_risk]


def derive_exposure(work: Work) -> None:
    """Derive `strategy_exposure`, with the limits, after each report of rows of the ledger."""
    name = STRATEGY_EXPOSURE.name
    is_derived: bool | None = False
    if work.rows_reported is not None:
        is_derived = work.report_beside(name, due=work.rows_reported, is_shown=work.all_derived)
    if is_derived is False:
        work.cannot_evaluate(name, watched_limits(work.settings))


def explain_closes(work: Work) -> None:
    """Explain closes after an import of statements, and each hour."""
    name = CLOSURES.name
    version = work.alone(f"{name} is not reported", work.lake.statement_events.table.version)
    if version is None:
        work.cannot_evaluate(name)
        return

    due = work.all_due or version != work.cursor.versions.get(name)
    work.report_beside(name, due=due)
    work.follow(name, version)


def record_risk(work: Work) -> None:
    """Record the scenarios each quarter of an hour, and once the active strategies changed."""
    name = RISK_SCENARIOS.name
    cursor = work.cursor
    is_same = cursor.registry_version == cursor.versions.get(name)
    every = DERIVED_EVERY if is_same else STREAMED_EVERY
    due = bool(cursor.ledger_version) and work.is_due(name, every)
    is_recorded = work.report_beside(name, due=due)
    if due:
        work.keep(name)
        work.follow(name, cursor.registry_version)
    if is_recorded is False:
        work.follow(name, None)  # it is tried again in a minute
