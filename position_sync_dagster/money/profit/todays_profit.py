"""Why the profit of today is what it is: the parts of `profit_explained`, of the day so far.

The number that is explained is that of the figures: the broker's profit of the day of each open
holding, in which commissions are no part. It counts from the close before, so the parts begin with
that close in `daily_positions`. Near the expiry, and where the close has no greeks, the parts come
from full revaluation. What our closes and movements do not explain of the broker's number is
`unexplained`; where a holding cannot be explained, the parts of its strategy are not known.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
from polars import col
from pydantic import BaseModel, ConfigDict

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.cents import cents, in_cents
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.profit.moved_between import movements_between
from position_sync_dagster.money.profit.profit import (
    BOOKED_BEFORE,
    BY_GREEKS,
    IS_MISSING,
    PARTS,
    explain_holdings,
    rows_to_explain,
    sum_of_greek,
)
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.risk.coverage import sum_if_carried
from position_sync_dagster.money.risk.priced_legs import SIZE, Assumptions, PricedLegs, contract_of
from position_sync_dagster.money.risk.recorded_risk import assumptions_of
from position_sync_dagster.money.risk.revaluation import OptionValues, price_steps
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times, exchange_days

# Options that expire within this time are revalued: at five days to the expiry theta and gamma of
# one at the money change by an eighth within a day, and faster later (both go with 1/√time).
NEAR_EXPIRY = timedelta(days=5)

# How many of the largest legs of a part are named.
LARGEST = 3

# Amounts of money below this are the rounding of sums.
AMOUNT_ROUNDING = 1e-6

# At most so many options are revalued, those with the nearest expiry: each takes 1 to 2 ms.
MOST_REVALUED = 1000

# How long before a close a row of the ledger may be whose computed greeks count, in days.
ROWS_OF_CLOSE_DAYS = 1 / 24

# The longest time in which an exchange has a trading day.
LOOK_BACK = timedelta(days=14)


# What greeks need at both ends, and all that splits a change of price by them.
_GREEK_INPUTS = ("underlying_price", "implied_vol")
_SPLIT_BY = (*BY_GREEKS, *_GREEK_INPUTS)


class LargestLeg(BaseModel):
    """What a leg adds to a part."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    account: str
    conid: int
    leg: str
    """The contract as a trader writes it."""
    amount: float


class ClosedLeg(BaseModel):
    """What a holding that closed today earned today."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    account: str
    conid: int
    leg: str
    """The contract as a trader writes it."""
    profit: float | None
    """Null: not known."""


class TodaysProfit(BaseModel):
    """The profit of today of a strategy in an account and a currency, and what it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    strategy: str
    """The strategy, or UNATTRIBUTED."""
    account: str
    currency: str
    at: datetime
    """The moment of all numbers."""
    since: datetime
    """The close before, from which they count."""
    profit: float | None
    """Today's number of the figures, of what is open: the sum of the parts; null: not known."""
    delta: float | None
    """By the move of the underlyings; of `revalued` legs with what gamma adds."""
    gamma: float | None
    """By the change of delta during that move."""
    vega: float | None
    """By the change of the implied volatilities."""
    theta: float | None
    """By the time that passed."""
    repricing: float | None
    """The rest of the change of the prices; null, as the greeks, where too few legs have greeks."""
    trades: float | None
    """From the prices of trades to the present prices."""
    fees: float | None
    """0: the broker's profit of the day leaves commissions out."""
    assignments: float | None
    """Assignments, exercises, transfers and corporate actions, and what they left."""
    cash: float | None
    """0: income is in no holding's profit of the day."""
    unexplained: float | None
    """What the broker counts from another closing price, or from a price of another second."""
    largest: dict[str, list[LargestLeg]]
    """The three largest legs of each part that has any."""
    movements: list[str]
    """The ids of the movements since the close, also of what closed."""
    revalued: list[str]
    """The legs whose parts come from full revaluation: spot, then volatility, then time."""
    without_greeks: list[str]
    """The legs whose change of price no greek splits: greeks, volatility or spot is unknown."""
    left_out: int
    """The holdings whose profit of the day is not known, which `profit` leaves out."""
    known: int
    """Those whose profit is; where they do not carry the sum, `profit` is null."""
    of: int
    """All open holdings."""
    why_unknown: str | None
    """Why parts are not known, leg by leg, and which legs are left out."""
    closed: float | None
    """What closed today earned today, which is not in `profit`; null if one is not known."""
    closed_legs: list[ClosedLeg]
    """What closed today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningBook:
    """The holdings at the close before the present day.

    Attributes:
        today: The present day of the exchange.
        session: The last trading day before it.
        closed_at: When that one closed.
        rows: Its rows of `daily_positions`, with their `magnifier`; none if it is not recorded.
    """

    today: date
    session: date
    closed_at: datetime
    rows: pl.DataFrame


def read_opening_book(lake: MoneyLake, settings: Settings, now: datetime) -> OpeningBook:
    """Read the close before the present day; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    today, session, closed_at = day_and_close_before(settings.calendar, now)
    table = lake.derived_table(DAILY_POSITIONS)
    recorded = DAILY_POSITIONS.empty
    if table.exists():
        recorded = _rows_of_session(lake, session, closed_at)

    rows = rows_to_explain(lake, settings, recorded)
    return OpeningBook(today=today, session=session, closed_at=closed_at, rows=rows)


