"""Postings: whose each movement is, and what it does to quantity and cost of its owner.

Attribution makes them, and is the last place that knows what a movement means: everything above
adds up postings, and decides no owner, cost or quantity by the kind of a movement.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

import polars as pl
from polars import DataFrame, Expr, String, col, concat_str, lit, when

from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import digits, leg_name
from position_sync_dagster.money.past.movements import Movement, MovementKind, moment_of, times


class Effect(StrEnum):
    """What a posting does to quantity and cost.

    OPENS: more is held, for what it cost: of a delivery the strike. CLOSES: it takes of what was
    opened, and realises. KEEPS: the quantity changes, its cost and its day stay, as in a split.
    LEAVES: a corporate action took it; its cost goes to what comes for it. COMES: brought by one,
    with the cost and the day of what left. PAYS: money without a quantity. EARNS: income of what
    is held. LOSES: it is not known by how much it changed what is held.
    """

    OPENS = "OPENS"
    CLOSES = "CLOSES"
    KEEPS = "KEEPS"
    LEAVES = "LEAVES"
    COMES = "COMES"
    PAYS = "PAYS"
    EARNS = "EARNS"
    LOSES = "LOSES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """The part of a movement that belongs to one owner.

    Attributes:
        owner: The strategy; UNATTRIBUTED: none has it.
        movement: The movement, with the sign of its quantity, to be shown.
        effect: What it does to quantity and cost.
        fraction: Which part of the movement's money belongs to the owner.
        quantity: By how much it changed what the owner has.
        unclear: Why it is not known whose it was, or what it cost; None: its movement says it.
        is_owner_unclear: Whether that is whose it was.
        is_prior: Whether it is no movement, but what was held before the first one.
        came_from: The ids of the postings that it came from: of what left for it, with the cost; of
            options that delivered it, without.
        pays_for: The id of the movement whose money it is a part of; None: it is of its own.
    """

    owner: str
    movement: Movement
    effect: Effect
    fraction: float
    quantity: float
    unclear: str | None = None
    is_owner_unclear: bool = False
    is_prior: bool = False
    came_from: tuple[str, ...] = ()
    pays_for: str | None = None

    @property
    def posting_id(self) -> str:
        """Return its name, the same each time the same sources are read."""
        what = "PRIOR" if self.is_prior else self.effect
        return f"{self.movement.movement_id}:{self.owner}:{what}"

    @property
    def key(self) -> Key:
        """Return account and conid."""
        return self.movement.key

    @property
    def conid(self) -> int:
        """Return the contract; 0 of money alone."""
        return self.key[1]

    @property
    def currency(self) -> str | None:
        """Return the currency of its cash."""
        return self.movement.currency

    @property
    def session(self) -> date:
        """Return the trading day to which it belongs."""
        return self.movement.session_date

    @property
    def at(self) -> datetime:
        """Return when it happened, as far as that is known."""
        return moment_of(self.movement)

    @property
    def opens(self) -> bool:
        """Return whether it opened something."""
        return self.effect in (Effect.OPENS, Effect.COMES)

    @property
    def is_option(self) -> bool:
        """Return whether it is of an option."""
        return self.movement.is_option

    @property
    def is_trade(self) -> bool:
        """Return whether it was bought or sold."""
        return self.movement.kind is MovementKind.TRADE and not self.is_prior

    @property
    def cash(self) -> float | None:
        """Return what it brought, without fees; None: not known; a value alone is no money."""
        return 0.0 if self.is_carried else times(self.movement.cash, self.fraction)

    @property
    def is_carried(self) -> bool:
        """Return whether its money is a stated value alone: its cost goes along, as it was."""
        is_moved = self.effect in (Effect.LEAVES, Effect.COMES)
        return is_moved and self.movement.kind is MovementKind.TRANSFER

    @property
    def unknown(self) -> str | None:
        """Return why it is not known what it brought; None: its cash and its fee say it."""
        return self.unclear or self.why_no_money

    @property
    def why_no_money(self) -> str | None:
        """Return why its movement does not say what it brought, whoever had it."""
        movement = self.movement
        if self.cash is not None:
            return self.why_no_fee_in(self.currency)
        lacking = "price" if movement.multiplier else "multiplier"
        usual = f"the {lacking} of {{}} is not known"
        return _NO_CASH.get(movement.kind, usual).format(self._booked)

    def why_no_fee_in(self, currency: str | None) -> str | None:
        """Return why its movement does not say what was charged for it in a currency."""
        if self.fee_in(currency) is not None:
            return None
        lacking = _NO_FEE if self.movement.fee is None else _NO_FEE_CURRENCY
        return lacking.format(self._booked)

    @property
    def _booked(self) -> str:
        return f"{name_of(self.movement)} of {self.movement.day}"

    @property
    def fee(self) -> float | None:
        """Return its fee; positive was paid; None: not known."""
        return times(self.movement.fee, -self.fraction)

    @property
    def charged_elsewhere(self) -> str | None:
        """Return the currency of its fee, if that is another one than that of its cash."""
        charged_in = self.movement.fee_currency
        # A part without money has no part of a fee, also of one that is not known.
        has_fee = self.fraction != 0 and self.fee != 0
        return charged_in if charged_in != self.currency and has_fee else None

    def fee_in(self, currency: str | None) -> float | None:
        """Return its fee in a currency, 0 if it was charged in another one; None: not known.

        Where nothing says in which one, that in the currency of its cash is not known.
        """
        charged_in = self.movement.fee_currency
        if currency != (self.currency if charged_in is None else charged_in):
            return 0.0
        return None if self.fee and charged_in is None else self.fee


def name_of(movement: Movement) -> str:
    """Return the contract of a movement as a trader writes it."""
    symbol = movement.symbol or f"{movement.conid}"
    return leg_name(symbol, movement.right, movement.strike, movement.expiry)


def names_of(rows: DataFrame) -> Expr:
    """Return the names of the contracts of rows, as `leg_name` makes them."""
    strikes = {strike: digits(strike) for strike in rows["strike"].drop_nulls().unique()}
    strike = col.strike.replace_strict(strikes, default=None, return_dtype=String)
    strike += col.right.fill_null("").str.slice(0, 1)
    return concat_str(
        "symbol", strike, col.expiry.dt.to_string("%d%b%y"), separator=" ", ignore_nulls=True
    )


def why_no_fees(rows: DataFrame) -> Expr:
    """Return why rows of `movements` do not say what was charged for them in their currency."""
    lacking = when(col.fee.is_null()).then(lit(_NO_FEE)).otherwise(lit(_NO_FEE_CURRENCY))
    return lacking.str.replace("{}", pl.format("{} of {}", names_of(rows), "day"), literal=True)


_NO_FEE = "the fee of {} is not known"
_NO_FEE_CURRENCY = "the fee of {} was charged in an unknown currency"

# Why the cash of some kinds is not known; of others it follows from price and multiplier.
_NO_CASH = {
    MovementKind.UNEXPLAINED: "how {} ended is not known",
    MovementKind.CORPORATE_ACTION: "what the corporate action on {} paid is not known",
    MovementKind.TRANSFER: "what was transferred with {} had no stated value",
}
