"""Closes: the changes of quantities, their causes by the tables, a break where none is known."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter

import polars as pl

from position_sync_dagster.domain.causes import (
    A_DAY,
    BOOKED,
    LAST_PRICE,
    Facts,
    closures_of,
    last_trade,
)
from position_sync_dagster.domain.clock import NEVER, Clock, elapsed, utc_now
from position_sync_dagster.domain.closes import (
    FLEX,
    SLACK,
    Cause,
    Closure,
    EventKind,
    Execution,
    PositionChange,
    Stage,
    knows_more,
)
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import BrokerPosition, Key, grouped
from position_sync_dagster.domain.instrument import ContractDetails, Instrument
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.records import LookedAt
from position_sync_dagster.lake.schema import content_id, moment, one_of, records_of
from position_sync_dagster.sync.movement_book import MovementBook

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

# From when and until when the gateway named all executions of an account.
Asked = Mapping[str, tuple[datetime, datetime]]


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
    """Judges the closes of the last weeks, and keeps `movements`; any process may do it.

    Args:
        run_id: The Dagster run that is written into the rows.
        calendar: The exchange whose trading days movements belong to.
        guard: Checks the lease of the owner that sees the changes, right before they are stored.

    Example:
        CloseExplainer(lake).explain()
    """

    lake: Lake
    _: KW_ONLY
    clock: Clock = utc_now
    run_id: str | None = None
    calendar: str = "XNYS"
    guard: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._prices: dict[int, float] = {}

    def record(self, changes: Iterable[PositionChange]) -> int:
        """Store changes of quantities; one that is known is not stored again."""
        return self.lake.position_changes.add(changes, self.run_id, self.guard)

    def explain(
        self, executions: Collection[Execution] = (), asked: Asked | None = None
    ) -> Explained:
        """Store executions of the day, judge the closes that are due, and store what is known now.

        Args:
            executions: What a gateway named.
            asked: The span for which the gateway named all executions, by account. Without a span,
                the absence of an execution proves nothing.
        """
        lake, now = self.lake, self.clock()
        new_executions = lake.executions.add(executions, run_id=self.run_id) if executions else 0
        looked = self._looked(now)
        since = max(looked.since, now - WINDOW)
        closes = lake.position_changes.rows(since, IS_CLOSE, _CLOSE)
        said = self._said(since - BEFORE)
        counted = lake.closures.current_rows(since=since - BEFORE, columns=_COUNTED)
        due = due_closes(closes, counted, said, now)
        judged: dict[str, list[Closure]] = {}
        if due:
            facts = self._facts(closes.filter(one_of("change_id", due)), asked or {})
            judged = grouped(attrgetter("change_id"), closures_of(facts, now, due))
        unknown = counted.filter(pl.col("cause") == Cause.UNEXPLAINED.value)
        unknown = unknown.join(closes, on="change_id", how="semi")
        open_ids = {*unknown.get_column("change_id"), *judged}
        # Read after the facts: another process may have judged meanwhile, from more facts.
        are_open = one_of("change_id", open_ids)
        stored = lake.closures.current(are_open, since - BEFORE) if open_ids else []
        counting = grouped(attrgetter("change_id"), stored)
        replaced = {
            change_id: _judged_last(new, counting[change_id], now)
            for change_id, new in judged.items()
            if knows_more(new, counting[change_id])
        }
        rows = lake.closures.add(chain.from_iterable(replaced.values()), run_id=self.run_id)
        if new_executions or rows:
            MovementBook(lake, self.calendar, run_id=self.run_id).update()
        newest = chain.from_iterable((counting | replaced).values())
        unexplained = (closure for closure in newest if closure.needs_person)
        waiting = [closure for closure in unexplained if elapsed(closure.closed_at, now) >= GRACE]
        waiting.sort(key=attrgetter("closed_at"))
        # Breaks of closes before the window stay as they are.
        keys = set(closes.select(_KEY).iter_rows())
        lake.breaks.record(
            {BREAKS: list(map(_discrepancy, waiting))},
            now,
            compared=lambda one: one.gateway_id == BREAKS and (one.account, one.conid) in keys,
            run_id=self.run_id,
        )
        first = closes.filter(are_open).get_column("seen_at").min()
        since = min(first, looked.until) if isinstance(first, datetime) else looked.until
        lake.closures.looked = replace(looked, since=since)
        return Explained(rows=rows, unexplained=tuple(waiting))

    def _looked(self, now: datetime) -> LookedAt:
        """Return from when on closes are looked at: from the first that was open at the last look.

        All of the window are looked at again if another file may have a row of the days before, or
        if a statement came: it may cover any days.
        """
        lake = self.lake
        tables = (lake.position_changes, lake.executions, lake.closures)

        def files(until: datetime) -> frozenset[str]:
            return lake.statement_events.files().union(*(one.files(until) for one in tables))

        last = lake.closures.looked
        if last is not None and last.files == files(last.until):
            return last
        until = now - 2 * A_DAY
        return LookedAt(since=now - WINDOW, until=until, files=files(until))

    def _said(self, since: datetime) -> pl.DataFrame:
        """Return which holdings and times executions and statements name, and since when."""
        lake, both = self.lake, (*_KEY, "stated_at", "source")
        executions = lake.executions.rows(since, columns=(*both, "time"))
        events = lake.statement_events.rows(since.date(), columns=(*both, "first_day", "day"))
        return pl.concat([executions, events], how="diagonal")

    def _facts(self, due: pl.DataFrame, asked: Asked) -> Facts:
        """Read what may explain the closes that are due: what changed near them, and its facts."""
        lake, of, seen_at = self.lake, ("account", "symbol"), pl.col("seen_at")
        spans = due.group_by(of).agg(
            first=pl.min_horizontal("since", seen_at).min() - BEFORE, last=seen_at.max() + A_DAY
        )
        first: datetime = spans.get_column("first").min()  # type: ignore[assignment]
        of_symbols = one_of("symbol", spans["symbol"])
        near = lake.position_changes.rows(first, of_symbols).join(spans, on=of)
        near = near.filter(seen_at.is_between("first", "last"))
        found = records_of(PositionChange, near.sort("seen_at", "change_id"))
        conids = near.get_column("conid").unique().to_list()
        of_these = one_of("conid", conids)
        of_all = pl.col("kind").is_in([EventKind.CORPORATE_ACTION.value, EventKind.PERIOD.value])
        contracts = lake.contracts.get(conids)
        return Facts(
            changes=found,
            executions=lake.executions.records(first, of_these),
            events=lake.statement_events.records(first.date(), of_these | of_all),
            contracts=contracts,
            asked=asked,
            prices=self._underlying_prices(found, contracts),
        )

    def _underlying_prices(
        self, changes: Iterable[PositionChange], contracts: Mapping[int, ContractDetails]
    ) -> Mapping[int, float]:
        """Return, by option, the last price of its underlying before the option's end.

        The rows of all options on the underlying are searched: an option that ends worthless may
        have no greeks any more. The price is read once, for options that closed in the last day.
        """
        ends: defaultdict[datetime, dict[int, int]] = defaultdict(dict)
        for change in changes:
            details = contracts.get(change.conid)
            ended = last_trade(change, details) if change.is_option and change.closed else None
            under = details.under_conid if details is not None else None
            is_new = self.clock() - change.seen_at <= A_DAY and change.conid not in self._prices
            if ended is not None and under and is_new and ended <= change.seen_at:
                ends[ended][change.conid] = under
        for ended, unders in ends.items():
            known = self.lake.contracts.table.rows(columns=["conid", "under_conid"])
            of_these = pl.col("under_conid").is_in(list(unders.values()))
            under_of = dict(known.filter(of_these).iter_rows())
            rows = self.lake.updates.sync.between(ended - LAST_PRICE, ended, under_of)
            priced = rows.filter(
                pl.col("underlying_price").is_not_null(),
                pl.col("greeks_time").is_between(ended - LAST_PRICE, ended),
            ).sort("greeks_time")["conid", "underlying_price"]
            last = {under_of[conid]: price for conid, price in priced.iter_rows()}
            self._prices |= {conid: last[under] for conid, under in unders.items() if under in last}
        return self._prices


def _judged_last(new: Iterable[Closure], before: Iterable[Closure], now: datetime) -> list[Closure]:
    """Return causes as judged after those before: they count, also after a clock was set back."""
    last = max((one.judged_at or NEVER for one in before), default=NEVER)
    return [replace(one, judged_at=max(now, last + timedelta(microseconds=1))) for one in new]


_CLOSE = ("change_id", "account", "conid", "symbol", "since", "seen_at")
_COUNTED = ("change_id", "cause", "stage", "statement", "judged_at")
_KEY = ("account", "conid")

# The rows of `position_changes` that closed something, as `PositionChange.closed` says.
IS_CLOSE = (pl.col("after").abs() < pl.col("before").abs()) | (
    pl.col("before") * pl.col("after") < 0
)


def _new_york(at: pl.Expr) -> pl.Expr:
    return at.dt.convert_time_zone(str(NEW_YORK)).dt.date()


def due_closes(
    closes: pl.DataFrame, counted: pl.DataFrame, said: pl.DataFrame, now: datetime
) -> set[str]:
    """Return the closes to judge: those without a cause, and those of which there is more to know.

    The gateway may say more of a close for an hour, and for a day of one without a cause. Later an
    execution or an event counts that was stated after its cause; and while a statement has not said
    its cause, any statement of its days.

    Args:
        closes: Rows of `position_changes`.
        counted: The causes that count.
        said: What executions and statements name: account, conid, day or time, stated_at.
        now: The current time.
    """
    ones = closes.join(counted, on="change_id", how="left")
    seen, judged_at, cause = pl.col("seen_at"), pl.col("judged_at"), pl.col("cause")
    is_known, is_traded = cause != Cause.UNEXPLAINED.value, cause == Cause.TRADED.value
    is_stated = is_known & (pl.col("stage") == Stage.STATED.value)
    is_open = ~is_stated & pl.col("statement").is_null()
    waits = is_open & (~is_traded | (seen >= moment(now - WEEK)))
    begin = pl.coalesce("since", "seen_at")
    due = ones.filter(
        judged_at.is_null()
        | (is_open & ~is_known & (seen >= moment(now - A_DAY)))
        | (is_open & ~is_traded & (seen >= moment(now - AN_HOUR)))
    )
    facts = said.select(*_KEY, "stated_at", "source", at=pl.coalesce("time", "day"))
    of_contracts = (
        ones.with_columns(waits=waits)
        .join(facts, on="conid")
        .filter(
            (pl.col("stated_at") > judged_at) | (pl.col("waits") & (pl.col("source") == FLEX)),
            pl.col("account") == pl.col("account_right"),
            pl.col("at").is_between(begin - BOOKED - A_DAY, seen + SLACK),
        )
    )
    days = ones.filter(waits).select(
        "change_id", "account", begin=_new_york(begin), end=_new_york(seen)
    )
    periods = said.filter(pl.col("first_day").is_not_null()).select("account", "first_day", "day")
    of_days = days.join(periods, on="account").filter(
        pl.col("first_day") <= pl.col("end"), pl.col("day") >= pl.col("begin")
    )
    found = [one.get_column("change_id") for one in (due, of_contracts, of_days)]
    return set(pl.concat(found))


def _discrepancy(one: Closure) -> Discrepancy:
    when = f"{one.closed_at:%Y-%m-%d %H:%M} UTC"
    detail = f"{one.quantity:+g} {one.name} closed at {when}: {one.detail}"
    kind, key = DiscrepancyType.UNEXPLAINED, (one.account, one.conid)
    return Discrepancy(kind, *key, one.symbol, None, one.quantity, detail)


_TERMS = ("conid", "symbol", "sec_type", "currency", "multiplier", "right", "strike", "expiry")


def after_changes(
    published: Mapping[Key, BrokerPosition], changes: Iterable[PositionChange]
) -> dict[Key, BrokerPosition]:
    """Return the holdings that stored changes left otherwise than they are published.

    Args:
        published: All holdings of a login, and those that closed since a time.
        changes: The changes since then, oldest first.
    """
    found: dict[Key, BrokerPosition] = {}
    for change in changes:
        known = found.get(change.key) or published.get(change.key)
        at, quantity = (known.position_time, known.position) if known else (change.seen_at, 0.0)
        if change.change_id != content_id(at, *change.key, quantity, change.after):
            continue  # it is published
        found[change.key] = BrokerPosition(
            gateway_id=change.gateway_id,
            account=change.account,
            instrument=Instrument(**{name: getattr(change, name) for name in _TERMS}),
            position=change.after,
            average_cost=change.average_cost,
            received_at=change.seen_at,
            position_time=change.seen_at,
            snapshot_id=change.snapshot_id,
        )
    return found


def changes_between(
    before: Mapping[Key, BrokerPosition],
    after: Mapping[Key, BrokerPosition],
    confirmed: Mapping[str, datetime | None],
) -> list[PositionChange]:
    """Return the quantities that changed.

    Before the first list of an account its holdings are unknown: those in that list are no change.
    An account without holdings is known too, once the broker has confirmed it.

    Args:
        before: The holdings as they were published last.
        after: Those that are published now, or only the ones that changed.
        confirmed: Until when the broker had confirmed the holdings of each account.
    """
    moved = [
        (known, holding)
        for key, holding in after.items()
        if (known := before.get(key)) is None or known.position != holding.position
    ]
    accounts = {account for account, _conid in before} if moved else set()
    accounts |= {account for account, at in confirmed.items() if at is not None}
    found: list[PositionChange] = []
    for known, holding in moved:
        quantity = known.position if known is not None else 0.0
        if holding.account not in accounts or holding.position == quantity:
            continue
        times = [confirmed.get(holding.account)]
        price = cost = daily = None
        began = holding.position_time
        if known is not None:
            times += known.confirmed_at, known.position_time
            price = _price_of(known)
            cost = known.average_cost
            daily = _profit_of_day(known, holding.position_time)
            began = known.position_time
        # Later times are from before the clock was set back.
        since = max((at for at in times if at and at <= holding.position_time), default=None)
        found.append(
            PositionChange(
                change_id=content_id(began, *holding.key, quantity, holding.position),
                account=holding.account,
                **{name: getattr(holding.instrument, name) for name in _TERMS},
                before=quantity,
                after=holding.position,
                average_cost=cost,
                market_price=price,
                daily_pnl=daily,
                since=since,
                seen_at=holding.position_time,
                gateway_id=holding.gateway_id,
                snapshot_id=holding.snapshot_id,
            )
        )
    return found


def _profit_of_day(holding: BrokerPosition, at: datetime) -> float | None:
    """Return the profit of the day that came with a holding's value; None of another day."""
    is_of_day = exchange_date(holding.received_at) == exchange_date(at)
    return holding.daily_pnl if is_of_day else None


def _price_of(holding: BrokerPosition) -> float | None:
    """Return what the broker's value makes for one unit: its price may be in cents or not."""
    if holding.market_value is None or not holding.position:
        return None
    return holding.market_value / (holding.position * holding.instrument.multiplier)
