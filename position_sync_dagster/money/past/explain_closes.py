"""Closes: their causes by the tables, and a break where none is known."""

from collections.abc import Collection, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from operator import attrgetter

from polars import DataFrame, Expr, coalesce, col, concat, min_horizontal

from position_sync_dagster.domain.clock import A_DAY, NEVER, Clock, elapsed, utc_now
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import Asked, Execution
from position_sync_dagster.domain.holding import KEY, grouped
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.lake.schema import moment, one_of, records_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.causes import (
    LAST_PRICE,
    Facts,
    closures_of,
)
from position_sync_dagster.money.past.closes import (
    FLEX,
    SLACK,
    Cause,
    Closure,
    EventKind,
    Stage,
    knows_more,
)
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.movements import BOOKED
from position_sync_dagster.sync.exchange_days import exchange_of

# Time in which a close is judged again: its statement may come late, and may be corrected.
WINDOW = timedelta(days=60)

# Maximum age of the executions and events of a change, before the change.
BEFORE = timedelta(days=7)

# Time in which shares may come after an option, and the gateway is asked for executions.
AN_HOUR = timedelta(hours=1)

# Time in which a trade that a gateway named is looked for in statements that are older than its
# cause: statements of a day may be made during it.
WEEK = timedelta(days=7)

# Minimum age of a close before it counts as unexplained: its executions may still arrive.
GRACE = timedelta(minutes=2)