def _rows_of_session(lake: MoneyLake, session: date, closed_at: datetime) -> pl.DataFrame:
    """Return the rows of a close, with the greeks that the ledger has of them."""
    table = lake.derived_table(DAILY_POSITIONS)
    is_of_session = col.session_date == session
    rows = table.rows(is_of_session, pl.col("partition.session_date") == session)

    # `daily_positions` leaves out the greeks that this package computed.
    lacks_greeks = col.right.is_not_null() & (col.position != 0) & col.delta.is_null()
    if rows.filter(lacks_greeks).is_empty():
        return rows

    written = lake.updates.sync.last_before(closed_at, ROWS_OF_CLOSE_DAYS)
    computed = written.select("update_id", pl.col(_SPLIT_BY).name.prefix("computed_"))
    joined = rows.join(computed, on="update_id", how="left", maintain_order="left")
    filled = {name: pl.coalesce(name, f"computed_{name}") for name in _SPLIT_BY}
    return joined.with_columns(**filled).select(rows.columns)


def day_and_close_before(calendar: str, now: datetime) -> tuple[date, date, datetime]:
    """Return the present day of an exchange, the last trading day before it, and its close."""
    days = exchange_days(calendar, now.date() - LOOK_BACK, now.date())
    today = now.astimezone(days.zone).date()
    session = today - A_DAY
    while not days.is_trading_day(session):
        session -= A_DAY
    return today, session, closing_times(calendar, [session])[session]


