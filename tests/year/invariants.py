"""What must hold beside a gateway, and of the tables, each day.

Tables are read as rows: no figure that is compared here is computed by the program's own code
a second time, apart from the one that is asked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
import polars as pl

from position_sync_dagster.definitions import defs
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.money.reports.book import Book, open_positions, read_book
from position_sync_dagster.money.trading_days import day_began
from position_sync_dagster.sync.confirmations import STALE_AFTER
from tests.year.broker import Broker
from tests.year.deviations import Deviation
from tests.year.exchanges import NEW_YORK, sessions_between
from tests.year.programs import Program, Watched

# Values of the gateway are in cents.
CENT = 0.011

# The lines of the login (`programs`), without those that are left to other programs.
BUDGET = 45

# A value that counts as current is at most this old.
CURRENT_FOR = STALE_AFTER

# How long Dagster's events are kept; the maintenance deletes them within a week, also after a gap.
KEPT = timedelta(days=90)
A_WEEK = timedelta(days=7)

LEDGER = dg.AssetKey("position_updates")


class Live:
    """What must hold while the stream runs beside the gateway, at one moment."""

    def __init__(self, program: Program, broker: Broker, watched: Watched, seen: str) -> None:
        self.program = program
        self.broker = broker
        self.watched = watched
        self.seen = seen
        self.since = utc_now()

    def deviations(self, *, before_trades: bool = True) -> list[Deviation]:
        """Return all deviations of this moment.

        A gateway sends net liquidation each three minutes: right after a trade it is not known.
        """
        book = read_book(self.program.lake, self.program.settings, utc_now())
        return [
            *self._holdings(),
            *self._values(book.priced),
            *(self._net_liquidation() if before_trades else ()),
            *self._lines(),
            *_old_but_current(self.broker.session, self.seen, book),
        ]

    def _deviation(self, invariant: str, what: str, true: object, told: object) -> Deviation:
        return Deviation(
            invariant=invariant, session=self.broker.session, seen=self.seen, what=what,
            true=true, told=told,
        )  # fmt: skip

    def _holdings(self) -> Iterator[Deviation]:
        """Compare what is held with the rows of latest_positions: all of it, and no other."""
        latest = self.watched.latest()
        held = self.watched.held()
        for key in sorted({*held, *latest}):
            if held.get(key) != latest.get(key):
                yield self._deviation("holdings", f"{key}", held.get(key), latest.get(key))

    def _values(self, priced: pl.DataFrame) -> Iterator[Deviation]:
        """Compare the value of each holding with quantity, price and multiplier of the broker."""
        for row in priced.filter(pl.col("position") != 0).iter_rows(named=True):
            security = self.broker.office.securities.get(row["conid"])
            if security is None:
                continue
            price = self.broker.market.price(security)
            true = float(row["position"]) * float(price) * float(security.multiplier)
            value = row["market_value"]
            if value is None or abs(value - true) > CENT * max(1.0, abs(row["position"])):
                yield self._deviation("value", security.symbol, round(true, 4), value)
            if row["multiplier"] != float(security.multiplier):
                multiplier = float(security.multiplier)
                yield self._deviation("multiplier", security.symbol, multiplier, row["multiplier"])

    def _net_liquidation(self) -> Iterator[Deviation]:
        newest = self.program.lake.account_values.latest()
        told = dict(newest.select("account", "net_liquidation").iter_rows())
        for account, true in self.watched.net_liquidation.items():
            amount = told.get(account)
            if amount is None or abs(amount - true) > CENT:
                yield self._deviation("net liquidation", account, round(true, 2), amount)

    def _lines(self) -> Iterator[Deviation]:
        used = self.watched.most_lines
        if not 0 < used <= BUDGET:
            yield self._deviation("lines", "market data lines", f"1 to {BUDGET}", used)


def while_down(program: Program, broker: Broker, seen: str) -> Iterator[Deviation]:
    """Yield what counts as current although the stream ended longer ago than values are current."""
    book = read_book(program.lake, program.settings, utc_now())
    for row in open_positions(book).filter(pl.col("current")).iter_rows(named=True):
        yield _of_freshness(broker.session, seen, row)


def _old_but_current(session: date, seen: str, book: Book) -> Iterator[Deviation]:
    """Yield the holdings that count as current although their value is old.

    A line that is quiet has the same price as before: its row is written again while it lives.
    """
    oldest = utc_now() - CURRENT_FOR
    for row in open_positions(book).filter(pl.col("current")).iter_rows(named=True):
        is_streamed = row["source"] == Source.STREAM
        confirmed_at = row["confirmed_at"]
        if is_streamed:
            confirmed_at = row["timestamp"]

        if confirmed_at is None or confirmed_at < oldest:
            yield _of_freshness(session, seen, row)


def _of_freshness(session: date, seen: str, row: Mapping[str, Any]) -> Deviation:
    return Deviation(
        invariant="fresh", session=session, seen=seen, what=row["name"],
        true=f"a value of {row['confirmed_at']}", told="current",
    )  # fmt: skip


class Ledger:
    """The rows of the ledger: none twice, none lost, each in exactly one event of Dagster."""

    def __init__(self) -> None:
        self._ids: frozenset[str] = frozenset()
        # When each event was, by the version through which it reports.
        self._events: dict[int, datetime] = {}

    def deviations(self, program: Program, session: date) -> Iterator[Deviation]:
        """Yield what is wrong with the rows, by their ids, and with the events."""
        rows = pl.read_delta(program.settings.table("position_updates"))
        ids = rows.get_column("update_id")
        if ids.n_unique() != rows.height:
            twice = [name for name, count in Counter(ids).items() if count > 1]
            yield _of_ledger(session, "no row twice", "update_id", 1, f"{twice[:3]} twice")
        alike = (
            rows.group_by("timestamp", "account", "conid", "source").len().filter(pl.col("len") > 1)
        )
        if alike.height:
            yield _of_ledger(session, "no row twice", f"{alike.row(0)}", 1, alike.height)

        lost = self._ids - {*ids}
        if lost:
            yield _of_ledger(session, "no row lost", "update_id", sorted(lost)[:3], None)
        self._ids = frozenset(ids)
        versions = program.lake.updates.table.rows(columns=["ledger_version"])
        yield from self._of_events(program, session, versions)

    def _of_history(self, session: date, events: Mapping[int, datetime]) -> Iterator[Deviation]:
        """Compare which events are gone, and which are not, with the days that they are kept."""
        now = utc_now()
        for version, at in self._events.items():
            if version not in events and now - at < KEPT:
                yield _of_ledger(session, "history of 90 days", f"event of {at}", "kept", "gone")
        for version, at in events.items():
            if now - at > KEPT + A_WEEK and version != max(events):
                yield _of_ledger(session, "history of 90 days", f"event of {at}", "gone", "kept")
        self._events = dict(events)

    def _of_events(
        self, program: Program, session: date, rows: pl.DataFrame
    ) -> Iterator[Deviation]:
        events = sorted(_reported(program.instance))
        yield from self._of_history(session, {until: at for _since, until, _count, at in events})
        begin = through = events[0][0] if events else 0
        reported: Counter[int] = Counter()
        for since, until, count, _at in events:
            if since < through:
                yield _of_ledger(
                    session, "one event", f"versions {since} to {until}", through, since
                )
            through = max(through, until)
            held = rows.filter(pl.col("ledger_version").is_between(since + 1, until)).height
            reported[until] += count
            if held != count:
                yield _of_ledger(session, "one event", f"rows of {since} to {until}", held, count)

        covered = rows.filter(pl.col("ledger_version").is_between(begin + 1, through)).height
        if covered != reported.total():
            yield _of_ledger(session, "one event", "rows of all events", covered, reported.total())


def _of_ledger(session: date, invariant: str, what: str, true: object, told: object) -> Deviation:
    return Deviation(
        invariant=invariant, session=session, seen="in the ledger", what=what, true=true, told=told
    )


def _reported(instance: dg.DagsterInstance) -> Iterator[tuple[int, int, int, datetime]]:
    """Yield the versions between which each event has rows, how many, and when it was."""
    cursor = None
    while True:
        page = instance.fetch_materializations(LEDGER, limit=500, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            if event is not None and "rows" in event.metadata:
                values = {name: value.value for name, value in event.metadata.items()}
                at = datetime.fromtimestamp(record.timestamp, UTC)
                versions = values["delta_version_from"], values["delta_version"]
                yield *versions, values["rows"], at
        if not page.has_more:
            return
        cursor = page.cursor


def partitions(first: date, last: date) -> Iterator[Deviation]:
    """Compare the partitions that Dagster offers now with the days of the exchange until the last.

    Args:
        last: The last session that can be recorded now.
    """
    spec = defs().resolve_assets_def("daily_positions").partitions_def
    assert spec is not None
    offered = {date.fromisoformat(key) for key in spec.get_partition_keys(utc_now())}
    true = {*sessions_between(first, last)}
    for day in sorted(offered ^ true):
        yield Deviation(
            invariant="partitions", session=last, seen="at night", what=f"{day}",
            true=day in true, told=day in offered,
        )  # fmt: skip


def schedules(program: Program, session: date) -> Iterator[Deviation]:
    """Compare the days that the schedule of the close recorded last with those of the exchange.

    Args:
        session: One after whose close the schedule was due.
    """
    of_schedule = dg.RunsFilter(tags={"dagster/schedule_name": "record_day_after_close"})
    runs = program.instance.get_runs(of_schedule, limit=5)
    recorded = {date.fromisoformat(run.tags["dagster/partition"]) for run in runs}
    sessions = {*sessions_between(min(recorded, default=session), session)}
    for day in sorted((recorded - sessions) | ({session} - recorded)):
        yield Deviation(
            invariant="schedules", session=session, seen="in the evening", what=f"{day}",
            true=day in sessions, told=day in recorded,
        )  # fmt: skip


def beginning_of_today(session: date, seen: str) -> Iterator[Deviation]:
    """Compare when the day began: at midnight in New York, wherever the trader is."""
    now = utc_now()
    true = datetime.combine(now.astimezone(NEW_YORK).date(), time(), NEW_YORK)
    told = day_began("XNYS", now)
    if true != told:
        yield Deviation(
            invariant="today",
            session=session,
            seen=seen,
            what="it began",
            true=true,
            told=told,
        )