# The name under which breaks of closes are recorded, in place of a gateway.
BREAKS = "closures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The outcome of one judgement.

    Attributes:
        rows: How many rows were added to `closures`.
        unexplained: The closes whose cause is not known after `GRACE`, oldest first, and that need
            a person.
    """

    rows: int
    unexplained: tuple[Closure, ...]


@dataclass(eq=False, repr=False)
class CloseExplainer:
    """Judges the closes of the last weeks, by `movements` of the day too; any process may do it.

    Args:
        run_id: The Dagster run that is written into the rows.

    Example:
        CloseExplainer(lake).explain()
    """

    lake: MoneyLake
    _: KW_ONLY
    clock: Clock = utc_now
    run_id: str | None = None

    def explain(
        self, executions: Collection[Execution] = (), asked: Asked | None = None
    ) -> Explained:
        """Store executions of the day, judge the closes that are due, and store what is known now.

        Args:
            executions: What a gateway named.
            asked: The span for which the gateway named all executions, by account. Without a span,
                the absence of an execution proves nothing.
        """
        lake = self.lake
        now = self.clock()
        if executions and lake.executions.add(executions, run_id=self.run_id):
            first = min(execution.time for execution in executions) - BEFORE
            MovementBook(lake, run_id=self.run_id).update(since=first.date())

        since = now - WINDOW
        closes = lake.position_changes.rows(since, IS_CLOSE, _CLOSE)
        counted = lake.closures.current_rows(since=since - BEFORE, columns=_COUNTED)
        judged: dict[str, list[Closure]] = {}
        if due := due_closes(closes, counted, self._named(since - BEFORE), now):
            facts = self._facts(closes.filter(one_of("change_id", due)), asked or {})
            judged = grouped(attrgetter("change_id"), closures_of(facts, due))

        unknown = counted.filter(cause=Cause.UNEXPLAINED.value)
        unknown = unknown.join(closes, on="change_id", how="semi")
        open_ids = {*unknown["change_id"], *judged}
        # Read after the facts: another process may have judged meanwhile, from more facts.
        stored = []
        if open_ids:
            stored = lake.closures.current(one_of("change_id", open_ids), since - BEFORE)
        counting = grouped(attrgetter("change_id"), stored)
        replaced = {}
        for change_id, closures in judged.items():
            before = counting[change_id]
            if knows_more(closures, before):
                replaced[change_id] = _judged_last(closures, before, now)

        closures = list(chain.from_iterable(replaced.values()))
        rows = lake.closures.add(closures, run_id=self.run_id)

        counting |= replaced
        unexplained = self._ask_person(chain.from_iterable(counting.values()), closes, now)
        return Explained(rows=rows, unexplained=unexplained)

    follow_changes = explain

    def _ask_person(
        self, closures: Iterable[Closure], closes: DataFrame, now: datetime
    ) -> tuple[Closure, ...]:
        """Open a break for each close without a cause, and resolve those of the others.

        Breaks of closes before the window stay as they are.
        """
        of_person = filter(attrgetter("needs_person"), closures)
        waiting = [closure for closure in of_person if elapsed(closure.closed_at, now) >= GRACE]
        waiting.sort(key=attrgetter("closed_at"))

        keys = set(closes.select(KEY).iter_rows())
        self.lake.breaks.record(
            {BREAKS: list(map(_discrepancy, waiting))},
            now,
            compared=lambda named: (
                named.gateway_id == BREAKS and (named.account, named.conid) in keys
            ),
            run_id=self.run_id,
        )
        return tuple(waiting)

    def _named(self, since: datetime) -> DataFrame:
        """Return which holdings and times executions and statements name, and since when."""
        columns = (*KEY, "stated_at", "source", "statement")
        executions = self.lake.executions.rows(since, columns=(*columns, "time"))
        of_events = (*columns, "first_day", "day")
        events = self.lake.statement_events.rows(since.date(), columns=of_events)
        return concat([executions, events], how="diagonal")

    def _facts(self, due: DataFrame, asked: Asked) -> Facts:
        """Read what may explain the closes that are due: what changed near them, and its facts."""
        lake = self.lake
        key = ("account", "symbol")
        seen_at = col.seen_at
        first_confirmed = min_horizontal("since", seen_at).min()
        spans = due.group_by(key).agg(first=first_confirmed - BEFORE, last=seen_at.max() + A_DAY)
        first: datetime = spans.get_column("first").min()  # type: ignore[assignment]

        near = lake.position_changes.rows(first, one_of("symbol", spans["symbol"]))
        near = near.join(spans, on=key)
        near = near.filter(seen_at.is_between("first", "last"))
        changes = records_of(PositionChange, near.sort("seen_at", "change_id"))

        conids = near.get_column("conid").unique().to_list()
        contracts = lake.contracts.get(conids)
        of_contracts = one_of("conid", conids)
        is_period = col.kind == EventKind.PERIOD.value
        movements = lake.movements.records(first.date(), of_contracts)
        periods = lake.statement_events.records(first.date(), is_period)
        prices_before = cache(self._prices_before)
        return Facts(
            changes=changes,
            movements=movements,
            periods=grouped(attrgetter("account"), periods),
            contracts=contracts,
            asked=asked,
            price_before=lambda option, ended: prices_before(ended).get(option.under_conid),
            trading_days=exchange_of(lake.calendar).trading_days,
        )

    def _prices_before(self, ended: datetime) -> dict[int | None, float]:
        """Return the last price of each underlying in the minutes before a time.

        The rows of all options on it are searched: an option that ends worthless may have no greeks
        any more.
        """
        contracts = self.lake.contracts.table.rows(columns=["conid", "under_conid"]).drop_nulls()
        begin = ended - LAST_PRICE
        priced = ("conid", "greeks_time", "underlying_price")
        rows = self.lake.updates.sync.between(begin, ended, contracts["conid"], priced)
        rows = rows.filter(col.greeks_time.is_between(begin, ended))
        rows = rows.drop_nulls("underlying_price").join(contracts, on="conid").sort("greeks_time")
        return dict(rows.select("under_conid", "underlying_price").iter_rows())


def _judged_last(
    closures: Iterable[Closure], before: Iterable[Closure], now: datetime
) -> list[Closure]:
    """Return causes as judged after those before: they count, also after a clock was set back."""
    last = max((closure.judged_at or NEVER for closure in before), default=NEVER)
    judged_at = max(now, last + timedelta(microseconds=1))
    return [replace(closure, judged_at=judged_at) for closure in closures]


_CLOSE = ("change_id", "account", "conid", "symbol", "since", "seen_at")
_COUNTED = ("change_id", "cause", "stage", "statement", "judged_at")

# The rows of `position_changes` that closed something, as `PositionChange.closed` says.
IS_CLOSE = (col.after.abs() < col.before.abs()) | (col.before * col.after < 0)


def _new_york(at: Expr) -> Expr:
    return at.dt.convert_time_zone(str(NEW_YORK)).dt.date()


def due_closes(closes: DataFrame, counted: DataFrame, named: DataFrame, now: datetime) -> set[str]:
    """Return the closes to judge: those without a cause, and those of which there is more to know.

    The gateway may say more of a close for an hour, and for a day of one without a cause. Later an
    execution or an event counts that was stated after its cause, or after the statement of its
    cause, which may arrive later than it was made; and while a statement has not said its cause,
    any statement of its days.

    Args:
        closes: Rows of `position_changes`.
        counted: The causes that count.
        named: What executions and statements name: account, conid, day or time, stated_at.
        now: The current time.
    """
    is_known = col.cause != Cause.UNEXPLAINED.value
    is_traded = col.cause == Cause.TRADED.value
    is_stated = is_known & (col.stage == Stage.STATED.value)
    is_open = ~is_stated & col.statement.is_null()
    age = moment(now) - col.seen_at

    of_statement = [*KEY, "statement"]
    last_stated_at = named.group_by(of_statement).agg(last_stated_at=col.stated_at.max())
    judged = closes.join(counted, on="change_id", how="left")
    judged = judged.join(last_stated_at, on=of_statement, how="left").with_columns(
        begin=coalesce("since", "seen_at"), waits=is_open & (~is_traded | (age <= WEEK))
    )

    may_come_soon = ~is_traded & (age <= AN_HOUR)
    may_come_today = ~is_known & (age <= A_DAY)
    by_time = judged.filter(col.judged_at.is_null() | (is_open & (may_come_soon | may_come_today)))

    # Of an execution or an event near a close that began after it was last confirmed.
    facts = named.select(*KEY, "stated_at", "source", at=coalesce("time", "day"))
    is_near = col.at.is_between(col.begin - BOOKED - A_DAY, col.seen_at + SLACK)
    is_newer = col.stated_at > coalesce("last_stated_at", "judged_at")
    is_awaited = col.waits & (col.source == FLEX)
    by_contract = judged.join(facts, on=KEY).filter(is_near, is_newer | is_awaited)

    periods = named.drop_nulls("first_day").select("account", "first_day", "day")
    by_day = judged.filter("waits").join(periods, on="account")
    ends_after = col.day >= _new_york(col.begin)
    by_day = by_day.filter(ends_after, col.first_day <= _new_york(col.seen_at))
    return {*chain(by_time["change_id"], by_contract["change_id"], by_day["change_id"])}


def _discrepancy(closure: Closure) -> Discrepancy:
    when = f"{closure.closed_at:%Y-%m-%d %H:%M} UTC"
    what = f"{closure.quantity:+g} {closure.name}"
    return Discrepancy(
        DiscrepancyType.UNEXPLAINED,
        closure.account,
        closure.conid,
        closure.symbol,
        None,
        closure.quantity,
        f"{what} closed at {when}: {closure.detail}",
    )
