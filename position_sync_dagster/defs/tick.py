"""The work of a tick of `drain_queue`: it drains the queue, and reports what was written.

What it reports follows from the tables, whoever wrote them: the stream, a tick, a run or a library.
To report a table is to read or write it, and to return the results of the checks that come with it.
It is shown, that is it has an event in Dagster, less often: each event takes 3 kB in SQLite.

Each row of the ledger is counted in exactly one event, as one of `rows`. The version through which
rows were reported is read from the newest event, since Dagster stores the events of a tick one by
one and then its cursor: a crash in between repeats nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import dagster as dg
from pydantic import AwareDatetime

from position_sync_dagster import dagster_files
from position_sync_dagster.defs import resources
from position_sync_dagster.defs.assets import queue_and_ledger
from position_sync_dagster.defs.assets.table_asset import (
    NEVER_MATERIALIZED,
    UNCHANGING,
    Derived,
    Sources,
    TickTable,
    event_without_run,
    known,
    state_of,
    totals,
)
from position_sync_dagster.defs.checks import tables as table_checks
from position_sync_dagster.defs.checks.evaluation import CheckDriver, news, unevaluated
from position_sync_dagster.domain.clock import elapsed
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import (
    InvalidLegError,
    PositionSyncError,
    StoreError,
    StrategiesFileError,
)
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.lake.position_updates import AddedCounts
from position_sync_dagster.lake.schema import (
    ACTIVE_STRATEGIES,
    LATEST_POSITIONS,
    POSITION_QUEUE,
    POSITION_UPDATES,
    RECONCILIATION_BREAKS,
)
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import drain
from position_sync_dagster.yaml_file import saved_state

logger = logging.getLogger(__name__)

# How often Dagster's daemon looks whether a sensor is due. A longer interval between drains ends
# with the look that is nearest.
LOOK = timedelta(seconds=5)

# How often rows of the stream are reported while nothing is drained.
STREAMED_EVERY = timedelta(minutes=1)

# How long requests that were released are left alone, unless others wait too.
RELEASED_FOR = timedelta(seconds=30)

# How often the queue and the derived tables are reported where values alone change. The tables
# themselves follow each report of the ledger, and what `Derived.mark` names is reported at once.
DERIVED_EVERY = timedelta(minutes=15)

# How often the ledger and what follows from it are reported while a stream is live and no row
# comes: without an event they would count as not fresh, and nothing is wrong.
QUIET_EVERY = timedelta(minutes=15)

# How often each table is reported, whether it changed or not. An event takes 3 kB in SQLite.
ALL_EVERY = timedelta(hours=1)

T = TypeVar("T")
Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class TickCursor:
    """What one tick keeps for the next one.

    Attributes:
        registry_version: Delta version of `active_strategies` that was last reported.
        strategies_mark: Fingerprint of the strategies file that was last applied or refused.
        ledger_version: The `ledger_version` through which rows were reported.
        streamed_through: The `ledger_version` through which the rows that wait for their event are
            known: they are of the stream, since those of a drain do not wait.
        states: The state of each login that was last reported.
        released: The requests that the last drain released without a value.
        versions: The Delta version that a part followed last, by the name of its table.
        marks: What readers of each derived table are told at once when it changes (`Derived.mark`).
        damage: The tables that could not be read when that was last checked; "" when all could.
        at: When each of these was last done: "ledger", "derived" and "all" were reported, requests
            were "drained" and "released"; of further parts, by the names of their tables.
    """

    registry_version: int | None = None
    strategies_mark: str | None = None
    ledger_version: int | None = None
    streamed_through: int = 0
    states: dict[str, str] | None = None
    released: int = 0
    versions: dict[str, int | None] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    damage: str = ""
    at: dict[str, AwareDatetime] = field(default_factory=dict)


@dataclass(eq=False, kw_only=True)
class Work(Generic[L]):
    """The work of one tick.

    `drain_queue` makes one for each tick and calls `tick`; parts of an extension get it too. A step
    that must not stop the others is called by `alone`, which returns None where it failed.

    Attributes:
        driver: Evaluates the checks.
        written_by_ticks: The tables that runs and ticks write, by name.
        imported: What those tables are made of that runs alone make, by name.
        keys: The keys of the assets.
        cursor: What the tick before kept; after the tick, what the next one gets.
        said: What the tick did, with numbers, for its skip reason.
        problems: What it could not do, and why; also in `said`.
        all_due: Whether all tables are reported in this tick.
        rows_reported: Whether rows of the ledger were; None: it cannot be read.
        derived_shown: Whether what is derived from them has an event in any case, too.
        failing: The checks that fail, once the tick is over.
        took_s: What each part of the tick took, in seconds.
        outage: Why the object store of all tables cannot be used; None while it can. No other
            request waits for it in this tick.
    """

    lake: L
    driver: CheckDriver[L]
    written_by_ticks: Mapping[str, TickTable[L]]
    imported: Mapping[str, Sources]
    keys: resources.AssetKeys
    settings: Settings
    instance: dg.DagsterInstance
    now: datetime
    cursor: TickCursor

    said: list[str] = field(init=False, default_factory=list)
    problems: list[str] = field(init=False, default_factory=list)
    all_due: bool = field(init=False, default=False)
    rows_reported: bool | None = field(init=False, default=False)
    derived_shown: bool = field(init=False, default=False)
    failing: list[dagster_files.FailingCheck] = field(init=False, default_factory=list)
    took_s: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.outage: str | None = None
        # What the tick has to report so far: events, and the newest result of each check.
        self._events: list[Event] = []
        self._results: dict[dg.AssetCheckKey, dg.AssetCheckResult] = {}

    def tick(self, parts: Iterable["TickPart[L]"]) -> list[Event]:
        """Do the work that is due, then further parts; return the events, sources first.

        Each part of the core fails alone, so that a table that cannot be read keeps no event and no
        result of the others back.
        """
        read_states = partial(gateway_states, self.lake, self.settings, self.now)
        # What fails is None: `alone`.
        with self._timed("gateways"):
            states = self.alone("The state of the gateways is unknown", read_states)
        with self._timed("strategies"):
            is_changed = self.alone("The strategies are not read", self._apply_strategies)
        has_news = bool(is_changed) or (states is not None and states != self.cursor.states)
        self.all_due = has_news or self.is_due("all", ALL_EVERY)
        with self._timed("drain"):
            drained = self.alone("Nothing is drained", self._drain) or drain.NOTHING

        with self._timed("report"):
            if self.all_due:
                self._report_tables(states)
                self.keep("all", states=states)
            self._report_rows(drained, states or {})
        for part in parts:
            with self._timed(part.__name__):
                part(self)

        with self._timed("checks"):
            self._evaluate_checks()
        self.failing = self.driver.failing(self._results)
        with self._timed("news"):
            return self._events + news(self.instance, self._results, self.keys, self.now)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Record how long a part of the tick takes."""
        began = time.monotonic()
        yield
        self.took_s[part] = time.monotonic() - began

    def _evaluate_checks(self) -> None:
        """Evaluate the checks that are due; report all tables anew once one broke or is mended."""
        if self.outage is not None:
            unknown = unevaluated(self.outage)
            self._results |= dict.fromkeys(self.driver.driven(), unknown)
            for name in self.written_by_ticks:
                self.cannot_evaluate(name)
            return

        results = dict(self.driver.results(self.lake, self.settings))
        self._results |= results
        of_tables = results.get(table_checks.tables_can_be_read.check_key)
        if of_tables is None:
            return  # it was not due in this tick
        damage = "" if of_tables.passed else of_tables.description or ""
        if damage != self.cursor.damage:
            # As if nothing had been done yet: the next tick reports all tables.
            self.cursor = replace(self.cursor, damage=damage, at={})

    def is_due(self, part: str, every: timedelta) -> bool:
        """Return whether a part of the work, a key of `TickCursor.at`, was not done for a time."""
        last = self.cursor.at.get(part)
        return last is None or elapsed(last, self.now) >= every

    def keep(self, *done: str, **changes: Any) -> None:
        """Keep in the cursor that these parts of the work were done now, and further fields."""
        at = self.cursor.at | dict.fromkeys(done, self.now)
        self.cursor = replace(self.cursor, at=at, **changes)

    def follow(self, name: str, version: int | None) -> None:
        """Keep the Delta version that a part of the work follows now, by the name of its table."""
        self.keep(versions=self.cursor.versions | {name: version})

    def _apply_strategies(self) -> bool:
        """Make the registry equal to a strategies file that changed.

        A file that is refused is read again once it has changed, and the registry stays.

        Returns:
            Whether the registry has changed since the last tick, whoever changed it.
        """
        path = self.settings.strategies_file
        mark = ":".join(map(str, saved_state(path))) if path else None
        if mark != self.cursor.strategies_mark:
            try:
                queue_and_ledger.apply_file(self.lake, self.settings)
            except (StrategiesFileError, InvalidLegError) as error:
                self.said.append(str(error))
                logger.error("The strategies file is refused, and the registry stays: %s", error)
            self.keep(strategies_mark=mark)

        version = self.lake.registry.table.version()
        is_changed = version != self.cursor.registry_version
        self.keep(registry_version=version)
        return is_changed

    def _drain(self) -> drain.DrainReport:
        """Drain what waits, once in `drain_interval_s`.

        What the last drain could not value waits for `RELEASED_FOR`.
        """
        backlog = self.lake.queue.sync.overview()
        # Claims whose lease expired: the drain returns them to PENDING first.
        claimable = backlog.claimable + backlog.expired
        interval = timedelta(seconds=self.settings.drain_interval_s)
        # The daemon calls each `LOOK`: the call nearest to the end of the interval drains.
        if interval > LOOK and not self.is_due("drained", interval - LOOK / 2):
            self.said.append(f"next drain within {interval.seconds} s")
            return drain.NOTHING

        counts = f"pending {backlog.counts[QueueStatus.PENDING]}, claimable {claimable}"
        if not claimable:
            self.said.append(counts)
            return drain.NOTHING
        # Those that the last drain released: nothing else waits.
        if claimable <= self.cursor.released and not self.is_due("released", RELEASED_FOR):
            self.said.append(
                f"{counts}; released without a value, next within {RELEASED_FOR.seconds} s"
            )
            return drain.NOTHING

        report = asyncio.run(drain.drain(self.lake, self.settings))
        self.keep("drained", "released", released=report.released)
        self.said.append(
            f"{report.claimed} claimed, {report.rows} rows in {report.duration_s:.1f} s; {counts}"
        )
        self.said += [str(why) for why in (report.reason, report.error) if why is not None]
        return report

    def _report_tables(self, states: dict[str, str] | None) -> None:
        """Report the gateways, unless their states are unknown, and the stream's tables."""
        lake = self.lake
        if states is not None:
            self.report(resources.GATEWAY, partial(gateway_state, lake, states))
        self.report(
            ACTIVE_STRATEGIES.name,
            partial(queue_and_ledger.strategies_state, lake, self.settings),
        )
        self._report_breaks()
        for table in lake.tables:
            if table.spec.name not in self.written_by_ticks and table is not lake.breaks.table:
                self.report(table.spec.name, partial(streamed_state, lake, table))

    def _report_breaks(self) -> None:
        self.report(RECONCILIATION_BREAKS.name, partial(table_checks.breaks_state, self.lake))

    def _has_moved(self, table: Table) -> bool:
        """Keep the version that a table has now; return whether the tick before saw another one.

        One that cannot be read is None: the table counts as moved, and again once it can be read.
        """
        name = table.spec.name
        version = self.alone(f"{name} is not followed", table.version)
        has_moved = version != self.cursor.versions.get(name)
        self.follow(name, version)
        return has_moved

    def _report_rows(self, drained: drain.DrainReport, states: Mapping[str, str]) -> None:
        """Report the ledger's rows that no event has yet, if due; then write `latest_positions`.

        The queue and what is derived from the rows have an event less often, or once readers wait
        for one.

        Args:
            drained: What this tick drained: the event has its attempts, also where no row came.
            states: The state of each login; none if they are unknown.
        """
        versions = self.cursor.versions  # those of the last tick
        has_new_quantities = self._has_moved(self.lake.position_changes.table)
        has_breaks = self._has_moved(self.lake.breaks.table)
        # Readers wait for what is derived: a break came or ended (it is in the sums), or
        # `_keep_mark` of the last tick took "derived" out.
        derived_awaited = has_breaks or "derived" not in self.cursor.at
        has_news = self.all_due or has_new_quantities or derived_awaited or bool(drained.claimed)

        look = partial(self._look_at_rows, states, is_due=has_news)
        looked = self.alone(f"{POSITION_UPDATES.name} is not reported", look)
        if looked is None:
            self.keep(versions=versions)  # what moved is noticed again by the next tick
            self.rows_reported = None
            self.cannot_evaluate(LATEST_POSITIONS.name)
            return

        is_due, span = looked
        # If no event is due now, the rows after `since` wait for the next one, and the next tick
        # counts only those after `streamed_through`.
        self.keep(ledger_version=span.since, streamed_through=span.added.version)
        if not is_due:
            return

        self.rows_reported = True
        self.derived_shown = (
            self.all_due or derived_awaited or self.is_due("derived", DERIVED_EVERY)
        )
        if self.derived_shown:
            self.report(POSITION_QUEUE.name, partial(queue_and_ledger.queue_state, self.lake))
            self.keep("derived")
        if derived_awaited and not self.all_due:  # else `_report_tables` did
            self._report_breaks()

        self.report(POSITION_UPDATES.name, partial(ledger_state, span, drained))
        self.keep("ledger", ledger_version=span.added.version)
        self.write(LATEST_POSITIONS.name, is_shown=self.derived_shown)

    def _look_at_rows(self, states: Mapping[str, str], *, is_due: bool) -> tuple[bool, "Span"]:
        """Return whether rows are reported in this tick, and those that no event has yet.

        What the ticks before looked at is not read again until it is reported.

        Args:
            states: The state of each login; one that is LIVE awaits an event from time to time.
            is_due: Whether the rows are reported in any case, since there is other news.

        Returns:
            Whether they are due; and the rows. If none are due, these may be the ones since the
            last glance alone, and a count of 1 may stand for any number of the stream's.
        """
        reported = self.cursor.ledger_version or 0
        # A glance by the cursor asks Dagster nothing; `unreported` reads its newest events.
        if not is_due:
            through = max(reported, self.cursor.streamed_through)
            newest = self.lake.updates.sync.count_after(through)
            rows = dict(newest.rows)
            if through > reported:  # rows of the stream wait: any number of them tells `_are_due`
                rows.setdefault(Source.STREAM, 1)
            glance = Span(min(reported, newest.version), newest._replace(rows=rows))
            if not self._are_due(glance, states):
                return False, glance

        span = unreported(self.lake, self.instance, self.keys.of(POSITION_UPDATES.name), reported)
        return is_due or self._are_due(span, states), span

    def _are_due(self, span: "Span", states: Mapping[str, str]) -> bool:
        """Return whether rows are reported that came without a drain in this tick.

        They are at once if another drain wrote some, or a backup was put back, so that the ledger
        ends before what was reported; else after an interval, and while a stream is LIVE also
        without rows, so that Dagster counts the ledger as fresh.
        """
        new_rows = span.added.rows
        was_restored = span.since < (self.cursor.ledger_version or 0)
        every = STREAMED_EVERY if new_rows else QUIET_EVERY
        is_awaited = new_rows or SessionState.LIVE in states.values()
        is_overdue = bool(is_awaited) and self.is_due("ledger", every)
        return Source.QUEUE in new_rows or was_restored or is_overdue

    def write(self, name: str, *, is_shown: bool = True) -> bool:
        """Write a table that runs and ticks write alike, and report it.

        Args:
            is_shown: Whether it has an event in any case; else only if its mark changed.

        Returns:
            Whether that succeeded; otherwise the checks that come with the table become unknown.
        """
        return self.report(name, partial(self._derive, name), is_shown=is_shown)

    def report(self, name: str, make: Callable[[], Derived], *, is_shown: bool = True) -> bool:
        """Report what `make` says of a table, with its checks: add them to what the tick returns.

        If its mark changed, all other derived tables are shown as well (`_keep_mark`).

        Args:
            is_shown: Whether it has an event in any case; else only if its mark changed
                (`Derived.mark`). The results of its checks always count.

        Returns:
            Whether that succeeded; otherwise the checks that come with the table become unknown.
        """
        written = self.alone(f"{name} is not reported", make)
        if written is None:
            self.cannot_evaluate(name)
            return False
        self._results |= written.checks
        is_news = self._keep_mark(name, written)
        if is_shown or is_news:
            self._events.append(event_without_run(name, written, self.keys, self._sources_of(name)))
        return True

    def _derive(self, name: str) -> Derived:
        """Write a table that runs and ticks write alike; raise an error for any other name."""
        if name not in self.written_by_ticks:
            raise PositionSyncError(
                f"Runs and ticks write no table {name}.", remedy="List it in `Extension.tables`."
            )
        return self.written_by_ticks[name].derive(self.lake, self.settings, None)

    def _sources_of(self, name: str) -> Sources | None:
        """Return what an asset is made of, if runs of Dagster make it too; else None.

        Only a new version of the strategies marks an asset that ticks write as out of date: the
        other sources move all the time, and have the version UNCHANGING, which is always the same.
        """
        table = self.written_by_ticks.get(name)
        if table is not None:
            versions = dict.fromkeys(table.deps, UNCHANGING)
            if ACTIVE_STRATEGIES.name in versions:
                versions[ACTIVE_STRATEGIES.name] = str(self.cursor.registry_version)
            return Sources(table.spec, versions)

        # What runs alone make, such as an import: a source without an event has Dagster's version
        # for it, NEVER_MATERIALIZED.
        made = self.imported.get(name)
        if made is None:
            return None
        versions = {
            source: version
            if self.instance.get_latest_materialization_event(self.keys.of(source))
            else NEVER_MATERIALIZED
            for source, version in made.versions.items()
        }
        return Sources(made.spec, versions)

    def _keep_mark(self, name: str, written: Derived) -> bool:
        """Keep the mark of a table; return whether it differs from the one kept before.

        The mark is what a person has to see at once, as one text: what the table says of itself
        (`Derived.mark`), and its failing checks. If it differs, the other derived tables are shown
        as well, that is reported to Dagster: those that this tick has passed, by the next one, for
        which the part "derived" counts as not done.
        """
        if name not in self.written_by_ticks:
            return False

        failing = sorted(key.name for key, result in written.checks.items() if not result.passed)
        mark = ",".join([written.mark, *failing])
        before = self.cursor.marks.get(name, mark)  # the first mark is no news
        self.keep(marks=self.cursor.marks | {name: mark})
        if mark == before:
            return False

        is_first = name == LATEST_POSITIONS.name  # the other derived tables come after it
        if not (is_first or self.derived_shown):
            at = {part: done for part, done in self.cursor.at.items() if part != "derived"}
            self.cursor = replace(self.cursor, at=at)
        self.derived_shown = True
        return True

    def cannot_evaluate(self, name: str, further: Iterable[dg.AssetCheckKey] = ()) -> None:
        """Make the checks that come with a table unknown, for the problem that was found last.

        Args:
            name: The table.
            further: Its checks that the driver does not have, as the limits that a file sets.
        """
        unknown = unevaluated(self.problems[-1])
        keys = self.driver.evaluated_with(name).union(further)
        self._results |= dict.fromkeys(keys, unknown)

    def alone(self, failure: str, make: Callable[[], T]) -> T | None:
        """Keep an error of one part to itself: it is logged, and named in the skip reason.

        While an object store is away nothing else is asked of it: each request would wait in vain.

        Args:
            failure: What does not happen then, in words: the cause follows it.
            make: The part.

        Returns:
            What the part returned; None if it failed, or was not begun.
        """
        if self.outage is not None:  # the skip reason has it already
            self.problems.append(f"{failure}: {self.outage}")
            return None

        try:
            return make()
        except PositionSyncError as error:
            problem = f"{failure}: {error}"
            if isinstance(error, StoreError):
                self.outage = str(error)
        except Exception as error:
            logger.exception("%s", failure)
            problem = f"{failure}: {type(error).__name__}: {error}"
        self.said.append(problem)
        self.problems.append(problem)
        return None


