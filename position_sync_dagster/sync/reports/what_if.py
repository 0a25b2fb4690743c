"""The book before and after trades that somebody thinks of; nothing is stored, and none is sent.

The trades change the newest rows of the holdings, and the legs of strategies. The book is then
split and summed as ever, so that what is said of it after the trades is what the product would say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from operator import itemgetter
from typing import Any

import polars as pl
from polars import col

from position_sync_dagster.domain.holding import KEY, Key, grouped
from position_sync_dagster.domain.instrument import OPTION_TYPES, Instrument, digits, parse_expiry
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.limits import OF_ACCOUNTS, LimitState
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.deliveries import uncovered_calls
from position_sync_dagster.risk.payoff import payoffs
from position_sync_dagster.risk.priced_legs import PricedLeg, PricedLegs, Row
from position_sync_dagster.risk.proposed_trade import (
    ProposedTrade,
    ProposedTradeError,
    greeks_of,
    parse_trade,
    volatility_between,
    volatility_of,
)
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.risk.terms import (
    CONTRACT_FIELDS,
    OptionTerms,
    option_terms,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import exposure
from position_sync_dagster.sync.reports.book import Book
from position_sync_dagster.sync.reports.figures import known_limits
from position_sync_dagster.sync.reports.limit_readings import evaluate
from position_sync_dagster.sync.reports.risk import leg_notes, read_risk

# A row of the ledger that is changed, or one for a program.
NewRow = dict[str, Any]

# The moves of the prices in percent that are shown if none are named.
USUAL_MOVES = (-10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0)

# The sums of a group that are shown before and after, besides value and profit.
GREEKS = ("dollar_delta", "delta", "gamma_1pct", "theta", "vega")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What somebody thinks of doing.

    Attributes:
        trades: Single trades.
        closed: Strategies that are closed at their present prices.
        rolled: Strategies whose nearest options are rolled, with the new expiry.
    """

    trades: Sequence[ProposedTrade] = ()
    closed: Sequence[str] = ()
    rolled: Row = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.trades or self.closed or self.rolled)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The book before and after some trades.

    Attributes:
        notes: What priced each trade.
    """

    before: Book
    before_legs: PricedLegs
    after: Book
    after_legs: PricedLegs
    settings: Settings
    notes: Sequence[str]

    def rows(self, points: Sequence[Point], level: Breakdown) -> list[NewRow]:
        """Return the rows of `scenario_rows`, each with what it is `before` and `after`.

        `value`, `profit` and `left_out` of a row are those after the trades. A group that is not
        there before or after has null.
        """
        before = _sides(self.before, self.before_legs, self.settings, points, level)
        after = _sides(self.after, self.after_legs, self.settings, points, level)
        rows = []
        for key in sorted({*before, *after}, key=str):
            row_before, side_before = before.get(key, (None, None))
            row_after, side_after = after.get(key, (None, None))
            sides = {"before": side_before, "after": side_after}
            if row_after is None:
                sides |= dict.fromkeys(_SHOWN)
            rows.append((row_after or row_before or {}) | sides)
        return rows


# What a row has of each side.
_SHOWN = ("value", "profit", "left_out")


def _sides(
    book: Book, legs: PricedLegs, settings: Settings, points: Sequence[Point], level: Breakdown
) -> dict[tuple[Any, ...], tuple[NewRow, NewRow]]:
    """Return each row of scenarios, and what it has of a side, by group and number of the point."""
    more = _more_by_group(book, legs, settings, level)
    sides = {}
    for group, rows in grouped(_GROUP_OF, scenario_rows(legs, points, level)).items():
        for number, row in enumerate(rows):
            numbers = {name: row[name] for name in _SHOWN}
            sides[*group, number] = (row, numbers | more.get(group, {}))
    return sides


_GROUP_OF = itemgetter("strategy", "name", "account", "currency", "conid")


def _more_by_group(
    book: Book, legs: PricedLegs, settings: Settings, level: Breakdown
) -> dict[tuple[Any, ...], NewRow]:
    """Return greeks, payoffs, what is uncovered and broken limits of strategies and accounts."""
    if level not in (Breakdown.STRATEGY, Breakdown.ACCOUNT):
        return {}
    by = ["account", "currency"]
    if level is Breakdown.STRATEGY:
        by = ["strategy_id", *by]
    uncovered = uncovered_calls(legs)
    payoffs_of = grouped(
        lambda payoff: (payoff.strategy, payoff.account), payoffs(legs, leg_notes(book))
    )
    # What the broker alone knows of an account, such as its margin, is not known after a trade.
    computed = [limit for limit in known_limits(settings) if limit.measure not in OF_ACCOUNTS]
    judged = evaluate(computed, book)
    broken = [evaluated for evaluated in judged if evaluated.outcome is LimitState.BROKEN]

    more = {}
    for sums in exposure.summed(legs.parts, by, book.now).iter_rows(named=True):
        strategy = sums.get("strategy_id")
        account = sums["account"]
        uncovered_here = []
        for row in uncovered:
            if row["account"] == account and strategy in (None, row["strategy_id"]):
                uncovered_here.append(row)

        broken_here = []
        for evaluated in broken:
            limit = evaluated.limit
            if (limit.account or limit.strategy_id) in (strategy, account):
                broken_here.append(evaluated.text)

        key = (strategy, strategy or account, account, sums["currency"], None)
        greeks = {name: sums[name] for name in GREEKS}
        more[key] = greeks | {
            "payoffs": [payoff.row for payoff in payoffs_of[strategy, account]],
            "uncovered": uncovered_here,
            "limits_broken": broken_here,
        }
    return more


def read_what_if(lake: Lake, settings: Settings, now: datetime, changes: Changes) -> WhatIf:
    """Read the book, and apply trades to it; blocks.

    Raises:
        LakeError: A table cannot be used.
        ProposedTradeError: A trade names nothing that can be priced.
    """
    book, _scenarios, legs = read_risk(lake, settings, now)
    return what_if_of(book, legs, settings, changes)


def what_if_of(book: Book, legs: PricedLegs, settings: Settings, changes: Changes) -> WhatIf:
    """Return a book before and after trades.

    Raises:
        ProposedTradeError: A trade names nothing that can be priced.
    """
    trades = [*changes.trades]
    for strategy in changes.closed:
        trades += closing_trades(legs, strategy)
    for strategy, expiry in changes.rolled.items():
        trades += rolling_trades(legs, strategy, expiry)

    after = HypotheticalBook(book=book, legs=legs)
    notes = [after.apply(trade) for trade in trades]
    after_book = after.result(frozenset(changes.closed))
    after_legs = PricedLegs.of(after_book.split.parts, legs.given)
    return WhatIf(
        before=book,
        before_legs=legs,
        after=after_book,
        after_legs=after_legs,
        settings=settings,
        notes=notes,
    )


def rows_of_choice(
    rows: Sequence[NewRow], strategy: str | None, account: str | None
) -> list[NewRow]:
    """Return the rows of an account, and those of a strategy where rows are of strategies."""
    chosen = []
    for row in rows:
        is_of_strategy = strategy is None or row["strategy"] in (None, strategy)
        if is_of_strategy and account in (None, row["account"]):
            chosen.append(row)
    return chosen


def closing_trades(legs: PricedLegs, strategy: str) -> list[ProposedTrade]:
    """Return the trades that close all parts of a strategy at their present prices.

    Raises:
        ProposedTradeError: It holds nothing.
    """
    trades = []
    for leg in legs.of_strategy(strategy):
        row = leg.row
        trade = ProposedTrade(
            quantity=-leg.quantity,
            symbol=row["symbol"],
            expiry=row["expiry"],
            right=row["right"],
            strike=row["strike"],
            strategy=strategy,
            account=row["account"],
            conid=row["conid"],
        )
        trades.append(trade)

    if not trades:
        raise ProposedTradeError(
            f"The strategy {strategy!r} holds nothing.",
            remedy="`position-sync exposure` lists the strategies.",
        )
    return trades


def rolling_trades(legs: PricedLegs, strategy: str, expiry: Any) -> list[ProposedTrade]:
    """Return the trades that close the nearest options of a strategy and open a later expiry.

    Raises:
        ProposedTradeError: It holds no option, or the expiry is not later.
    """
    options = [trade for trade in closing_trades(legs, strategy) if trade.right is not None]
    expiries = [trade.expiry for trade in options if trade.expiry is not None]
    nearest = min(expiries, default=None)
    if nearest is None or expiry <= nearest:
        raise ProposedTradeError(
            f"No option of {strategy!r} expires before {expiry}.",
            remedy="Name a day after the next expiry of the strategy.",
        )

    closing = []
    opening = []
    for trade in options:
        if trade.expiry == nearest:
            closing.append(trade)
            opening.append(replace(trade, quantity=-trade.quantity, expiry=expiry, conid=None))
    return [*closing, *opening]


@dataclass(kw_only=True)
class HypotheticalBook:
    """A book to which trades are applied, one after the other.

    Attributes:
        rows: The newest row of each holding, by account and conid.
        claims: The active legs.
    """

    book: Book
    legs: PricedLegs

    def __post_init__(self) -> None:
        self.rows: dict[Key, NewRow] = {}
        for row in self.book.priced.iter_rows(named=True):
            self.rows[row["account"], row["conid"]] = row
        self.claims = [*self.book.legs]
        self.traded: set[Key] = set()
        self._next_conid = -1

    def apply(self, trade: ProposedTrade) -> str:
        """Apply a trade; return what priced it.

        Raises:
            ProposedTradeError: Nothing of the underlying is held, nothing prices it, or it expired.
        """
        is_written = trade.conid is None
        if is_written and trade.expiry and trade.expiry < exchange_date(self.book.now):
            raise _expired(trade)

        account = trade.account or self._account_of(trade)
        row, source = self._row_of(trade, account)
        key = (account, row["conid"])

        magnifier = self._magnifier(row)
        mark = _unit_price(row, magnifier)
        unit_price = mark
        if trade.price is not None:
            if magnifier is None:
                raise _unit_not_known(trade)
            unit_price = trade.price / magnifier
            source = "the price that was given" if key[1] > 0 else source
        if unit_price is None:
            example = f"{digits(trade.quantity)} {trade.name} @1.50"
            raise ProposedTradeError(
                f"Nothing says what {trade.name} costs.", remedy=f'Give a price: "{example}".'
            )

        price = unit_price * row["multiplier"]
        value_of_one = price if mark is None else mark * row["multiplier"]
        self.rows[key] = traded_row(row, trade.quantity, price, value_of_one)
        self.traded.add(key)
        self._claim(trade, key)
        return f"{trade.quantity:+.15g} {trade.name} in {account}: {unit_price:,.4g}, {source}"

    def result(self, closed: frozenset[str]) -> Book:
        """Return the book after the trades, without the legs of strategies that were closed."""
        schema = self.book.priced.schema
        priced = pl.DataFrame(list(self.rows.values()), schema, orient="row")
        active = [leg for leg in self.claims if leg.strategy_id not in closed]
        given = self.legs.given
        end_of = self.book.closes.end_of
        split = exposure.split(active, priced, given.details, end_of, dict(given.betas))

        # What the broker reports of these holdings is what they were before.
        reported = self.book.reported
        traded = pl.DataFrame(list(self.traded), reported.select(KEY).schema, orient="row")
        untouched = reported.join(traded, on=KEY, how="anti", maintain_order="left")
        return replace(
            self.book, priced=priced, legs=tuple(active), split=split, reported=untouched
        )

    def _account_of(self, trade: ProposedTrade) -> str:
        """Return the account that holds most of the underlying."""
        of_underlying = self.legs.parts.filter(symbol=trade.symbol)
        if of_underlying.is_empty():
            raise _nothing_held(trade)
        return str(of_underlying["account"].mode().min())

    def _row_of(self, trade: ProposedTrade, account: str) -> tuple[NewRow, str]:
        """Return the row of a contract in an account, and what prices it."""
        wanted = (trade.symbol, trade.expiry, trade.right, trade.strike)
        held = []
        for row in self.rows.values():
            terms = (row["symbol"], row["expiry"], row["right"], row["strike"])
            if row["conid"] == trade.conid or (row["position"] and terms == wanted):
                held.append(row)

        for row in held:
            if row["account"] == account:
                return row, "the price of the holding"
        if held:
            return _without_position(held[0], account), "the price in another account"
        return self._new_row(trade, account)

    def _new_row(self, trade: ProposedTrade, account: str) -> tuple[NewRow, str]:
        """Return the row of a contract that is not held, and what prices it."""
        similar = self._similar(trade)
        template = _without_position(similar.row, account)
        row = {name: template[name] for name in self.book.priced.columns} | {
            "conid": self._next_conid, "symbol": trade.symbol, "right": trade.right,
            "strike": trade.strike, "expiry": trade.expiry, "local_symbol": None,
            "market_price": None, "implied_vol": None, **dict.fromkeys(_GREEK_COLUMNS),
        }  # fmt: skip
        self._next_conid -= 1
        if trade.right is None:
            return row, "nothing"
        return self._priced_option(trade, row, similar)

    def _similar(self, trade: ProposedTrade) -> PricedLeg:
        """Return a held contract whose multiplier, currency and underlying are those of a trade."""
        wanted = OPTION_TYPES
        if not trade.right:
            wanted = frozenset({"FUT"} if trade.expiry else {"STK"})

        is_like = (col.symbol == trade.symbol) & col.sec_type.is_in(wanted)
        held = self.legs.where(is_like)
        if held.parts.is_empty():
            raise _nothing_held(trade)
        return min(held, key=lambda leg: _days_apart(leg.row["expiry"], trade.expiry))

    def _priced_option(
        self, trade: ProposedTrade, row: NewRow, similar: PricedLeg
    ) -> tuple[NewRow, str]:
        """Return the row of an option with its price, volatility and greeks."""
        now = self.book.now
        spot = similar.row["spot"]
        magnifier = self._magnifier(similar.row)
        terms = self._terms_of(trade, row, similar, magnifier)
        if terms is None or not spot or magnifier is None:
            return row, "nothing"

        price = None if trade.price is None else trade.price / magnifier
        volatility, source = self._volatility_of(terms, similar, price)
        if volatility is None:
            return row, source

        row["underlying_price"] = spot * magnifier
        greeks = greeks_of(terms, spot, volatility, now)
        row |= {name: greeks[name] for name in _GREEK_COLUMNS}
        row["implied_vol"] = volatility
        row["market_price"] = greeks["price"] * magnifier
        return row, source

    def _volatility_of(
        self, terms: OptionTerms, similar: PricedLeg, price: float | None
    ) -> tuple[float | None, str]:
        """Return the volatility that values an option, and what it is from; None: nothing says it.

        Args:
            similar: A held contract of the same underlying.
            price: The price that was given, in the major unit; None: none was.
        """
        now = self.book.now
        if price is not None:
            shown = volatility_of(terms, price, similar.row["spot"], now)
            if shown is not None:
                return shown, "the price that was given"

        same = [leg for leg in self.legs if leg.row["under"] == similar.row["under"]]
        between = volatility_between(same, terms.strike, terms.expires_at, now)
        if between is None:
            return None, "the price that was given"
        source = f"a volatility of {between.volatility:.1%} from {between.source}"
        if price is not None:
            source = f"the price that was given, which shows none; valued with {source}"
        return between.volatility, source

    def _terms_of(
        self,
        trade: ProposedTrade,
        row: Row,
        similar: PricedLeg,
        magnifier: float | None,
    ) -> OptionTerms | None:
        """Return what the model prices an option as, at the hour of a similar one."""
        given = self.legs.given
        details = given.details.get(similar.row["conid"])
        if details is not None:
            details = replace(
                details, right=trade.right, strike=trade.strike, last_trade_date=trade.expiry,
                expires_on=trade.expiry,
            )  # fmt: skip

        fields = {name: row[name] for name in CONTRACT_FIELDS}
        dividends = given.dividends.get(trade.symbol)
        terms = option_terms(Instrument(**fields), details, given.rates, dividends, magnifier)
        if not isinstance(terms, OptionTerms):
            return None
        if terms.expires_at <= self.book.now:
            raise _expired(trade)
        return terms

    def _magnifier(self, row: Row) -> float | None:
        """Return the divisor from quoted prices to the currency: that of a held part, if any."""
        parts = self.legs.parts.filter(symbol=row["symbol"], sec_type=row["sec_type"])
        magnifiers = parts["magnifier"].drop_nulls().to_list()
        return magnifiers[0] if magnifiers else None

    def _claim(self, trade: ProposedTrade, key: Key) -> None:
        """Add what was opened for a strategy as a leg, and end the leg that was closed."""
        account, conid = key
        if trade.strategy in (None, UNATTRIBUTED):
            return
        if trade.conid is not None:
            closed = (trade.strategy, conid)
            self.claims = [leg for leg in self.claims if (leg.strategy_id, leg.conid) != closed]
            return

        opened = ActiveContract(
            conid=conid,
            symbol=trade.symbol,
            right=trade.right,
            strike=trade.strike,
            expiry=trade.expiry,
            strategy_id=str(trade.strategy),
            added_at=self.book.now,
            quantity=trade.quantity,
            account=account,
        )
        self.claims.append(opened)


_GREEK_COLUMNS = ("delta", "gamma", "vega", "theta")


def _nothing_held(trade: ProposedTrade) -> ProposedTradeError:
    return ProposedTradeError(
        f"Nothing like {trade.name} is held: its multiplier and currency are not known.",
        remedy="Name a contract of an underlying of which an option, a share or a future is held.",
    )


def _expired(trade: ProposedTrade) -> ProposedTradeError:
    return ProposedTradeError(f"{trade.name} has expired.", remedy="Name a later expiry.")


def _unit_not_known(trade: ProposedTrade) -> ProposedTradeError:
    return ProposedTradeError(
        f"It is not known whether {trade.symbol} is quoted in its currency or in cents of it.",
        remedy="Try again once a contract of it that is held has a price and a value.",
    )


def _days_apart(expiry: date | None, wanted: date | None) -> int:
    if expiry is None or wanted is None:
        return 0
    return abs((expiry - wanted).days)


def _without_position(row: Row, account: str) -> NewRow:
    """Return a row of which nothing is held."""
    return {
        **row,
        "account": account,
        "position": 0.0,
        "average_cost": None,
        "market_value": 0.0,
        "unrealized_pnl": 0.0,
        "daily_pnl": 0.0,
    }


def _unit_price(row: Row, magnifier: float | None) -> float | None:
    """Return the price of one unit in the major unit; None: it is not known."""
    size = row["position"] * row["multiplier"]
    if size and row["market_value"] is not None:
        return float(row["market_value"] / size)
    if row["market_price"] is None or magnifier is None:
        return None
    return float(row["market_price"] / magnifier)


def traded_row(row: Row, quantity: float, price: float, value_of_one: float) -> NewRow:
    """Return a row after a trade, as the broker books it.

    A trade that adds has an average cost between both. One that reduces leaves the average cost as
    it is, and one beyond zero opens at its own price.

    Args:
        row: The holding.
        quantity: What is traded, below 0 if it is sold.
        price: That of one contract, with its multiplier.
        value_of_one: What one contract is worth now.
    """
    before = row["position"]
    after = before + quantity

    average_cost = row["average_cost"]
    if not before or before * after < 0:
        average_cost = price
    elif before * quantity > 0 and average_cost is not None:
        average_cost = (before * average_cost + quantity * price) / after

    value = after * value_of_one
    gain = None if average_cost is None else value - after * average_cost
    return {
        **row,
        "position": after,
        "average_cost": average_cost,
        "market_value": value,
        "unrealized_pnl": gain if after else 0.0,
    }


def read_changes(
    trades: Iterable[str],
    closed: Iterable[str],
    rolled: Iterable[tuple[str, str]],
    account: str | None = None,
    strategy: str | None = None,
) -> Changes:
    """Read what somebody thinks of doing, as texts.

    Args:
        trades: Trades as `parse_trade` reads them.
        closed: Names of strategies.
        rolled: Names of strategies and new expiries.
        account: The account of the trades; None: the one that holds most of each underlying.
        strategy: The strategy that gets what they open; None: none.

    Raises:
        ProposedTradeError: A text is no trade.
        InvalidLegError: A part of a trade, or an expiry, cannot be read.
    """  # fmt: skip
    parsed = []
    for text in trades:
        trade = parse_trade(text)
        parsed.append(replace(trade, account=account, strategy=strategy))

    expiries = {name: parse_expiry(expiry) for name, expiry in rolled}
    return Changes(trades=parsed, closed=tuple(closed), rolled=expiries)
