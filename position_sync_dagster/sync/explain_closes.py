"""The causes of closes: judged from the tables and stored; a break where none is known."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import date, datetime, time, timedelta

import polars as pl

from position_sync_dagster.domain.causes import closures_of
from position_sync_dagster.domain.clock import NEVER, Clock, elapsed, utc_now
from position_sync_dagster.domain.close_facts import A_DAY, NEAR, Facts, last_trade
from position_sync_dagster.domain.closures import Cause, Closure, PositionChange, knows_more
from position_sync_dagster.domain.instrument import NEW_YORK, ContractDetails
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.domain.statement import EventKind, Execution, StatementEvent
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import records_of

WINDOW = timedelta(days=60)
"""Time in which a close is judged again: its statement may come late, and may be corrected."""

BEFORE = timedelta(days=7)
"""Maximum age of the executions and events of a change, before the change."""

GRACE = timedelta(minutes=2)
"""Minimum age of a close before it counts as unexplained: its executions may still arrive."""

BREAKS = "closures"
"""The name under which breaks of closes are recorded, in place of a gateway."""

Asked = Mapping[str, tuple[datetime, datetime]]
"""From when and until when the gateway named all executions of an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The outcome of one judgement.

    Attributes:
        rows: How many rows were added to `closures`.
        unexplained: The closes whose cause is not known after `GRACE`, oldest first.
    """

    rows: int
    unexplained: tuple[Closure, ...]


@dataclass(eq=False, repr=False)
class CloseExplainer:
    """Judges the closes of the last weeks; blocks, and may be called by any process.

    Args:
        run_id: The Dagster run that is written into the rows.
        guard: Checks the lease of the owner that sees the changes, right before they are stored.

    Example:
        CloseExplainer(lake).explain()
    """

    lake: Lake
    _: KW_ONLY
    clock: Clock = utc_now
    run_id: str | None = None
    guard: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._prices: dict[int, tuple[float, datetime]] = {}

    def record(self, changes: Iterable[PositionChange]) -> int:
        """Store changes of quantities; one that is known is not stored again."""
        return self.lake.position_changes.add(changes, self.run_id, self.guard)

    def has_open_closes(self) -> bool:
        """Return whether the cause of a close of the last day is not known."""
        since = self.clock() - A_DAY
        closed = {
            change.change_id
            for change in self.lake.position_changes.records(since)
            if change.closed
        }
        if not closed:
            return False
        known = self.lake.closures.current(pl.col("change_id").is_in(closed))
        return bool(closed - {one.change_id for one in known if one.cause != Cause.UNEXPLAINED})

    def explain(
        self,
        executions: Collection[Execution] = (),
        asked: Asked | None = None,
    ) -> Explained:
        """Store executions of the day, judge all closes again, and store what is known now.

        Args:
            executions: What a gateway named.
            asked: The span for which the gateway named all executions, by account. Without a span,
                the absence of an execution proves nothing.
        """
        lake, now = self.lake, self.clock()
        if executions:
            lake.executions.add(executions, run_id=self.run_id)
        since = now - WINDOW
        changes = lake.position_changes.records(since)
        judged: defaultdict[str, list[Closure]] = defaultdict(list)
        if any(change.closed for change in changes):
            for one in closures_of(self._facts(changes, since - BEFORE, asked or {}), now):
                judged[one.change_id].append(one)
        # Read after the facts: another process may have judged meanwhile, from more of them.
        counted = lake.closures.current_rows()
        added: list[Closure] = []
        if judged:
            known: defaultdict[str, list[Closure]] = defaultdict(list)
            of_these = pl.col("change_id").is_in([change.change_id for change in changes])
            for one in records_of(Closure, counted.filter(of_these)):
                known[one.change_id].append(one)
            for change_id, new in judged.items():
                before = known.get(change_id, ())
                if knows_more(new, before):
                    # The causes judged last count, also after the clock was set back.
                    last = max((one.judged_at or NEVER for one in before), default=NEVER)
                    judged_at = max(now, last + timedelta(microseconds=1))
                    added += [replace(one, judged_at=judged_at) for one in new]
        rows = lake.closures.add(added, run_id=self.run_id)
        if rows:
            counted = lake.closures.current_rows()
        is_unexplained = pl.col("cause") == Cause.UNEXPLAINED.value
        unexplained = records_of(Closure, counted.filter(is_unexplained))
        due = tuple(one for one in unexplained if elapsed(one.closed_at, now) >= GRACE)
        self._ask_people(due, now)
        return Explained(rows=rows, unexplained=due)

    def _facts(self, changes: list[PositionChange], since: datetime, asked: Asked) -> Facts:
        lake = self.lake
        events = lake.statement_events.records(since.date())
        contracts = lake.contracts.get({change.conid for change in changes})
        return Facts(
            changes=changes,
            executions=lake.executions.records(since),
            events=events,
            contracts=contracts,
            stated=stated_days(events),
            asked=asked,
            prices=self._underlying_prices(changes, contracts),
        )

    def _underlying_prices(
        self, changes: Iterable[PositionChange], contracts: Mapping[int, ContractDetails]
    ) -> Mapping[int, tuple[float, datetime]]:
        """Return, by option, the last price of its underlying before the option's end.

        The rows of all options on the underlying are searched: an option that ends worthless may
        have no greeks any more. The price is read once, for options that closed in the last day.
        """
        now, ends = self.clock(), defaultdict[datetime, dict[int, int]](dict)
        for change in changes:
            details = contracts.get(change.conid)
            ended = last_trade(change, details) if change.is_option and change.closed else None
            under = details.under_conid if details is not None else None
            is_new = now - change.seen_at <= A_DAY and change.conid not in self._prices
            if ended is not None and under and is_new and ended <= change.seen_at:
                ends[ended][change.conid] = under
        if not ends:
            return self._prices
        known = self.lake.contracts.table.rows(columns=["conid", "under_conid"])
        for ended, unders in ends.items():
            of_these = pl.col("under_conid").is_in(list(unders.values()))
            under_of = dict(known.filter(of_these).iter_rows())
            rows = self.lake.updates.sync.between(ended - NEAR, ended, under_of)
            priced = rows.drop_nulls("underlying_price").select(
                "conid", "underlying_price", "greeks_time"
            )
            priced = priced.filter(priced["greeks_time"].is_between(ended - NEAR, ended))
            priced = priced.sort("greeks_time")
            last = {under_of[conid]: (price, at) for conid, price, at in priced.rows()}
            for conid, under in unders.items():
                if under in last:
                    self._prices[conid] = last[under]
        return self._prices

    def _ask_people(self, due: Collection[Closure], now: datetime) -> None:
        if due or any(one.gateway_id == BREAKS for one in self.lake.breaks.open_breaks(BREAKS)):
            self.lake.breaks.record(BREAKS, map(_discrepancy, due), now, run_id=self.run_id)


def stated_days(events: Iterable[StatementEvent]) -> dict[str, dict[date, datetime]]:
    """Return the days of each account that statements cover, each with the newest statement's time.

    A statement that names no time counts as made at the beginning of its last day.
    """
    days: defaultdict[str, dict[date, datetime]] = defaultdict(dict)
    for one in events:
        if one.kind is not EventKind.PERIOD or one.first_day is None:
            continue
        made = one.stated_at or datetime.combine(one.day, time(), NEW_YORK)
        known = days[one.account]
        for step in range((one.day - one.first_day).days + 1):
            day = one.first_day + timedelta(days=step)
            known[day] = max(made, known.get(day, made))
    return dict(days)


def _discrepancy(one: Closure) -> Discrepancy:
    return Discrepancy(
        type=DiscrepancyType.UNEXPLAINED,
        account=one.account,
        conid=one.conid,
        symbol=one.symbol,
        expected=None,
        actual=one.quantity,
        detail=f"{one.quantity:+g} {one.name} closed at {one.closed_at:%Y-%m-%d %H:%M} UTC: "
        f"{one.detail}",
    )