# What each tick does after the core's work. An error that it does not keep to itself, by
# `Work.alone`, ends the tick.
TickPart = Callable[[Work[L]], None]


# Number of newest events in which the last reported version is looked for: those of runs, which
# report no rows, may be between.
LOOKED_AT = 10

SINCE = "delta_version_from"
THROUGH = "delta_version"


class Span(NamedTuple):
    """Rows of the ledger that no event has yet: those after the version `since`."""

    since: int
    added: AddedCounts


def unreported(lake: Lake, instance: dg.DagsterInstance, ledger: dg.AssetKey, since: int) -> Span:
    """Return what was added to the ledger since the newest event that has rows.

    That event counts, and not the cursor: of a tick that crashed the event alone is stored.

    Args:
        lake: The tables.
        instance: The Dagster instance with the events.
        ledger: The key of the ledger's asset.
        since: The version that counts where no such event is found: the cursor's; 0 without one.
    """
    for event in instance.fetch_materializations(ledger, limit=LOOKED_AT).records:
        report = event.asset_materialization
        if report is not None and SINCE in report.metadata:  # else it reports no rows
            through: Any = report.metadata[THROUGH].value
            since = through
            break

    added = lake.updates.sync.count_after(since)
    # A ledger that was restored from an older copy goes on from there.
    return Span(min(since, added.version), added)