def explain_today(lake: MoneyLake, settings: Settings, figures: Figures) -> list[TodaysProfit]:
    """Return why the profit of today of each strategy is what it is; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    book = figures.book
    opening = read_opening_book(lake, settings, book.now)
    all_movements = lake.movements.rows(since=opening.session - BOOKED_BEFORE)
    movements = rows_of_logins(all_movements, settings)
    given = assumptions_of(lake, settings, book)
    return explained(figures, opening, movements, given, settings)


def of_strategy(
    rows: Sequence[TodaysProfit], strategy: str | None, book: Book
) -> list[TodaysProfit]:
    """Return the rows of one strategy; None: all.

    Raises:
        UnknownStrategyError: It has no leg, and nothing of it closed today.
    """
    chosen = [row for row in rows if strategy in (None, row.strategy)]
    if not chosen:
        book.names.require(strategy=strategy)
    return chosen


def explained(
    figures: Figures,
    opening: OpeningBook,
    movements: pl.DataFrame,
    given: Assumptions,
    settings: Settings,
) -> list[TodaysProfit]:
    """Return why the profit of today of each strategy is what it is; pure.

    Args:
        figures: The figures of now.
        opening: The holdings at the close before.
        movements: Rows of `movements`, from some days before that close on.
        given: What options are priced with.
        settings: Says which types of holdings are followed.
    """
    book = figures.book
    present = _present_rows(book)
    close_before = (opening.session, opening.closed_at)
    now = (opening.today, book.now)
    between = movements_between(movements, opening.rows, present, close_before, now, settings)

    holdings = _explained_holdings(opening, present, between.moved, book, given)
    return _rows_of_groups(figures, opening, between.moved, _parts_of(book, holdings))


def _present_rows(book: Book) -> pl.DataFrame:
    """Return the open holdings with the columns that `explain_holdings` reads."""
    open_holdings = book.priced.filter(col.position != 0)
    magnifiers = book.split.parts.unique(KEY).select(*KEY, col.magnifier.cast(pl.Float64))
    return open_holdings.join(magnifiers, on=KEY, how="left", maintain_order="left")


def _explained_holdings(
    opening: OpeningBook,
    present: pl.DataFrame,
    moved: pl.DataFrame,
    book: Book,
    given: Assumptions,
) -> pl.DataFrame:
    """Return each holding with its parts by our own values, and how they were found.

    The columns `revalued` and `without_greeks` say where greeks of the close did not split it.
    """
    days = (book.now - opening.closed_at) / timedelta(days=1)
    by_greeks = explain_holdings(opening.rows, present, moved, days=days)
    with_reasons = _with_lost_closes(by_greeks, opening)
    ends = _both_ends(opening.rows, present)
    holdings = with_reasons.join(ends, on=KEY, how="left", maintain_order="left")

    is_wanted = _IS_SPLIT & ((col.expiry <= opening.today + NEAR_EXPIRY) | col.lacks_greeks)
    by_expiry = holdings.filter(is_wanted).sort("expiry", *KEY, nulls_last=True)
    steps = _steps_of(by_expiry.head(MOST_REVALUED), opening, present, book, given)
    return _with_steps(holdings, steps)


# Whether a holding is an option whose change of price is split.
_IS_SPLIT = col.right.is_not_null() & (col.held != 0)


def _with_lost_closes(holdings: pl.DataFrame, opening: OpeningBook) -> pl.DataFrame:
    """Return holdings; those of accounts without a close, which their movements show, say so."""
    is_recorded = col.account.is_in(opening.rows["account"].unique().to_list())
    is_lost = ~is_recorded & IS_MISSING.any().over("account")
    reason = pl.lit(f"the close of {opening.session} is not recorded")
    return holdings.with_columns(why_unknown=pl.when(is_lost).then(reason).otherwise("why_unknown"))


def _both_ends(first: pl.DataFrame, last: pl.DataFrame) -> pl.DataFrame:
    """Return contract terms of the open holdings, and whether greeks can split their moves."""
    start = first.select(*KEY, *BY_GREEKS, *_GREEK_INPUTS)
    end = last.select(*KEY, "right", "strike", "expiry", *_GREEK_INPUTS)
    joined = end.join(start, on=KEY, how="left", suffix="_0", maintain_order="left")

    inputs = pl.col(*_SPLIT_BY, *[f"{name}_0" for name in _GREEK_INPUTS])
    lacks_greeks = pl.any_horizontal(inputs.is_null())
    return joined.select(*KEY, "right", "strike", "expiry", lacks_greeks=lacks_greeks)


def _steps_of(
    wanted: pl.DataFrame,
    opening: OpeningBook,
    present: pl.DataFrame,
    book: Book,
    given: Assumptions,
) -> pl.DataFrame:
    """Return the steps of options at one unit; those without price, spot or terms are left out."""
    of_symbols = col.symbol.is_in(wanted["symbol"].unique().to_list())
    before = _priced(opening.rows.filter(of_symbols), given)
    after = _priced(present.filter(of_symbols), given)
    priced = [leg.priced for leg in after]
    has_terms = pl.Series([terms is not None for terms in priced], dtype=pl.Boolean)

    units_before = _units_of(before)
    units_now = _units_of(after).filter(has_terms)
    from_close = wanted.select(KEY).join(units_before, on=KEY)
    moves = from_close.join(units_now, on=KEY, suffix="_now").drop_nulls()

    terms = [priced[place] for place in moves["place_now"]]
    start = _values_at(opening.closed_at, moves["price"], moves["spot"])
    end = _values_at(book.now, moves["price_now"], moves["spot_now"])
    steps = price_steps(terms, start, end)
    return moves.select(
        *KEY,
        spot_step=pl.Series(steps.spot),
        volatility_step=pl.Series(steps.volatility),
        time_step=pl.Series(steps.time),
    )


def _values_at(at: datetime, prices: pl.Series, spots: pl.Series) -> OptionValues:
    return OptionValues(at, prices.to_numpy(), spots.to_numpy())


def _priced(rows: pl.DataFrame, given: Assumptions) -> PricedLegs:
    """Return whole holdings with what each is priced as."""
    whole = rows.with_columns(
        share=1.0, notional=pl.when(col.sec_type == "FUT").then("market_value")
    )
    return PricedLegs.of(whole, given)


def _units_of(legs: PricedLegs) -> pl.DataFrame:
    """Return the price and the spot of one unit of each holding, null where it is not known."""
    price = pl.when(SIZE != 0).then(col.market_value / SIZE)
    spot = pl.when(col.spot != 0).then("spot")
    numbered = legs.parts.with_row_index("place")
    return numbered.select(*KEY, "place", price=price, spot=spot)


def _with_steps(holdings: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Return holdings with the parts of full revaluation where they have steps."""
    rows = holdings.join(steps, on=KEY, how="left", maintain_order="left")
    is_revalued = col.spot_step.is_not_null()
    is_repriced = _IS_SPLIT & col.lacks_greeks & ~is_revalued

    revalued = {
        "delta": col.units_0 * col.spot_step,
        "gamma": pl.lit(0.0),  # the step of the spot has both
        "vega": col.units_0 * col.volatility_step,
        "theta": col.units_0 * col.time_step,
    }
    parts = {}
    for name, step in revalued.items():
        # Where one greek is missing, the others explain nothing.
        by_greek = pl.when(~is_repriced).then(name)
        parts[name] = pl.when(is_revalued).then(step).otherwise(by_greek)

    split = rows.with_columns(**parts, revalued=is_revalued, without_greeks=is_repriced)
    return split.with_columns(repricing=col.held - pl.sum_horizontal(BY_GREEKS))


