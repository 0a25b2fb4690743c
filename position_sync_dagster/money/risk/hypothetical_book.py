"""A book to which trades are applied that somebody thinks of; nothing is stored, and none is sent.

A trade closes parts of holdings, and opens a lot of its own. Lots that exist keep their costs, and
the parts of other strategies stay as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, time
from itertools import chain
from math import copysign

from polars import DataFrame, Float64, Series, col, concat, when

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import (
    LISTED_OPTIONS,
    digits,
)
from position_sync_dagster.domain.leg import NEGLIGIBLE_QUANTITY, UNATTRIBUTED, ActiveContract
from position_sync_dagster.money.magnifiers import in_major_unit
from position_sync_dagster.money.past.movements import times
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.exposure import Claims, Split
from position_sync_dagster.money.risk.priced_legs import (
    HOLDING_OF,
    SETTLED_COLUMNS,
    NewRow,
    PricedLeg,
    PricedLegs,
    Row,
    terms_of,
)
from position_sync_dagster.money.risk.proposed_trade import (
    Fill,
    ProposedTrade,
    ProposedTradeError,
    greeks_of,
    nearest_option,
    volatility_of,
)
from position_sync_dagster.money.risk.terms import (
    GREEKS,
    WITHOUT_CARRY,
    OptionTerms,
)
from position_sync_dagster.money.trading_days import expiry_moment, settles_in_cash

# What names a contract besides its conid.
_TERMS = ("symbol", "expiry", "right", "strike")

# The conid of a contract that is not held.
NOT_IN_BOOK = 0

# What prices a trade, if a person gave its price.
GIVEN = "the price that was given"


@dataclass(slots=True)
class _HeldPart:
    """A part of a holding, and the quantity that the trades leave of it."""

    leg: PricedLeg
    remaining: float


@dataclass(kw_only=True)
class HypotheticalBook:
    """A book to which trades are applied, one after the other."""

    book: Book
    legs: PricedLegs

    def __post_init__(self) -> None:
        self._parts = [_HeldPart(leg, leg.quantity) for leg in self.legs]
        self._parts_of = grouped(lambda part: HOLDING_OF(part.leg.row), self._parts)
        # The rows of opened lots, each under a conid of its own, and the legs that claim them.
        self._lots: list[NewRow] = []
        self._claims: list[ActiveContract] = []
        # The contract of each lot, by the conid of the lot: this one where it is not held.
        self._held_as: dict[int, int] = {}
        self._settled: list[NewRow] = []
        # What each trade gives or costs against the mark, and what priced it.
        self.notes: list[str] = []

    def apply_all(self, trades: Iterable[ProposedTrade]) -> None:
        """Apply trades, as `apply` does each."""
        for trade in trades:
            self.apply(trade)

    def apply(self, trade: ProposedTrade) -> None:
        """Apply a trade.

        Raises:
            ProposedTradeError: Nothing of the underlying is held, nothing prices it, it expired, or
                several strategies hold what it closes.
        """
        if trade.conid is None and trade.expiry:
            ends = expiry_moment(trade.expiry, usual=time.max)
            if ends < self.book.now:
                raise _expired(trade)

        account = trade.account or self._account_of(trade)
        row, source = self._row_of(trade, account)
        fill = self._fill(trade, row)
        is_new_option = row["conid"] == NOT_IN_BOOK and trade.right is not None
        if trade.price is not None and not is_new_option:
            source = GIVEN

        self._open(fill, self._close(fill))
        self.notes.append(f"{fill.text}, {source}")

    def closing_trades(self, strategy: str) -> list[ProposedTrade]:
        """Return the trades that close what is left of a strategy at its present prices.

        Raises:
            ProposedTradeError: It holds nothing.
        """
        columns = (*_TERMS, "account", "conid")
        trades = []
        for part in self._parts:
            if part.remaining and part.leg.row["strategy_id"] == strategy:
                terms = {name: part.leg.row[name] for name in columns}
                trades.append(ProposedTrade(quantity=-part.remaining, strategy=strategy, **terms))
        if not trades:
            raise ProposedTradeError(
                f"The strategy {strategy!r} holds nothing.",
                remedy="`position-sync exposure` lists the strategies.",
            )
        return trades

    def rolling_trades(self, strategy: str, expiry: date) -> list[ProposedTrade]:
        """Return the trades that close the nearest options of a strategy and open a later expiry.

        Raises:
            ProposedTradeError: It holds no option, or the expiry is not later.
        """
        options = [trade for trade in self.closing_trades(strategy) if trade.right is not None]
        nearest = min((trade.expiry for trade in options if trade.expiry), default=None)
        if nearest is None or expiry <= nearest:
            raise ProposedTradeError(
                f"No option of {strategy!r} expires before {expiry}.",
                remedy="Name a day after the next expiry of the strategy.",
            )

        closing = [trade for trade in options if trade.expiry == nearest]
        opening = [
            replace(trade, quantity=-trade.quantity, expiry=expiry, conid=None) for trade in closing
        ]
        return [*closing, *opening]

    def result(self) -> tuple[Book, PricedLegs]:
        """Return the book after the trades, and its legs as the option model has them."""
        split = self._without_what_was_closed()
        claims = self.book.claims
        if self._lots:
            opened = self._opened(split.parts)
            parts = concat([split.parts, opened.parts])
            split = Split(parts, concat([split.legs, opened.legs]))
            claims = replace(claims, legs=(*claims.legs, *self._claims))

        after = replace(self.book, claims=claims, split=split)
        settled = DataFrame(self._settled, SETTLED_COLUMNS)
        return after, replace(PricedLegs.of(split.parts, self.legs.given), settled=settled)

    def _without_what_was_closed(self) -> Split:
        """Return the parts of before, as far as they are left; others keep their very numbers."""
        before = self.book.split
        shares = [part.remaining / part.leg.quantity for part in self._parts]
        kept = before.parts.with_columns(left=Series(shares, dtype=Float64))
        kept = kept.with_columns(col("share", *exposure.SUMMED_COLUMNS) * col.left)
        kept = kept.filter(col.left != 0).drop("left")

        # A leg of which a trade left nothing in an account is none that is missing there.
        place = ["leg", "account"]
        closed = before.parts.select(place).join(kept, on=place, how="anti")
        return Split(kept, before.legs.join(closed, on=place, how="anti", maintain_order="left"))

    def _opened(self, parts: DataFrame) -> Split:
        """Return the lots that were opened, numbered after the parts of before."""
        given = self.legs.given
        details = {}
        for lot, held_as in self._held_as.items():
            contract = given.details.get(held_as)
            if contract is not None:
                details[lot] = contract

        priced = self.book.priced
        rows = DataFrame(self._lots, priced.schema, orient="row")
        claims = Claims(self._claims, details)
        opened = exposure.split(claims, rows, betas=given.betas)

        is_unclaimed = col.leg < 0
        unclaimed = col.leg + (parts["leg"].clip(upper_bound=0).min() or 0)
        claimed = col.leg + len(self.book.legs)
        leg = when(is_unclaimed).then(unclaimed).otherwise(claimed)
        holding = (col.holding + priced.height).cast(parts.schema["holding"])
        conid = col.conid.replace(self._held_as)
        parts = opened.parts.with_columns(leg, conid, holding)
        return Split(parts, opened.legs.with_columns(leg))

    def _fill(self, trade: ProposedTrade, row: NewRow) -> Fill:
        """Return a trade with the price at which it is done."""
        magnifier = self._magnifier(row)
        price = mark = _unit_price(row, magnifier)
        if trade.price is not None:
            if magnifier is None:
                raise ProposedTradeError(
                    f"It is not known whether {trade.symbol} is quoted in its currency or in "
                    "cents of it.",
                    remedy="Try again once a contract of it that is held has a price and a value.",
                )
            price = trade.price / magnifier
        if price is None:
            example = f"{digits(trade.quantity)} {trade.name} @1.50"
            raise ProposedTradeError(
                f"Nothing says what {trade.name} costs.", remedy=f'Give a price: "{example}".'
            )
        size = row["multiplier"]
        return Fill(trade=trade, row=row, price=price * size, mark=times(mark, size))

    def _close(self, fill: Fill) -> float:
        """Close what a trade closes of the parts that are left; return the quantity it opens."""
        wanted = fill.trade.quantity
        for part in self._closable(fill):
            negligible = NEGLIGIBLE_QUANTITY * abs(part.leg.quantity)
            size = min(abs(part.remaining), abs(wanted))
            if size <= negligible:
                continue

            quantity = copysign(size, wanted)
            wanted -= quantity
            part.remaining += quantity
            if abs(part.remaining) <= negligible:
                part.remaining = 0.0  # the rounding of a sum
            self._settled.append(fill.closing(part.leg, quantity))
        return wanted

    def _closable(self, fill: Fill) -> list[_HeldPart]:
        """Return the parts that a trade closes: those of its strategy alone.

        A trade of no strategy closes what is in none, then what a single strategy has.

        Raises:
            ProposedTradeError: Several strategies have it.
        """
        trade = fill.trade
        parts = self._parts_of[HOLDING_OF(fill.row)]
        opposite = [part for part in parts if part.remaining * trade.quantity < 0]
        parts_of = grouped(lambda part: part.leg.row["strategy_id"], opposite)
        if trade.strategy is not None:
            return parts_of[trade.strategy]

        in_no_strategy = parts_of.pop(UNATTRIBUTED, [])
        available = sum(abs(part.remaining) for part in in_no_strategy)
        if abs(trade.quantity) <= available * (1 + NEGLIGIBLE_QUANTITY):
            return in_no_strategy
        if len(parts_of) > 1:
            holders = ", ".join(sorted(parts_of))
            raise ProposedTradeError(
                f"Several strategies hold the {trade.name} that {trade.text} closes: {holders}.",
                remedy="Name one of them with --strategy; what the others have stays theirs.",
            )
        return [*in_no_strategy, *chain.from_iterable(parts_of.values())]

    def _open(self, fill: Fill, quantity: float) -> None:
        """Open a lot of what a trade did not close."""
        trade = fill.trade
        if abs(quantity) <= NEGLIGIBLE_QUANTITY * abs(trade.quantity):
            return

        lot = -1 - len(self._lots)
        conid = fill.row["conid"] or lot
        row = fill.opened(quantity) | {"conid": lot}
        strategy = trade.strategy or UNATTRIBUTED
        self._lots.append(row)
        self._held_as[lot] = conid
        self._settled.append(fill.settled(quantity, strategy, conid))
        if strategy == UNATTRIBUTED:
            return

        terms = {name: row[name] for name in (*_TERMS, "account")}
        self._claims.append(
            ActiveContract(
                conid=lot, strategy_id=strategy, added_at=self.book.now, quantity=quantity, **terms
            )
        )

    def _account_of(self, trade: ProposedTrade) -> str:
        """Return the account that holds most of the underlying."""
        of_underlying = self.legs.parts.filter(symbol=trade.symbol)
        if of_underlying.is_empty():
            raise _nothing_held(trade)
        return str(of_underlying["account"].mode().min())

    def _row_of(self, trade: ProposedTrade, account: str) -> tuple[NewRow, str]:
        """Return the row of a contract in an account, and what prices it."""
        names = _TERMS if trade.conid is None else ("conid",)
        same = [col(name).eq_missing(getattr(trade, name)) for name in names]
        held = self.book.priced.filter(col.position != 0, *same).to_dicts()
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
        row = {name: template[name] for name in self.book.priced.columns}
        row |= {name: getattr(trade, name) for name in _TERMS}
        row |= {"conid": NOT_IN_BOOK, "local_symbol": None, "market_price": None}
        row |= dict.fromkeys(("implied_vol", *GREEKS))
        if trade.right is not None:
            return self._priced_option(trade, row, similar)
        if similar.row["right"] is None:
            return row, GIVEN
        return _share_of(similar, row), f"the price of the underlying of {similar.name}"

    def _similar(self, trade: ProposedTrade) -> PricedLeg:
        """Return a held contract that tells multiplier, currency and underlying of a trade."""
        wanted = LISTED_OPTIONS
        if trade.right is None:
            wanted = frozenset({"OPT"} if trade.expiry is None else {"FUT"})

        alike = self.legs.where(col.sec_type.is_in(wanted), symbol=trade.symbol)
        held = [leg for leg in alike if trade.right or not _is_of_index(leg)]
        if not held:
            raise _nothing_held(trade)
        day = trade.expiry or date.min
        return min(held, key=lambda leg: abs((leg.row["expiry"] or day) - day))

    def _priced_option(
        self, trade: ProposedTrade, row: NewRow, similar: PricedLeg
    ) -> tuple[NewRow, str]:
        """Return the row of an option with its price, volatility and greeks."""
        now = self.book.now
        spot = similar.row["spot"]
        magnifier = self._magnifier(similar.row)
        terms = self._terms_of(trade, row, similar, magnifier)
        if terms is None or not spot or magnifier is None:
            return row, GIVEN

        price = in_major_unit(trade.price, magnifier)
        volatility, source = self._volatility_of(terms, similar, price)
        if volatility is None:
            return row, source

        row["underlying_price"] = spot * magnifier
        greeks = greeks_of(terms, spot, volatility, now)
        row |= {name: greeks[name] for name in GREEKS}
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
                return shown, GIVEN

        same = self.legs.where(under=similar.row["under"])
        nearest = nearest_option(same, terms.strike, terms.expires_at, now)
        if nearest is None:
            return None, GIVEN
        volatility: float = nearest.row["implied_vol"]
        source = f"the volatility of {nearest.name}, {volatility:.1%}"
        if price is not None:
            source = f"{GIVEN}, which shows none; valued with {source}"
        return volatility, source

    def _terms_of(
        self,
        trade: ProposedTrade,
        row: NewRow,
        similar: PricedLeg,
        magnifier: float | None,
    ) -> OptionTerms | None:
        """Return what the model prices an option as, at the hour of a similar one."""
        given = self.legs.given
        details = similar.details
        if details is not None:
            details = replace(
                details, right=trade.right, strike=trade.strike, last_trade_date=trade.expiry,
                expires_on=trade.expiry,
            )  # fmt: skip

        terms = terms_of(row | {"magnifier": magnifier}, details, given)
        if not isinstance(terms, OptionTerms):
            return None
        if terms.expires_at <= self.book.now:
            raise _expired(trade)
        return terms

    def _magnifier(self, row: Row) -> float | None:
        """Return the divisor from quoted prices to the currency: that of a held part, if any."""
        sec_type = row["sec_type"]
        alike = _QUOTED_ALIKE if sec_type in _QUOTED_ALIKE else {sec_type}
        parts = self.legs.parts.filter(col.sec_type.is_in(alike), symbol=row["symbol"])
        return next(iter(parts["magnifier"].drop_nulls()), None)


# An option on a share is quoted in the unit of the share.
_QUOTED_ALIKE = frozenset({"STK", "OPT"})


def _is_of_index(leg: PricedLeg) -> bool:
    """Return whether a leg is an option on an index, which has no shares."""
    return settles_in_cash(leg.details) or leg.row["symbol"] in WITHOUT_CARRY


def _share_of(option: PricedLeg, row: NewRow) -> NewRow:
    """Return the row of the share under an option."""
    spot = option.row["spot"]
    magnifier = option.row["magnifier"]
    price = spot * magnifier if spot and magnifier else None
    without = dict.fromkeys(("trading_class", "underlying_price"))
    return row | without | {"sec_type": "STK", "multiplier": 1.0, "market_price": price}


def _nothing_held(trade: ProposedTrade) -> ProposedTradeError:
    like = "an option or its share"
    if trade.right is not None:
        like = "an option"
    elif trade.expiry is not None:
        like = "a future"
    return ProposedTradeError(
        f"Nothing like {trade.name} is held: its multiplier and currency are not known.",
        remedy=f"Name a contract of an underlying of which {like} is held.",
    )


def _expired(trade: ProposedTrade) -> ProposedTradeError:
    return ProposedTradeError(f"{trade.name} has expired.", remedy="Name a later expiry.")


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
    return in_major_unit(row["market_price"], magnifier)
