"""What money adds to the core: its tables, parts of the stream and of ticks, stated positions.

A tick of `drain_queue` calls the parts after the drain and `latest_positions`. What takes longer
than a second goes on beside the ticks, so that a large book delays no drain.
"""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from position_sync_dagster.defs.assets.table_asset import UNCHANGING, Derived, Sources
from position_sync_dagster.defs.composition import Extension
from position_sync_dagster.defs.tick import DERIVED_EVERY, STREAMED_EVERY, Work
from position_sync_dagster.money import defs
from position_sync_dagster.money.defs import explained_days, risk, statements, strategies
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_days import FOLDER, StatementDays
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.money.tables import (
    CLOSURES,
    EXECUTIONS,
    RISK_SCENARIOS,
    STATEMENT_EVENTS,
    STRATEGY_EXPOSURE,
)
from position_sync_dagster.settings import Settings

REPORTS = "position_reports"


def money_extension(settings: Settings) -> Extension[MoneyLake]:
    """Return what money gives to the core.

    Args:
        settings: The settings that name the strategies file, with its limits, and the folder of
            statements.
    """
    beside = Beside()
    reports = ("strategy_exposure", "profit_explained", "books", "closed_campaigns")
    return Extension(
        lake=MoneyLake,
        packages=(defs,),
        tables=(
            explained_days.closed_campaigns,
            risk.risk_scenarios,
            statements.closures,
            strategies.strategy_exposure,
        ),
        checks=(
            explained_days.books_close,
            explained_days.profits_are_explained,
            risk.losses_are_within_their_limits,
            risk.early_assignment,
            statements.closes_are_explained,
            strategies.rolls_are_followed,
            strategies.limits_are_read,
            *strategies.limit_checks(settings),
        ),
        stream_parts=with_money,
        tick_parts=(beside.derive_exposure, beside.explain_closes, beside.record_risk),
        stated=StatementDays,
        groups=dict.fromkeys((*reports, "risk_scenarios"), REPORTS),
        pages={
            "position_updates": "/money",
            "latest_positions": "/money",
            "strategy_exposure": "/money",
            "risk_scenarios": "/money/risk",
            "profit_explained": "/money/results",
            "closed_campaigns": "/money/results",
        },
        addresses={FOLDER: str(settings.flex_folder.absolute())},
        short_jobs=(statements.IMPORT_JOB,),
        imported={
            spec.name: Sources(spec, {FOLDER: UNCHANGING})
            for spec in (EXECUTIONS, STATEMENT_EVENTS)
        },
    )


# How long a tick waits for a table that is derived beside it: of a large book it ends during later
# ticks, and no drain waits for it.
BESIDE_WAIT_S = 1.0


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


class Beside:
    """The parts of a tick, which derive their tables in threads beside the ticks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(thread_name_prefix="derive")
        self._deriving: dict[tuple[MoneyLake, str], _Deriving] = {}

    def derive_exposure(self, work: Work[MoneyLake]) -> None:
        """Derive `strategy_exposure`, with the limits, after each report of rows of the ledger."""
        name = STRATEGY_EXPOSURE.name
        is_derived: bool | None = False
        if work.rows_reported is not None:
            is_derived = self.report(
                work, name, due=work.rows_reported, is_shown=work.derived_shown
            )
        if is_derived is False:
            work.cannot_evaluate(name, strategies.watched_limits(work.settings))

    def explain_closes(self, work: Work[MoneyLake]) -> None:
        """Explain closes after an import of statements, and each hour."""
        name = CLOSURES.name
        version = work.alone(f"{name} is not reported", work.lake.statement_events.table.version)
        if version is None:
            work.cannot_evaluate(name)
            return

        due = work.all_due or version != work.cursor.versions.get(name)
        self.report(work, name, due=due)
        work.follow(name, version)

    def record_risk(self, work: Work[MoneyLake]) -> None:
        """Record the scenarios each quarter of an hour, and once the active strategies changed."""
        name = RISK_SCENARIOS.name
        cursor = work.cursor
        every = STREAMED_EVERY
        if cursor.registry_version == cursor.versions.get(name):
            every = DERIVED_EVERY
        due = bool(cursor.ledger_version) and work.is_due(name, every)
        is_recorded = self.report(work, name, due=due)
        if due:
            work.keep(name)
            work.follow(name, cursor.registry_version)
        if is_recorded is False:
            work.follow(name, None)  # it is tried again in a minute

    def report(
        self, work: Work[MoneyLake], name: str, *, due: bool, is_shown: bool = True
    ) -> bool | None:
        """Derive a table that is due in a thread; report it once that has ended.

        Returns:
            Whether that succeeded; None while nothing has ended.
        """
        if work.outage is not None:
            return False
        key = (work.lake, name)
        deriving = self._deriving.pop(key, None)
        if deriving is not None:
            deriving.again |= due
            deriving.is_shown |= is_shown
        elif due:
            deriving = self._begin(work, name, is_shown=is_shown)
        else:
            return None

        wait([deriving.result], BESIDE_WAIT_S)
        if not deriving.result.done():
            self._deriving[key] = deriving
            return None
        if deriving.again:
            self._deriving[key] = self._begin(work, name, is_shown=deriving.is_shown)
        return work.report(name, deriving.result.result, is_shown=deriving.is_shown)

    def _begin(self, work: Work[MoneyLake], name: str, *, is_shown: bool) -> _Deriving:
        derive = work.written_by_ticks[name].derive
        result = self._pool.submit(derive, work.lake, work.settings, None)
        return _Deriving(result=result, is_shown=is_shown)