def _parts_of(book: Book, holdings: pl.DataFrame) -> pl.DataFrame:
    """Return the parts of holdings, each with its share of the explained profit."""
    parts = book.split.parts.drop(*PARTS, strict=False)
    explained = holdings.select(
        *KEY, *PARTS, "revalued", "without_greeks", "why_unknown", "is_split", "value_0"
    )
    joined = parts.join(explained, on=KEY, how="left", maintain_order="left")
    shared = joined.with_columns(pl.col(*PARTS, "value_0") * col.share)

    # The broker's profit of the day has no commissions.
    others = pl.sum_horizontal("repricing", "trades", "assignments", "cash", ignore_nulls=False)
    unexplained = col.daily_pnl - others - pl.sum_horizontal(BY_GREEKS)
    fees = pl.when(col.why_unknown.is_null()).then(0.0)
    return shared.with_columns(fees=fees, unexplained=unexplained)


# Strategy, account and currency.
_GROUP = ("strategy_id", "account", "currency")


def _rows_of_groups(
    figures: Figures, opening: OpeningBook, moved: pl.DataFrame, parts: pl.DataFrame
) -> list[TodaysProfit]:
    """Return the rows in order, by strategy, account and currency.

    Args:
        parts: The parts of open holdings.
        moved: The movements since the close.
    """
    parts_of = parts.partition_by(_GROUP, as_dict=True)
    closed_of = _closed_legs(figures.closed_today)
    rows = []
    for group in sorted({*parts_of, *closed_of}):
        strategy, account, currency = group
        parts_of_group = parts_of.get(group, parts.clear())
        closed = closed_of[group]

        conids = set(parts_of_group["conid"])
        conids.update(leg.conid for leg in closed)
        moved_here = moved.filter(col.account == account, col.conid.is_in(conids))
        in_order = moved_here.sort("conid", maintain_order=True)
        row = TodaysProfit(
            strategy=strategy,
            account=account,
            currency=currency,
            at=figures.at,
            since=opening.closed_at,
            movements=in_order["movement_id"].to_list(),
            closed=known_sum(leg.profit for leg in closed),
            closed_legs=closed,
            **_explained_parts(parts_of_group),
        )
        rows.append(row)
    return rows