def ledger_state(span: Span, report: drain.DrainReport) -> Derived:
    """Return what the event of the rows of a span says, also of a span without rows.

    Args:
        span: The rows.
        report: The drain of the same tick, for its attempts, and how long its requests waited.
    """
    rows = span.added.rows
    attempts = {}
    if report.claimed:
        attempts = {
            "attempts": report.claimed,
            "attempts_succeeded": report.succeeded,
            "attempts_failed": report.failed,
            "attempts_released": report.released,
        }
    metadata = known(
        rows=sum(rows.values()),
        rows_drained=rows.get(Source.QUEUE, 0),
        rows_streamed=rows.get(Source.STREAM, 0),
        **attempts,
        oldest_wait_s=report.oldest_wait_s and round(report.oldest_wait_s, 1),
        delta_version_from=span.since,
        delta_version=span.added.version,
        note=report.reason,
    )
    return Derived(metadata=metadata)


def gateway_states(lake: Lake, settings: Settings, now: datetime) -> dict[str, str]:
    """Return the state of each login: that of its session while its lease lasts, else "OFFLINE"."""
    names = [login.gateway_id for login in settings.logins]
    alive = {
        name: str(session.state)
        for name, session in lake.sessions.current_of(names).items()
        if session.is_alive(now)
    }
    return dict.fromkeys(names, "OFFLINE") | alive


def gateway_state(lake: Lake, states: dict[str, str]) -> Derived:
    """Return what the event of the gateways says: the state of each login, its lines, and why."""
    sessions = lake.sessions.current_of(states)
    metadata: dict[str, dg.RawMetadataValue] = {}
    for name, state in states.items():
        session = sessions.get(name)
        numbers = known(
            state=state,
            gateway=name,
            lines_in_use=session.lines_in_use if session else None,
            line_limit=session.line_limit if session else None,
            note=session.detail if session else None,
        )
        prefix = f"{name}/" if len(states) > 1 else ""
        metadata |= {f"{prefix}{key}": value for key, value in numbers.items()}
    return Derived(metadata=metadata)


# What the UI plots of accounts.
PLOTTED_OF_ACCOUNTS = ("net_liquidation", "daily_pnl", "available_funds", "maintenance_margin")


def streamed_state(lake: Lake, table: Table) -> Derived:
    """Return what the event of a table says that the owner of the login writes all the time."""
    metadata = state_of(table)
    if table is lake.account_values.table:
        metadata |= totals(lake.account_values.latest(), *PLOTTED_OF_ACCOUNTS)
    return Derived(metadata=metadata)
