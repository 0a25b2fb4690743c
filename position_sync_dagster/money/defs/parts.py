"""What money adds to the core: its tables, parts of the stream and of ticks, stated positions.

A tick of `drain_queue` calls the parts after the drain and `latest_positions`. What takes longer
than a second goes on beside the ticks, so that a large book delays no drain.
"""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from position_sync_dagster.defs import drain, resources, stream
from position_sync_dagster.defs.assets import past_days
from position_sync_dagster.defs.assets.table_asset import DERIVE, Derived
from position_sync_dagster.defs.drain import DERIVED_EVERY, STREAMED_EVERY, Work
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.money.defs import risk, statements  # noqa: F401 - derive them
from position_sync_dagster.money.defs.statements import FOLDER
from position_sync_dagster.money.defs.strategies import watched_limits
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
        is_derived = report_beside(work, name, due=work.rows_reported, is_shown=work.all_derived)
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
    report_beside(work, name, due=due)
    work.follow(name, version)


def record_risk(work: Work) -> None:
    """Record the scenarios each quarter of an hour, and once the active strategies changed."""
    name = RISK_SCENARIOS.name
    cursor = work.cursor
    every = STREAMED_EVERY
    if cursor.registry_version == cursor.versions.get(name):
        every = DERIVED_EVERY
    due = bool(cursor.ledger_version) and work.is_due(name, every)
    is_recorded = report_beside(work, name, due=due)
    if due:
        work.keep(name)
        work.follow(name, cursor.registry_version)
    if is_recorded is False:
        work.follow(name, None)  # it is tried again in a minute


# How long a tick waits for a table that is derived beside it: of a large book it ends during later
# ticks, and no drain waits for it.
BESIDE_WAIT_S = 1.0

_BESIDE = ThreadPoolExecutor(thread_name_prefix="derive")


@dataclass(slots=True, kw_only=True)
class _Deriving:
    """A table of a lake that is being derived beside the ticks.

    Attributes:
        is_shown: Whether its event is stored.
        again: It is due again, since its sources changed after it began.
    """

    result: Future[Derived]
    is_shown: bool
    again: bool = False


_DERIVING: dict[tuple[Lake, str], _Deriving] = {}


def report_beside(work: Work, name: str, *, due: bool, is_shown: bool = True) -> bool | None:
    """Derive a table that is due in a thread; report it once that has ended.

    Returns:
        Whether that succeeded; None while nothing has ended.
    """
    if work.outage is not None:
        return False
    key = (work.lake, name)
    deriving = _DERIVING.pop(key, None)
    if deriving is not None:
        deriving.again |= due
        deriving.is_shown |= is_shown
    elif due:
        deriving = _derive_beside(work, name, is_shown=is_shown)
    else:
        return None

    wait([deriving.result], BESIDE_WAIT_S)
    if not deriving.result.done():
        _DERIVING[key] = deriving
        return None
    if deriving.again:
        _DERIVING[key] = _derive_beside(work, name, is_shown=deriving.is_shown)
    return work.report(name, deriving.result.result, is_shown=deriving.is_shown)


def _derive_beside(work: Work, name: str, *, is_shown: bool) -> _Deriving:
    return _Deriving(
        result=_BESIDE.submit(DERIVE[name], work.lake, work.settings, None), is_shown=is_shown
    )