def _closed_legs(closed: pl.DataFrame) -> defaultdict[tuple[Any, ...], list[ClosedLeg]]:
    """Return what closed today by group; all of it belongs to one strategy, or to none."""
    legs: defaultdict[tuple[Any, ...], list[ClosedLeg]] = defaultdict(list)
    for row in closed.iter_rows(named=True):
        (strategy,) = row["strategies"] or [UNATTRIBUTED]
        account = row["account"]
        leg = ClosedLeg(account=account, conid=row["conid"], leg=row["name"], profit=row["today"])
        legs[strategy, account, row["currency"]].append(leg)
    return legs


def _explained_parts(parts: pl.DataFrame) -> dict[str, Any]:
    """Return the profit of the open holdings of a group, its parts, and what is not known."""
    names = [contract_of(row) for row in parts.iter_rows(named=True)]
    named = parts.with_columns(leg=pl.Series(names, dtype=pl.String))
    is_counted = col.daily_pnl.is_not_null()
    counted = named.filter(is_counted)
    left_out = named.filter(~is_counted)
    unknown = counted.drop_nulls("why_unknown")

    profit = in_cents(named.select(sum_if_carried(col.daily_pnl)).item())
    sums: dict[str, Any] = dict.fromkeys(PARTS)
    largest: dict[str, list[LargestLeg]] = {}
    if profit is not None and unknown.is_empty():
        *explaining, unexplained = PARTS
        for name in explaining:
            sums[name] = cents(float(counted[name].sum()))
        sums[unexplained] = cents(profit - sum(sums[name] for name in explaining))
        sums |= _greeks_that_carry(counted)
        largest = _largest(counted, [name for name in PARTS if sums[name] is not None])

    revalued = counted.filter("revalued")
    return sums | {
        "profit": profit,
        "largest": largest,
        "revalued": revalued["leg"].to_list(),
        "without_greeks": counted.filter("without_greeks")["leg"].to_list(),
        "left_out": left_out.height,
        "known": counted.height,
        "of": parts.height,
        "why_unknown": _why_unknown(unknown, left_out, sums) if parts.height else "nothing is open",
    }


def _greeks_that_carry(counted: pl.DataFrame) -> dict[str, float | None]:
    """Return the parts that are null, since the legs whose greeks are known do not carry them."""
    greeks = counted.select(**{name: sum_of_greek(name) for name in BY_GREEKS}).row(0, named=True)
    lacking = [name for name, amount in greeks.items() if amount is None]
    return dict.fromkeys([*lacking, "repricing"] if lacking else [])


def _why_unknown(unknown: pl.DataFrame, left_out: pl.DataFrame, sums: dict[str, Any]) -> str | None:
    """Return why parts are not known, each reason once; None: all are."""
    reasons: dict[str, None] = {}
    if sums["trades"] is not None and sums["repricing"] is None:
        reasons["too few legs have greeks: the change of the prices is in no part"] = None
    for leg, why in unknown.select("leg", "why_unknown").iter_rows():
        reasons[f"{leg}: {why}"] = None
    for leg in left_out["leg"]:
        reasons[f"{leg}: its profit of the day, which is left out"] = None
    return "; ".join(reasons) or None


def _largest(counted: pl.DataFrame, names: Iterable[str]) -> dict[str, list[LargestLeg]]:
    """Return the largest legs of some parts."""
    largest = {}
    for name in names:
        size = pl.col(name).abs()
        by_size = counted.filter(size > AMOUNT_ROUNDING).sort(size, descending=True)
        rows = by_size.head(LARGEST).select("account", "conid", "leg", amount=name)
        legs = [
            LargestLeg(**row | {"amount": cents(row["amount"])})
            for row in rows.iter_rows(named=True)
        ]
        if legs:
            largest[name] = legs
    return largest
